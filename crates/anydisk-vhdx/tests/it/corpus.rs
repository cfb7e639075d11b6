//! Disks that Hyper-V, disk2vhd and qemu wrote, whole and damaged.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;
use anydisk_vhdx::VHDX;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("vhdx", &Registry::new(&[&VHDX, &RAW]), &[]);
}
