//! Operations on a new qcow2 image against a vector of bytes.
#![no_main]

use anydisk_core::Options;
use anydisk_fuzz::story::{Step, Subject};
use anydisk_qcow2::QCOW2;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Story {
    cluster_bits: u8,
    version_2: bool,
    extended: bool,
    lazy: bool,
    refcount_order: u8,
    sectors: u16,
    steps: Vec<Step>,
}

impl Story {
    fn options(&self) -> Options {
        let mut options = Options::of(&QCOW2);
        let mut set = |name: &str, value: String| {
            options.set(name, &value).expect("an option of qcow2");
        };
        let bits = if self.extended { 14 } else { 9 } + u32::from(self.cluster_bits % 4);
        set("cluster_size", (1_u64 << bits).to_string());
        if self.version_2 {
            set("compat", "v2".into());
            return options;
        }
        set("extended_l2", if self.extended { "on" } else { "off" }.into());
        set("lazy_refcounts", if self.lazy { "on" } else { "off" }.into());
        set("refcount_bits", (1_u32 << (self.refcount_order % 7)).to_string());
        options
    }
}

fuzz_target!(|story: Story| {
    let (size, most) = (u64::from(story.sectors) * 512, u64::from(u16::MAX));
    Subject::create(&QCOW2, &story.options(), size, most).play(&story.steps);
});
