//! A disk that user-mode Linux' tools made.

use anydisk_core::Registry;
use anydisk_cow::COW;
use anydisk_raw::RAW;
use anydisk_testkit::corpus;

#[test]
fn every_disk_of_the_corpus_has_its_content() {
    let registry = Registry::new(&[&COW, &RAW]);
    corpus::judge_all("cow", &registry, &[]);
}
