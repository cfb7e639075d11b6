//! What a check finds, and what a repair makes of it.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Finding, Format, GuestOffset, HostOffset, Limits,
    Location, OpenRequest, Repair, Severity, Storage,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::repair::{Trials, Word, shows_nothing_elsewhere};
use anydisk_testkit::{Random, kill_first_write};

use crate::common::{ByHand, damage, image, number_at, open};

const MARK: u32 = 0x746F_6E59;

fn check(store: &Arc<MemoryStorage>, repair: Repair) -> (CheckReport, Vec<Finding>) {
    checked(store.clone(), repair)
}

fn checked(store: Arc<dyn Storage>, repair: Repair) -> (CheckReport, Vec<Finding>) {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
    let open = OpenRequest { access, ..OpenRequest::new(store, &here, &limits) };
    let mut found = Vec::new();
    let request = CheckRequest::new(open).repairing(repair);
    let report = PARALLELS.check(&request, &mut |finding| found.push(finding));
    (report.expect("it can be checked"), found)
}

/// Kinds, and whether each was repaired.
fn kinds(found: &[Finding]) -> Vec<(&'static str, bool)> {
    found.iter().map(|finding| (finding.kind, finding.repaired)).collect()
}

/// A repair leaves an image that is good, and can be written to.
fn is_mended(store: &Arc<MemoryStorage>) {
    let (report, found) = check(store, Repair::Nothing);
    assert!(report.is_clean(), "{found:?}");
    damage(&**store).expect("undamaged");
    let disk = open(store, Access::ReadWrite).expect("it can be written");
    disk.write(GuestOffset(disk.size() - 1), &[9]).expect("a write");
    disk.flush().expect("a flush");
    damage(&**store).expect("undamaged");
}

fn first_bytes(store: &Arc<MemoryStorage>, clusters: &[u64], cluster: u64) -> Vec<u8> {
    let disk = open(store, Access::Read).expect("it opens");
    let byte = |number: &u64| {
        let mut byte = [0];
        disk.read(GuestOffset(number * cluster), &mut byte).expect("a read");
        byte[0]
    };
    clusters.iter().map(byte).collect()
}

#[test]
fn a_good_image_is_counted_as_qemu_counts_it() {
    let (report, found) = check(&ByHand::NEW.store(&[1, 2, 0, 3], 6), Repair::Nothing);
    assert!(found.is_empty() && report.is_clean(), "{found:?}");
    let counts = (report.total_clusters, report.allocated_clusters, report.fragmented_clusters);
    assert_eq!(counts, (Some(64), Some(3), Some(0)));
    assert_eq!(report.image_end, Some(HostOffset(4 * 1024)));
    let (report, _) = check(&ByHand::OLD.store(&[4, 1, 7], 9), Repair::Nothing);
    assert_eq!(report.fragmented_clusters, Some(2));
}

#[test]
fn a_cluster_that_two_name_gets_a_copy() {
    let store = ByHand::NEW.store(&[1, 1, 2], 4);
    let (report, found) = check(&store, Repair::Nothing);
    assert_eq!(kinds(&found), [("cluster-used-twice", false)]);
    assert_eq!(report.corruptions, 1);
    assert_eq!(found[0].text, "cluster 1 of the disk is at 0x1: something else is there");
    let (report, found) = check(&store, Repair::All);
    assert_eq!((kinds(&found), report.corruptions_fixed), (vec![("cluster-used-twice", true)], 1));
    assert_eq!([64, 68, 72].map(|at| number_at(&*store, at)), [1, 3, 2]);
    assert_eq!(first_bytes(&store, &[0, 1, 2, 3], 1024), [1, 1, 1, 0]);
    is_mended(&store);
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    let store = ByHand::NEW.store(&[1, 2, 0, 3, 4, 0, 5], 10);
    for cluster in 1..6_u8 {
        let at = HostOffset(u64::from(cluster) * 1024);
        store.write_at(at, &[cluster; 1024]).expect("memory is written");
    }
    let sound = store.to_vec();
    let trials = Trials {
        format: &PARALLELS,
        sound: &sound,
        unit: 512,
        areas: &[64..96, 64..96, 64..96, 28..52],
        word: Word::Little32,
        nasty: &[0, 1, 2, 3, 5, 6, 7, 64, 128, 1 << 20, u64::from(u32::MAX)],
        count: 300,
    };
    trials.run(&mut Random::new(5));
}

