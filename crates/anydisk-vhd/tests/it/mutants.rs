//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_core::{Limits, Registry};
use anydisk_raw::RAW;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};
use anydisk_vhd::VHD;

/// Most changes are in the footer's copy, the header and the table.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[512, 1536, 2 << 10],
    nasty: Nasty::Big32(&[0, 1, u32::MAX, u32::MAX - 1, 1 << 31, 1 << 20, 0x1000, 3]),
    count: 40,
    largest: 8 << 20,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let registry = Registry::new(&[&VHD, &RAW]);
    let tally = DAMAGE.on_golden("vhd", &mut Random::new(7), |mutant, random| {
        wander(&mutant.open(&registry, "vhd", Limits::default())?, random);
        Ok(())
    });
    tally.assert_mixed(100);
}
