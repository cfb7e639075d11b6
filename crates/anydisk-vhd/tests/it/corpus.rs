//! Disks that Virtual PC, Windows, VirtualBox, qemu and others wrote, whole and damaged.

use anydisk_core::Registry;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;
use anydisk_vhd::VHD;

const BAD_SUMS: &str = "both footers have wrong checksums";

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let mut not_yet =
        vec![("dfvfs-image-vhd.vhd", BAD_SUMS), ("dfvfs-image-differential-vhd", BAD_SUMS)];
    let rows = corpus::rows("vhd");
    not_yet.retain(|(name, _)| rows.iter().any(|row| row.name == *name));
    corpus::judge_all("vhd", &Registry::new(&[&VHD, &RAW]), &not_yet);
}
