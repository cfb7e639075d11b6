//! The format extension: dirty bitmaps and features, for reading, and when the image is written.

use std::sync::Arc;

use anydisk_core::{
    Access, Changes, Error, Format, GuestOffset, GuestRange, HostOffset, Limits, Location,
    OpenRequest, Opened, Storage,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use md5::{Digest, Md5};

use crate::common::{ByHand, number_at, open};

const EXT_OFF: u64 = 56;
const BITMAP: u64 = 0x2038_5FAE_252C_B34A;
const NECESSARY: u64 = 1;
const TRANSIT: u64 = 2;
const NAME: &str = "07070707-0707-0707-0707-070707070707";

fn feature(magic: u64, flags: u64, data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).expect("small");
    let mut bytes = [&magic.to_le_bytes()[..], &flags.to_le_bytes(), &size.to_le_bytes()].concat();
    bytes.extend([0; 4]);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A bitmap of the disk of 128 sectors, one bit for each, whose bits lie at this sector.
fn bitmap(sector: u64) -> Vec<u8> {
    let mut data = [&128_u64.to_le_bytes()[..], &[7; 16], &1_u32.to_le_bytes()].concat();
    data.extend(1_u32.to_le_bytes());
    data.extend(sector.to_le_bytes());
    feature(BITMAP, 0, &data)
}

/// Cluster 1 is the disk's first, 2 holds bits of the sectors 3 to 9 and 127, 3 the extension.
fn with(features: &[Vec<u8>]) -> Arc<MemoryStorage> {
    let store = ByHand::NEW.store(&[1], 6);
    let mut bits = [0; 1024];
    (bits[0], bits[1], bits[15]) = (0xF8, 3, 0x80);
    let mut rest = features.concat();
    rest.resize(1000, 0);
    let extension = [&0xAB23_4CEF_23DC_EA87_u64.to_le_bytes()[..], &Md5::digest(&rest), &rest];
    for (at, bytes) in [(EXT_OFF, &[6][..]), (2 * 1024, &bits), (3 * 1024, &extension.concat())] {
        store.write_at(HostOffset(at), bytes).expect("memory is written");
    }
    store
}

fn opened(store: &Arc<MemoryStorage>, access: Access) -> Result<Opened, Error> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    PARALLELS.open(OpenRequest { access, ..OpenRequest::new(store.clone(), &here, &limits) })
}

fn all(changes: &mut dyn Changes) -> Vec<GuestRange> {
    let (mut all, mut from) = (Vec::new(), GuestOffset(0));
    while let Some(range) = changes.next(from).expect("the bits are read") {
        from = range.end();
        all.push(range);
    }
    all
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(start), len).expect("small")
}

#[test]
fn a_bitmap_tells_what_its_bits_say() {
    let image = opened(&with(&[bitmap(4)]), Access::Read).expect("it opens").image;
    let bitmaps = image.bitmaps().expect("it has bitmaps");
    let listed = bitmaps.list().expect("they are listed");
    assert_eq!((&*listed[0].name, listed[0].granularity, listed.len()), (NAME, 512, 1));
    let mut changes = bitmaps.changes(NAME).expect("it can be read");
    assert_eq!(changes.size(), 64 << 10);
    assert_eq!(all(&mut *changes), [range(3 << 9, 7 << 9), range(127 << 9, 512)]);
    assert_eq!(changes.next(GuestOffset(1700)).expect("read"), Some(range(1700, 3420)));
    assert!(matches!(bitmaps.changes("x").expect_err("none"), Error::NotFound { .. }));
    assert!(matches!(bitmaps.clear(NAME).expect_err("not here"), Error::ReadOnly { .. }));
}

#[test]
fn bits_that_are_all_alike_are_not_read() {
    for (sector, expected) in [(0, vec![]), (1, vec![range(0, 64 << 10)])] {
        let image = opened(&with(&[bitmap(sector)]), Access::Read).expect("it opens").image;
        let mut changes = image.bitmaps().expect("some").changes(NAME).expect("it can be read");
        assert_eq!(all(&mut *changes), expected);
    }
    let image = opened(&with(&[bitmap(1 << 40)]), Access::Read).expect("it opens").image;
    let mut changes =
        image.bitmaps().expect("some").changes(NAME).expect("its bits are not read yet");
    assert!(changes.next(GuestOffset(0)).is_err());
}

#[test]
fn bitmaps_are_dropped_before_the_first_change_and_their_clusters_used_again() {
    let store = with(&[bitmap(4)]);
    let warnings = opened(&store, Access::ReadWrite).expect("it opens").warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("Its dirty bitmaps are dropped"), "{warnings:?}");
    assert_eq!(number_at(&*store, EXT_OFF), 6);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    assert!(disk.top().bitmaps().is_none());
    disk.write(GuestOffset(5), &[1]).expect("a write");
    assert_eq!(number_at(&*store, EXT_OFF), 0);
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory has a length"), 2 * 1024);
    disk.write(GuestOffset(9000), &[1; 2048]).expect("a write");
    disk.flush().expect("a flush");
    assert!(opened(&store, Access::Read).expect("it opens").image.bitmaps().is_none());
}

#[test]
fn features_that_are_not_known_do_what_they_say_of_themselves() {
    let kept = feature(5, TRANSIT, b"nine byte");
    let store = with(&[feature(6, 0, b"dropped"), kept.clone(), bitmap(4)]);
    let warnings = opened(&store, Access::Read).expect("it opens").warnings;
    assert_eq!(
        warnings,
        [
            "It has a feature 0x6 that is not known here.",
            "It has a feature 0x5 that is not known here."
        ]
    );
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5), &[1]).expect("a write");
    disk.flush().expect("a flush");
    let at = u64::from(number_at(&*store, EXT_OFF)) * 512;
    let mut bytes = [0; 80];
    store.read_at(HostOffset(at + 24), &mut bytes).expect("it is read");
    assert!(bytes[..kept.len()] == kept[..] && bytes[kept.len()..] == [0; 40]);
    let warnings = opened(&store, Access::Read).expect("it opens").warnings;
    assert_eq!(warnings, ["It has a feature 0x5 that is not known here."]);
    // It stays where it is from now on.
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5000), &[1; 5000]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(u64::from(number_at(&*store, EXT_OFF)) * 512, at);
    assert_eq!(opened(&store, Access::Read).expect("it opens").warnings, warnings);
}

#[test]
fn a_necessary_feature_that_is_not_known_makes_the_image_read_only() {
    let store = with(&[feature(6, NECESSARY, b"")]);
    assert!(opened(&store, Access::Read).is_ok());
    let error = opened(&store, Access::ReadWrite).expect_err("it is refused");
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("its feature 0x6 is not known here"), "{error}");
}

#[test]
fn a_cluster_of_the_extension_that_the_table_names_too_is_not_written() {
    for entry in [2, 3] {
        let store = with(&[bitmap(4)]);
        store.write_at(HostOffset(64), &[entry]).expect("memory is written");
        let error = opened(&store, Access::ReadWrite).expect_err("it is refused");
        assert!(matches!(error, Error::NeedsRepair { .. }), "{error:?}");
    }
}
