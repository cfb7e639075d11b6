//! Disks that VMware, VirtualBox, qemu and others wrote.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;
use anydisk_vmdk::VMDK;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let registry = Registry::new(&[&VMDK, &RAW]);
    corpus::judge_all("vmdk", &registry, &[]);
}
