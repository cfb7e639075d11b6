//! Disks that VirtualBox, qemu and others wrote, whole and damaged.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;
use anydisk_vdi::VDI;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("vdi", &Registry::new(&[&VDI, &RAW]), &[]);
}
