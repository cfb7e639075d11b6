//! What changed between two volumes, as other programs tell it.

use std::fs;

use crate::common::{delta, ranges};
use anydisk_core::{GuestOffset, GuestRange, Limits, Members};
use anydisk_lvm2::VolumeGroups;
use anydisk_testkit::volumes::Fixture;

const CHUNK: u64 = 64 << 10;

#[test]
fn what_differs_between_thin_volumes_is_what_thin_delta_says() {
    let Some(fixture) = Fixture::open("thin") else { return };
    let groups = VolumeGroups::open(&fixture.disks(), &Limits::default()).unwrap();
    // Names have dashes as well, so they are listed here.
    for (then, now) in [
        ("t1", "t1s1"),
        ("t1s1", "t1s1s1"),
        ("t1s1", "t1s2"),
        ("t1s1s1", "t1s2"),
        ("t1s2", "t1"),
        ("fs-snap", "fs"),
        ("blank", "fs"),
    ] {
        let xml = fs::read_to_string(fixture.packed.join(format!("delta-{then}-{now}.xml")));
        let changes = groups.changes(&format!("vgthin/{then}"), &format!("vgthin/{now}")).unwrap();
        let size = changes.size();
        // Behind the end of the smaller one everything counts as changed.
        let smaller = if then == "blank" { 8 << 20 } else { size };
        let expected = delta(&xml.unwrap()).into_iter().map(|(at, len)| (at * CHUNK, len * CHUNK));
        let mut expected: Vec<_> = expected.filter(|(at, _)| *at < smaller).collect();
        if smaller < size {
            expected.push((smaller, size - smaller));
        }
        assert_eq!(ranges(changes), expected, "{then} to {now}");
    }
}

#[test]
fn asking_from_the_middle_and_going_back_gives_the_same_ranges() {
    let Some(fixture) = Fixture::open("thin") else { return };
    let groups = VolumeGroups::open(&fixture.disks(), &Limits::default()).unwrap();
    let mut changes = groups.changes("vgthin/t1", "vgthin/t1s1").unwrap();
    let mut next = |at| changes.next(GuestOffset(at)).unwrap();
    let range = |at, len| GuestRange::new(GuestOffset(at), len);
    // thin_delta: chunk 1, 50 to 79, 234 to 273, 468 to 476, 546, 937 to 942.
    assert_eq!(next(0), range(CHUNK, CHUNK));
    assert_eq!(next(400 * CHUNK), range(468 * CHUNK, 9 * CHUNK));
    assert_eq!(next(60 * CHUNK + 5), range(60 * CHUNK + 5, 20 * CHUNK - 5));
    assert_eq!(next(0), range(CHUNK, CHUNK));
    assert_eq!(next(943 * CHUNK), None);
    assert_eq!(next(u64::MAX), None);
}

#[test]
fn what_a_classic_snapshot_holds_is_what_was_listed_when_it_was_made() {
    let Some(fixture) = Fixture::open("snap") else { return };
    let groups = VolumeGroups::open(&fixture.disks(), &Limits::default()).unwrap();
    for (origin, snapshot) in
        [("base", "snapa"), ("base", "snapb"), ("fs", "fs-snap"), ("fs", "nothing")]
    {
        let path = fixture.packed.join(format!("changed-vgsnap-{snapshot}.txt"));
        let text = fs::read_to_string(path).unwrap();
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let expected: Vec<_> = lines
            .map(|line| line.split_once(' ').expect("two numbers"))
            .map(|(at, len)| (number(at), number(len)))
            .collect();
        let (origin, snapshot) = (format!("vgsnap/{origin}"), format!("vgsnap/{snapshot}"));
        for (then, now) in [(&origin, &snapshot), (&snapshot, &origin)] {
            assert_eq!(ranges(groups.changes(then, now).unwrap()), expected, "{then} to {now}");
        }
    }
}

#[test]
fn two_snapshots_of_one_origin_differ_at_most_where_one_of_them_holds_something() {
    let Some(fixture) = Fixture::open("snap") else { return };
    let disks = fixture.disks();
    let groups = VolumeGroups::open(&disks, &Limits::default()).unwrap();
    let read = |name: &str| {
        let volume = crate::common::open_volume(&disks, name).unwrap();
        crate::common::bytes(&*volume)
    };
    let (then, mut now) = (read("vgsnap/snapa"), read("vgsnap/snapb"));
    assert_ne!(then, now);
    for (at, len) in ranges(groups.changes("vgsnap/snapa", "vgsnap/snapb").unwrap()) {
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        now[range.clone()].copy_from_slice(&then[range]);
    }
    assert!(then == now, "a difference was not told");
}

#[test]
fn volumes_that_share_nothing_are_not_compared() {
    let Some(fixture) = Fixture::open("snap") else { return };
    let groups = VolumeGroups::open(&fixture.disks(), &Limits::default()).unwrap();
    let error = groups.changes("vgsnap/base", "vgsnap/fs").unwrap_err().to_string();
    assert!(error.contains("which share nothing"), "{error}");
    assert_eq!(ranges(groups.changes("vgsnap/snapa", "vgsnap/snapa").unwrap()), []);
}
