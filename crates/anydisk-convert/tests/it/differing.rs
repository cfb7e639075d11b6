//! Where two disks differ.

use std::ops::ControlFlow;
use std::sync::Arc;

use anydisk_convert::{Error, Unwatched, differences};
use anydisk_core::{Disk, GuestRange, HostOffset, Storage};
use anydisk_raw::RawImage;
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions, Window};
use anydisk_testkit::Random;
use anydisk_testkit::double::{Call, Kind, Ruling, Tap, Tapped};

fn raw(store: Arc<dyn Storage>) -> Disk {
    Disk::new(Arc::new(RawImage::open(store, false).expect("raw opens")))
}

fn disk(bytes: &[u8]) -> Disk {
    raw(Arc::new(MemoryStorage::new(bytes.to_vec())))
}

/// Start and length of each range that is told, and their sum.
fn told(first: &Disk, second: &Disk) -> (Vec<(u64, u64)>, u64) {
    let mut list = Vec::new();
    let mut found = |range: GuestRange| list.push((range.start().get(), range.len()));
    let sum = differences(first, second, &mut found, &Unwatched).expect("memory");
    (list, sum)
}

#[test]
fn ranges_are_those_sectors_that_differ_joined() {
    let mut random = Random::new(5);
    for round in 0..20_u64 {
        let len = 3_000_000 + usize::try_from(round).expect("small") * 100;
        let one = vec![7; len];
        let mut other = one.clone();
        for _ in 0..random.below(30) {
            let at = random.index(len);
            other[at] ^= 1;
        }
        let mut expected: Vec<(u64, u64)> = Vec::new();
        for (number, (a, b)) in (0..).zip(one.chunks(512).zip(other.chunks(512))) {
            let (start, length) = (number * 512, a.len() as u64);
            match expected.last_mut().filter(|(at, len)| at + len == start) {
                _ if a == b => {}
                Some((_, len)) => *len += length,
                None => expected.push((start, length)),
            }
        }
        let sum = expected.iter().map(|(_, len)| len).sum();
        assert_eq!(told(&disk(&one), &disk(&other)), (expected, sum));
    }
}

#[test]
fn the_shorter_disk_is_filled_up_with_zeroes() {
    let (short, mut long) = (vec![1; 1000], vec![0; 5000]);
    long[..1000].fill(1);
    assert_eq!(told(&disk(&short), &disk(&long)), (vec![], 0));
    long[4999] = 1;
    let expected = (vec![(4608, 392)], 392);
    assert_eq!(told(&disk(&short), &disk(&long)), expected);
    assert_eq!(told(&disk(&long), &disk(&short)), expected);
}

/// A medium that cannot be read.
#[derive(Debug)]
struct Unreadable;

impl Tap for Unreadable {
    fn rule(&self, call: &Call) -> Ruling {
        match call.kind {
            Kind::Read => Ruling::Fail { after: 0, errno: 5 },
            _ => Ruling::Pass,
        }
    }
}

#[test]
fn what_both_have_at_the_same_place_of_the_same_file_is_not_read() {
    let inner = Arc::new(MemoryStorage::new(vec![1; 1 << 20]));
    let store: Arc<dyn Storage> = Arc::new(Tapped::with_tap(inner, Unreadable));
    let (one, other) = (raw(Arc::clone(&store)), raw(store));
    assert_eq!(told(&one, &other), (vec![], 0));
    let result = differences(&one, &disk(&[1]), &mut |_| {}, &Unwatched);
    assert!(matches!(result, Err(Error::Read { at: 0, .. })));
}

#[test]
fn whoever_watches_can_stop_it() {
    let one = disk(&vec![1; 8 << 20]);
    let stop = |_: u64, _: u64| ControlFlow::Break(());
    let result = differences(&one, &disk(&[2]), &mut |_| {}, &stop);
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn two_parts_of_one_file_are_not_the_same_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, [[1; 4096], [2; 4096], [1; 4096]].concat()).expect("written");
    let file = Arc::new(FileStorage::open(&path, &OpenOptions::new()).expect("it opens"));
    let part =
        |start| raw(Arc::new(Window::new(file.clone(), HostOffset(start), 4096).expect("inside")));
    assert_eq!(told(&part(0), &part(4096)), (vec![(0, 4096)], 4096));
    assert_eq!(told(&part(0), &part(8192)), (vec![], 0));
}