/// Copies go to where the file ends, which is where a damaged entry leads.
#[test]
fn a_repair_shows_no_cluster_in_another_whenever_power_fails() {
    for (entries, sectors, left) in [
        (&[1, 1, 2, 3][..], 4, 0),
        (&[3, 1, 1, 2], 4, 0),
        (&[1, 4, 1, 5], 6, 3),
        (&[1, 1, 3], 4, 2),
    ] {
        let store = ByHand::NEW.store(entries, sectors);
        let found = shows_nothing_elsewhere(&PARALLELS, &store.to_vec(), 1024);
        assert_eq!(found, left, "{entries:?}");
    }
}

#[test]
fn a_cluster_where_none_begins_gets_a_copy() {
    let store = ByHand::OLD.store(&[1, 5], 6);
    let (_, found) = check(&store, Repair::All);
    assert_eq!(kinds(&found), [("cluster-misplaced", true), ("cluster-unnamed", false)]);
    assert_eq!(first_bytes(&store, &[0, 1], 1536), [1, 1]);
    assert_eq!([64, 68].map(|at| number_at(&*store, at)), [1, 7]);
    damage(&*store).expect("undamaged");
}

#[test]
fn what_leads_nowhere_is_cleared_only_if_nothing_is_left_over() {
    for (entries, sectors, is_cleared) in
        [(&[1, 9][..], 2, true), (&[1, 9], 4, false), (&[1, u32::MAX], 2, true)]
    {
        let store = ByHand::NEW.store(entries, sectors);
        let before = store.to_vec();
        let (report, found) = check(&store, Repair::All);
        assert_eq!(kinds(&found)[0], ("cluster-behind-end", is_cleared));
        assert_eq!(report.corruptions, u64::from(!is_cleared));
        if is_cleared {
            assert_eq!(number_at(&*store, 68), 0);
            is_mended(&store);
        } else {
            assert!(store.to_vec() == before, "something was changed");
        }
    }
    let store = ByHand::OLD.store(&[0, 0, 1], 3);
    store.write_at(HostOffset(48), &[2]).expect("memory is written");
    let (_, found) = check(&store, Repair::Nothing);
    assert_eq!(kinds(&found)[0], ("cluster-in-metadata", false));
}

#[test]
fn the_end_is_cut_off_where_nothing_is_damaged_and_nothing_lies_there() {
    let with_end = |byte: u8, entries: &[u32]| {
        let store = ByHand::NEW.store(entries, 7);
        store.write_at(HostOffset(2 * 1024), &[byte; 2560]).expect("memory is written");
        store
    };
    let length = |store: &MemoryStorage| store.len().expect("memory has a length");
    let store = with_end(0, &[1]);
    let (report, found) = check(&store, Repair::Nothing);
    assert_eq!((kinds(&found), report.leaks), (vec![("cluster-unnamed", false)], 3));
    let (report, found) = check(&store, Repair::Leaks);
    assert_eq!((kinds(&found), report.leaks_fixed), (vec![("cluster-unnamed", true)], 3));
    assert_eq!(length(&store), 2 * 1024);
    is_mended(&store);
    let store = with_end(7, &[1]);
    let (report, found) = check(&store, Repair::All);
    assert_eq!((kinds(&found), report.leaks), (vec![("cluster-unnamed", false)], 3));
    assert!(found[0].text.ends_with("there is data: it is kept"), "{}", found[0].text);
    // In the run that mends something nothing is given back.
    let store = with_end(0, &[1, 1]);
    let (report, _) = check(&store, Repair::All);
    assert_eq!(report.corruptions_fixed, 1);
    assert!(length(&store) > 4 * 1024);
}

