//! Disks that VMware, VirtualBox, qemu and others wrote.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;
use anydisk_vmdk::VMDK;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let registry = Registry::new(&[&VMDK, &RAW]);
    // Others read zeroes where the first directory is not in the file, or refuse it.
    let through_the_second =
        ("damaged/bad-vmdk-gd-past-end.vmdk", "what the second directory names is read");
    corpus::judge_all("vmdk", &registry, &[through_the_second]);
}
