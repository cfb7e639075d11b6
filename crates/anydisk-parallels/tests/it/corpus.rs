//! Disks that Parallels and qemu wrote, whole and damaged.

use anydisk_core::Registry;
use anydisk_parallels::PARALLELS;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let mut not_yet = vec![
        ("dissect-expanding-hdd", "bundles are not read yet"),
        ("dissect-split-hdd", "bundles are not read yet"),
    ];
    let rows = corpus::rows("parallels");
    not_yet.retain(|(name, _)| rows.iter().any(|row| row.name == *name));
    corpus::judge_all("parallels", &Registry::new(&[&PARALLELS, &RAW]), &not_yet);
}