#[test]
fn data_that_nothing_names_between_others_is_told() {
    let store = ByHand::NEW.store(&[3, 1], 6);
    let (report, found) = check(&store, Repair::All);
    assert_eq!((kinds(&found), report.leaks), (vec![("cluster-unnamed", false)], 1));
    store.write_at(HostOffset(2 * 1024), &[0; 1024]).expect("memory is written");
    let (_, found) = check(&store, Repair::Nothing);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_table_of_zeroes_before_much_data_is_told_as_lost() {
    let by_hand = ByHand { tracks: 2048, sectors: 1 << 16, data_off: 2048, ..ByHand::NEW };
    let store = by_hand.store(&[], 2048 * 20);
    let before = store.to_vec();
    let (report, found) = check(&store, Repair::All);
    assert_eq!((kinds(&found), report.corruptions), (vec![("table-lost", false)], 1));
    assert!(store.to_vec() == before, "something was changed");
}

#[test]
fn the_mark_is_taken_back_if_all_else_is_good() {
    for (entries, is_repaired) in [(&[1, 2][..], true), (&[1, 9], false)] {
        let store = ByHand { in_use: MARK, ..ByHand::NEW }.store(entries, 4);
        let (report, found) = check(&store, Repair::Nothing);
        assert_eq!(kinds(&found).last(), Some(&("not-closed", false)));
        assert!(report.corruptions > 0);
        let (_, found) = check(&store, Repair::All);
        assert_eq!(kinds(&found).last(), Some(&("not-closed", is_repaired)));
        let left = if is_repaired { ByHand::NEW.in_use } else { MARK };
        assert_eq!(number_at(&*store, 44), left);
    }
}

#[test]
fn a_wrong_data_off_is_set_to_where_the_clusters_begin() {
    for (by_hand, entries, data_off) in [
        (ByHand { data_off: 3, ..ByHand::NEW }, &[2_u32, 3][..], 2),
        (ByHand { data_off: 900, ..ByHand::OLD }, &[906, 903], 900),
        (ByHand { data_off: 3, ..ByHand::NEW }, &[], 2),
    ] {
        let store = by_hand.store(entries, 12);
        store.set_len(store.len().expect("a length") - 512).expect("memory can be cut");
        let wrong = if by_hand.data_off == 900 { 5000 } else { by_hand.data_off };
        store.write_at(HostOffset(48), &wrong.to_le_bytes()).expect("memory is written");
        assert!(open(&store, Access::ReadWrite).is_err());
        let (_, found) = check(&store, Repair::All);
        assert_eq!(kinds(&found)[0], ("data-off-wrong", true));
        let found = number_at(&*store, 48);
        assert_eq!(found % by_hand.tracks, data_off % by_hand.tracks);
        assert!(open(&store, Access::ReadWrite).is_ok());
    }
}

#[test]
fn a_damaged_extension_is_given_up() {
    let store = ByHand::NEW.store(&[1], 4);
    store.write_at(HostOffset(56), &[4]).expect("memory is written");
    assert!(open(&store, Access::Read).is_err());
    let (report, found) = check(&store, Repair::Nothing);
    assert_eq!(kinds(&found), [("extension-damaged", false), ("cluster-unnamed", false)]);
    assert_eq!((found[0].severity, report.corruptions), (Severity::Corruption, 1));
    let (_, found) = check(&store, Repair::All);
    assert_eq!(kinds(&found)[0], ("extension-damaged", true));
    assert!(open(&store, Access::ReadWrite).is_ok());
}

#[test]
fn what_is_only_odd_is_noted() {
    let store = ByHand { tracks: 2, sectors: 3, data_off: 2, ..ByHand::NEW }.store(&[1, 2], 3);
    store.write_at(HostOffset(36), &[2]).expect("memory is written");
    let (report, found) = check(&store, Repair::All);
    assert_eq!(kinds(&found), [("cluster-cut", false), ("entry-behind-end", false)]);
    assert!(report.is_clean());
}

/// Power, or the process, may go at any moment of a first long write that nobody flushes: what it leaves
/// was told as a lost table, which no repair could end.
#[test]
fn a_first_long_write_that_is_killed_leaves_no_lost_table() {
    let open = |store| Disk::new(image(store, Access::ReadWrite).expect("it opens"));
    for tracks in [2048, 16384] {
        let first = ByHand { tracks, data_off: tracks, sectors: 128 << 11, ..ByHand::NEW };
        let make = || -> Arc<dyn Storage> { first.store(&[], 0) };
        kill_first_write(make, open, 64 << 20, |store, when| {
            // That it was not closed is a corruption, as with qemu-img.
            let (_, found) = checked(Arc::clone(&store), Repair::Nothing);
            let is_left =
                |found: &Finding| found.severity == Severity::Leak || found.kind == "not-closed";
            assert!(found.iter().all(is_left), "{when}");
            let disk = open(Arc::clone(&store));
            disk.write(GuestOffset::ZERO, &[1; 512]).expect("a write");
            disk.flush().expect("a flush");
            assert_eq!(checked(store, Repair::Nothing).0.corruptions, 0, "{when}");
        });
    }
}
