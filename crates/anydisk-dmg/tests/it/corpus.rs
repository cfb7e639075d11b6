//! Whole disks that hdiutil wrote.

use anydisk_core::Registry;
use anydisk_dmg::DMG;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    corpus::judge_all("dmg", &Registry::new(&[&DMG]), &[]);
}
