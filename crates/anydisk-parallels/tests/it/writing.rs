//! What writing does to an image beside the data, and what is refused.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Error, Format, GuestOffset, GuestRange, HostOffset, Limits,
    Location, OpenRequest, Options, Reference, Role, Storage,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::RecordingStorage;

use crate::common::{ByHand, image, number_at, open};

const IN_USE: u64 = 44;
const FLAGS: u64 = 52;
const MARK: u32 = 0x746F_6E59;

fn length(store: &MemoryStorage) -> u64 {
    store.len().expect("memory has a length")
}

#[test]
fn the_mark_is_on_the_medium_before_the_table_changes_and_taken_back_behind_it() {
    let record = RecordingStorage::new(ByHand::NEW.store(&[], 0));
    let disk = Disk::new(image(Arc::new(record.clone()), Access::ReadWrite).expect("it opens"));
    disk.read(GuestOffset(0), &mut [0; 512]).expect("a read");
    let steps = |record: &RecordingStorage| {
        let told = record.take().iter().map(ToString::to_string).collect::<Vec<_>>();
        told.into_iter()
            .filter(|call| call.contains("write") || call == "flush")
            .collect::<Vec<_>>()
    };
    assert!(steps(&record).is_empty(), "opening wrote something");
    disk.write(GuestOffset(0), &[1; 1024]).expect("a write");
    assert_eq!(steps(&record), ["write 0x400 at 0x400"]);
    disk.flush().expect("a flush");
    assert_eq!(
        steps(&record),
        ["write 0x40 at 0x0", "flush", "write 0x100 at 0x40", "flush", "write 0x40 at 0x0"]
    );
    assert_eq!(number_at(&**record.inner(), IN_USE), ByHand::NEW.in_use);
    // In place nothing but data is written.
    disk.write(GuestOffset(512), &[2; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(steps(&record), ["write 0x200 at 0x600", "flush"]);
}

#[test]
fn an_image_is_closed_as_it_was_and_one_that_was_not_as_its_kind_is() {
    let pd22 = u32::from_le_bytes(*b"pd22");
    for (by_hand, found, left) in [
        (ByHand::NEW, 0, 0),
        (ByHand::OLD, pd22, pd22),
        (ByHand::OLD, u32::from_le_bytes(*b"pd09"), u32::from_le_bytes(*b"pd09")),
        (ByHand::NEW, MARK, ByHand::NEW.in_use),
        (ByHand::OLD, MARK, 0),
    ] {
        let store = ByHand { in_use: found, ..by_hand }.store(&[], 0);
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        disk.flush().expect("a flush");
        assert_eq!(number_at(&*store, IN_USE), found, "nothing was written, and nothing changes");
        assert_eq!(disk.top().info().dirty, found == MARK);
        disk.write(GuestOffset(700), &[1]).expect("a write");
        disk.flush().expect("a flush");
        assert_eq!(number_at(&*store, IN_USE), left);
        assert!(!disk.top().info().dirty);
    }
}

#[test]
fn an_image_that_was_written_is_not_called_empty_any_more() {
    let store = ByHand::NEW.store(&[], 0);
    store.write_at(HostOffset(FLAGS), &[0x81]).expect("memory is written");
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[1]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(number_at(&*store, FLAGS), 0x80);
}

#[test]
fn clusters_that_nothing_names_are_used_again_if_they_hold_no_data() {
    // Cluster 1 is named, 2 holds data of nobody, 3 is of zeroes.
    let store = ByHand::NEW.store(&[1], 6);
    store.write_at(HostOffset(3 * 1024), &[0; 1024]).expect("memory is written");
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(1024), &[7; 2048]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!([64, 68, 72].map(|at| number_at(&*store, at)), [1, 3, 4]);
    assert_eq!(number_at(&*store, 2 * 1024), 0x0101_0101, "what nobody named is gone");
}

#[test]
fn what_is_discarded_at_the_end_makes_the_file_shorter_and_elsewhere_a_hole() {
    let store = ByHand::NEW.store(&[], 0);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[1; 4096]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(length(&store), 5 * 1024);
    let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
    disk.discard(range(3 * 1024, 1024)).expect("a discard");
    disk.zero(range(1024, 1024), true).expect("a zeroing");
    disk.flush().expect("a flush");
    assert_eq!(length(&store), 4 * 1024);
    assert_eq!([64, 68, 72, 76].map(|at| number_at(&*store, at)), [1, 0, 3, 0]);
    assert_eq!(number_at(&*store, 2 * 1024), 0);
}

#[test]
fn a_cluster_that_the_file_cuts_reads_on_with_zeroes_and_is_written_whole() {
    for by_hand in [ByHand::OLD, ByHand::NEW] {
        let store = by_hand.store(&[1], 1);
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        let mut bytes = [9; 1024];
        disk.unpadded_but_for_last_unit().read(GuestOffset(0), &mut bytes).expect("a read");
        assert!(bytes[..512] == [1; 512] && bytes[512..] == [0; 512]);
        disk.write(GuestOffset(1000), &[3; 4000]).expect("a write");
        disk.flush().expect("a flush");
        let mut bytes = [9; 1004];
        open(&store, Access::Read)
            .expect("it opens")
            .read(GuestOffset(0), &mut bytes)
            .expect("a read");
        assert!(
            bytes[..512] == [1; 512] && bytes[512..1000] == [0; 488] && bytes[1000..] == [3; 4]
        );
    }
}

#[test]
fn what_must_not_be_written_is_refused_with_the_reason() {
    let refusal = |by_hand: ByHand, entries: &[u32], sectors| {
        let store = by_hand.store(entries, sectors);
        open(&store, Access::Read).expect("it can be read");
        let error = open(&store, Access::ReadWrite).expect_err("it must not be written");
        assert!(matches!(error, Error::NeedsRepair { .. }), "{error:?}");
        error.to_string()
    };
    let shifted = ByHand { data_off: 1, ..ByHand::NEW };
    for (found, expected) in [
        (refusal(shifted, &[], 2), "data_off is wrong"),
        (
            refusal(ByHand::NEW, &[1, 3], 4),
            "the entry of the block table at 0x44 is 0x3, and the file ends before that",
        ),
        (
            refusal(ByHand::NEW, &[2, 0, 2], 4),
            "the entry of the block table at 0x48 is 0x2, as another one",
        ),
        (
            refusal(ByHand::OLD, &[2], 6),
            "the entry of the block table at 0x40 is 0x2, where no cluster begins",
        ),
        (
            refusal(ByHand { data_off: 4, ..ByHand::NEW }, &[1], 4),
            "the entry of the block table at 0x40 is 0x1, where no cluster begins",
        ),
    ] {
        assert_eq!(found, format!("parallels: the image needs repair: {expected}"));
    }
}

#[test]
fn a_place_where_no_cluster_can_be_is_not_read() {
    for entry in [3, u32::MAX] {
        let store = ByHand::NEW.store(&[0, entry], 4);
        let disk = open(&store, Access::Read).expect("it opens");
        disk.read(GuestOffset(0), &mut [0; 1024]).expect("a read");
        let error =
            disk.read(GuestOffset(1024), &mut [0; 1]).expect_err("it is refused").to_string();
        let expected = format!(
            "parallels: entry of the block table at 0x44 is {entry:#x}, expected 0, or a place of \
             the file where clusters are"
        );
        assert!(error.ends_with(&expected), "{error}");
    }
}

fn create(given: &[(&str, &str)], size: u64, over: Option<&str>) -> Result<Disk, Error> {
    let mut options = Options::of(&PARALLELS);
    given.iter().try_for_each(|(name, value)| options.set(name, value))?;
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let store = Arc::new(MemoryStorage::default());
    let backing = over.map(|name| Reference::new(Role::Backing, name));
    let mut request = CreateRequest::new(store, &here, size, &options, &limits);
    request.backing = backing.as_ref();
    Ok(Disk::new(PARALLELS.create(request)?))
}

#[test]
fn what_cannot_be_made_is_refused() {
    let refusal =
        |given: &[_], size, over| create(given, size, over).expect_err("refused").to_string();
    for size in ["0", "65M", "32256", "1025"] {
        let error = refusal(&[("cluster_size", size)], 1 << 20, None);
        assert!(
            error.contains(size) && error.contains("a power of two from 512 to 64M"),
            "{error}"
        );
    }
    assert_eq!(
        refusal(&[], 1 << 50, None),
        "parallels: number of clusters is 1073741824, more than the limit of 536870911"
    );
    assert_eq!(
        refusal(&[], 1 << 20, Some("below")),
        "parallels: an image over another one is not supported"
    );
}

#[test]
fn clusters_larger_than_the_limit_of_a_unit_are_only_read() {
    let by_hand = ByHand { tracks: 1 << 14, sectors: 1 << 15, data_off: 1 << 14, ..ByHand::NEW };
    let store = by_hand.store(&[1], 1 << 14);
    let (here, limits) = (Location::Other("image".to_owned()), Limits::strict());
    let request = OpenRequest::new(store, &here, &limits);
    assert!(PARALLELS.open(request.clone()).is_ok());
    let error = PARALLELS.open(OpenRequest { access: Access::ReadWrite, ..request });
    assert_eq!(
        error.expect_err("it is refused").to_string(),
        "parallels: size of a cluster to be written, in bytes is 8388608, more than the limit of \
         4194304"
    );
}
