//! Groups made by hand: what the fixtures of a kernel do not hold, and what nobody should write.

use std::sync::Arc;

use anydisk_core::{GuestOffset, HostOffset, Limits, Members, Result, Storage, StorageExt};
use anydisk_lvm2::VolumeGroups;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::lvm::{GROUP, dashed, device, linear, reseal, text, volume};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const EXTENT: usize = 64 << 10;

fn store(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new(bytes))
}

/// Extents that are each filled with their own number, from `first` on.
fn extents(first: u8, count: u8) -> Vec<u8> {
    (first..first + count).flat_map(|number| [number; EXTENT]).collect()
}

/// A group of one device with ten extents.
fn group(volumes: &str) -> VolumeGroups {
    let disk = store(device(A, &text(&[A], 1, volumes), &extents(0, 10)));
    VolumeGroups::open(&[disk], &Limits::default()).expect("the group opens")
}

fn open(volumes: &str, name: &str) -> Result<Arc<dyn Storage>> {
    Members::open(&group(volumes), &format!("vg/{name}"))
}

fn refusal(volumes: &str, name: &str) -> String {
    open(volumes, name).expect_err("it is refused").to_string()
}

fn byte_at(volume: &dyn Storage, at: usize) -> u8 {
    let mut byte = [0];
    volume.read_exact_at(HostOffset(at as u64), &mut byte).expect("it reads");
    byte[0]
}

#[test]
fn a_volume_on_a_volume_reads_through_both() {
    let volumes = linear("lower", 4, "pv0", 3) + &linear("upper", 2, "lower", 1);
    let upper = open(&volumes, "upper").unwrap();
    assert_eq!(upper.len().unwrap(), 2 * EXTENT as u64);
    assert_eq!([0, EXTENT].map(|at| byte_at(&*upper, at)), [4, 5]);
}

#[test]
fn a_volume_that_lies_on_itself_is_refused() {
    let volumes = linear("a", 1, "b", 0) + &linear("b", 1, "a", 0);
    let refusal = refusal(&volumes, "a");
    assert!(refusal.contains("expected not to lie on itself"), "{refusal}");
}

#[test]
fn many_ways_to_the_same_volume_cost_no_more_than_one() {
    // Thirty floors, each twice on the one below: 2^30 ways down.
    let mut volumes = linear("v0", 2, "pv0", 0);
    for floor in 1..30 {
        let below = floor - 1;
        let items = format!(
            "type = \"striped\" stripe_count = 2 stripe_size = 8 \
             stripes = [\"v{below}\", 0, \"v{below}\", 0]"
        );
        volumes += &volume(&format!("v{floor}"), 2, &items);
    }
    assert_eq!(byte_at(&*open(&volumes, "v29").unwrap(), 0), 0);
    // And if the lowest cannot be opened, that is found out once.
    let broken = volumes.replace("\"pv0\", 0", "\"pv0\", 5000");
    assert!(refusal(&broken, "v29").contains("pv0 at extent 5000"));
}

#[test]
fn areas_outside_their_device_are_refused_whatever_the_numbers() {
    for extent in [9_u64, 1023, 1024, 1 << 47, u64::MAX >> 1] {
        let refusal = refusal(&linear("v", 2, "pv0", extent), "v");
        assert!(refusal.contains("expected inside"), "{extent}: {refusal}");
    }
    let refusal = refusal(&linear("v", 1 << 60, "pv0", 0), "v");
    assert!(refusal.contains("expected a number of bytes below 2^63"), "{refusal}");
}

#[test]
fn a_device_that_is_not_there_is_named_and_the_rest_reads() {
    let volumes = linear("here", 1, "pv0", 2) + &linear("away", 1, "pv1", 0);
    let disk = store(device(A, &text(&[A, B], 1, &volumes), &extents(0, 10)));
    let groups = VolumeGroups::open(&[disk], &Limits::default()).unwrap();
    let missing: Vec<_> = groups.missing().collect();
    assert_eq!(missing, ["vg/pv1 bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"]);
    assert_eq!(byte_at(&*Members::open(&groups, "vg/here").unwrap(), 0), 2);
    let error = Members::open(&groups, "vg/away").unwrap_err().to_string();
    assert!(error.contains("pv1 bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"), "{error}");
}

/// A mirror of two extents with a leg on each of two devices and its log on the second, and what else
/// lies on them.
fn mirrored() -> String {
    let legs = "mirrors = [\"pv0\", 2, \"pv1\", 2] mirror_log = \"log\" region_size = 128";
    volume("mirror", 2, &format!("type = \"mirror\" mirror_count = 2 {legs}"))
        + &linear("log", 1, "pv1", 6)
        + &linear("here", 1, "pv0", 5)
        + &linear("away", 1, "pv1", 5)
        + &linear("above", 1, "away", 0)
}

/// The extents of the second device of [`mirrored`]: all of the mirror is in sync.
fn with_log() -> Vec<u8> {
    let mut extents = extents(100, 10);
    let log = &mut extents[6 * EXTENT..7 * EXTENT];
    log.fill(0);
    log[..4].copy_from_slice(b"rRiM");
    (log[4], log[8], log[1024]) = (2, 2, 3);
    extents
}

fn notes_of(groups: &VolumeGroups) -> Vec<(String, String)> {
    let noted = groups.members().iter().filter(|member| member.path.starts_with("vg/"));
    noted.filter_map(|member| Some((member.path.clone(), member.note.clone()?))).collect()
}

#[test]
fn volumes_with_a_part_on_a_device_that_is_away_are_told_as_partial() {
    let disk = store(device(A, &text(&[A, B], 1, &mirrored()), &extents(0, 10)));
    let groups = VolumeGroups::open(&[disk], &Limits::default()).unwrap();
    let partial =
        ["vg/mirror", "vg/log", "vg/away", "vg/above"].map(|path| (path.into(), "partial".into()));
    assert_eq!(notes_of(&groups), partial);
    let group = groups.members()[0].note.clone().unwrap();
    assert_eq!(group, "1 of 2 physical volumes missing or ambiguous");
    assert_eq!(byte_at(&*Members::open(&groups, "vg/mirror").unwrap(), 0), 2);
    assert_eq!(byte_at(&*Members::open(&groups, "vg/here").unwrap(), 0), 5);
}

#[test]
fn a_leg_on_a_device_that_the_group_went_on_without_is_not_read() {
    // LVM writes it as a flag; it wrote it as a status once.
    for list in ["flags", "status"] {
        let whole = text(&[A, B], 1, &mirrored());
        let marked = format!("pv0 {{ {list} = [\"MISSING\"] ");
        let text = whole.replacen("pv0 { ", &marked, 1);
        let disks = [device(A, &text, &extents(0, 10)), device(B, &text, &with_log())];
        let groups = VolumeGroups::open(&disks.map(store), &Limits::default()).unwrap();
        let mirror = Members::open(&groups, "vg/mirror").unwrap();
        assert_eq!(byte_at(&*mirror, 0), 102, "{list}");
        // There is no other copy of this one.
        assert_eq!(byte_at(&*Members::open(&groups, "vg/here").unwrap(), 0), 5);
        let note = groups.members()[1].note.clone().unwrap();
        assert!(note.ends_with("the group went on without it"), "{note}");
    }
}

/// A mirror without a log over `legs` extents 2 and 3 of `pv0` and of `pv1`, opened with the devices
/// of these numbers. The first byte of each extent, or the refusal.
fn without_log(items: &str, disks: &[usize]) -> Result<[u8; 2], String> {
    let legs = "mirrors = [\"pv0\", 2, \"pv1\", 2]";
    let volumes = volume("m", 2, &format!("type = \"mirror\" mirror_count = 2 {items} {legs}"));
    let text = text(&[A, B], 1, &volumes);
    let all = [device(A, &text, &extents(0, 10)), device(B, &text, &extents(100, 10))].map(store);
    let disks: Vec<_> = disks.iter().map(|index| Arc::clone(&all[*index])).collect();
    let groups = VolumeGroups::open(&disks, &Limits::default()).expect("the group opens");
    let mirror = Members::open(&groups, "vg/m").map_err(|error| error.to_string())?;
    let mut byte = [0];
    match mirror.read_exact_at(HostOffset::ZERO, &mut byte) {
        Ok(()) => Ok([0, EXTENT].map(|at| byte_at(&*mirror, at))),
        Err(error) => Err(error.to_string()),
    }
}

// With the source of a move away the destination was read, though nothing had been copied to it.
#[test]
fn a_move_under_way_is_read_from_its_source_and_refused_without_it() {
    for items in ["extents_moved = 0", "extents_moved = 1"] {
        assert_eq!(without_log(items, &[0, 1]), Ok([2, 3]));
        let error = without_log(items, &[1]).unwrap_err();
        assert!(error.contains("not known to be in sync"), "{error}");
    }
}

#[test]
fn a_move_of_which_all_was_copied_is_read_from_its_destination_as_lvm_does() {
    assert_eq!(without_log("extents_moved = 2", &[0, 1]), Ok([102, 103]));
    assert_eq!(without_log("extents_moved = 2", &[1]), Ok([102, 103]));
    assert!(without_log("extents_moved = 2", &[0]).is_err());
}

#[test]
fn a_mirror_that_kept_its_log_in_memory_is_not_read_without_its_first_leg() {
    assert_eq!(without_log("", &[0]), Ok([2, 3]));
    let error = without_log("", &[1]).unwrap_err();
    assert!(error.contains("not known to be in sync"), "{error}");
}

#[test]
fn identities_that_lvm_would_not_write_are_refused_with_the_copy_of_the_text() {
    let whole = text(&[A, B], 1, "");
    for (id, other) in [(dashed(A), "vg".to_owned()), (dashed(B), dashed(A))] {
        let disk = store(device(A, &whole.replacen(&id, &other, 1), &[]));
        let groups = VolumeGroups::open(&[disk], &Limits::default()).expect("opens");
        let [member] = groups.members() else { panic!("{:?}", groups.members()) };
        assert!(member.note.as_deref().unwrap().contains("lvm2: id"), "{member:?}");
    }
}

// A group that was named as one of its devices was its own child, and a list as a tree never ended.
#[test]
fn no_member_has_the_path_of_another_whatever_groups_and_devices_are_called() {
    let named = |name: &str| text(&[A], 1, "").replacen("vg {", &format!("{name} {{"), 1);
    let twin =
        |id: &str| named("vg").replacen(GROUP, &dashed(id), 1).replacen(&dashed(A), &dashed(B), 1);
    let other = "cccccccccccccccccccccccccccccccc";
    for (first, second, paths) in [
        (named(&dashed(A)), twin(other), [GROUP.to_owned(), "vg".to_owned()]),
        (
            named("vg").replacen(GROUP, &dashed(A), 1),
            twin(other),
            ["group 1".to_owned(), dashed(other)],
        ),
        (named("vg"), twin(other), [GROUP.to_owned(), dashed(other)]),
    ] {
        let disks = [device(A, &first, &[]), device(B, &second, &[])].map(store);
        let groups = VolumeGroups::open(&disks, &Limits::default()).expect("opens");
        let found = groups.members().iter().filter(|one| one.parent.is_none());
        let found: Vec<_> =
            found.map(|member| (member.path.clone(), member.note.clone())).collect();
        for ((path, note), expected) in found.iter().zip(paths) {
            assert_eq!(*path, expected);
            let name = if path == "vg" { None } else { Some("named ") };
            assert_eq!(note.as_deref().and_then(|note| note.get(..6)), name);
        }
    }
}

#[test]
fn nothing_that_a_terminal_acts_upon_reaches_a_note() {
    let volumes = "v { status = [] tags = [\"a\u{1b}[2Jb\nc\"] segment1 { start_extent = 0 \
                   extent_count = 1 type = \"zero\" } }";
    let groups = group(volumes);
    let note = groups.members()[2].note.as_deref().unwrap();
    assert_eq!(note, "hidden; tags: a\\u{1b}[2Jb\\nc");
}

#[test]
fn the_highest_sequence_number_of_all_copies_wins() {
    let ids = [A, B];
    let old = device(A, &text(&ids, 7, &linear("v", 1, "pv0", 1)), &extents(0, 10));
    let new = device(B, &text(&ids, 8, &linear("v", 1, "pv1", 2)), &extents(100, 10));
    for disks in [[old.clone(), new.clone()], [new, old]] {
        let groups = VolumeGroups::open(&disks.map(store), &Limits::default()).unwrap();
        assert_eq!(byte_at(&*Members::open(&groups, "vg/v").unwrap(), 0), 102);
    }
}

#[test]
fn of_two_disks_with_the_same_identity_none_is_picked() {
    let disk = device(A, &text(&[A], 1, &linear("v", 1, "pv0", 0)), &extents(0, 10));
    let groups = VolumeGroups::open(&[store(disk.clone()), store(disk)], &Limits::default());
    let error = Members::open(&groups.unwrap(), "vg/v").unwrap_err().to_string();
    assert!(error.contains("two of the disks given carry its identity"), "{error}");
}

#[test]
fn of_two_disks_with_the_same_identity_the_newest_text_counts() {
    let whole = |seqno: u64, extent: u64| text(&[A, B], seqno, &linear("v", 1, "pv1", extent));
    let (old, new) = (whole(5, 2), whole(9, 3));
    let clone = device(A, &old, &extents(0, 10));
    let current = device(A, &new, &extents(0, 10));
    let other = device(B, &old, &extents(100, 10));
    for disks in [[&clone, &current, &other], [&current, &other, &clone]] {
        let disks = disks.map(|disk| store(disk.clone()));
        let groups = VolumeGroups::open(&disks, &Limits::default()).unwrap();
        assert_eq!(byte_at(&*Members::open(&groups, "vg/v").unwrap(), 0), 103);
    }
}

#[test]
fn what_is_not_read_is_refused_by_its_name_and_the_rest_reads() {
    let volumes = volume("pool", 1, "type = \"vdo-pool\"")
        + &volume("new", 1, "type = \"striped+FUTURE\" stripe_count = 1 stripes = [\"pv0\", 0]")
        + &volume("bad", 1, "type = \"striped\" stripe_count = 0 stripes = []")
        + &linear("good", 1, "pv0", 3);
    assert!(refusal(&volumes, "pool").contains("segment type vdo-pool is not supported"));
    assert!(refusal(&volumes, "new").contains("segment type striped with FUTURE"));
    assert!(refusal(&volumes, "bad").contains("stripe_count"));
    assert!(refusal(&volumes, "none").contains("there is no member \"vg/none\""));
    assert_eq!(byte_at(&*open(&volumes, "good").unwrap(), 0), 3);
}

#[test]
fn zero_and_error_segments_do_what_they_say() {
    let zero = open(&volume("v", 2, "type = \"zero\""), "v").unwrap();
    assert_eq!(byte_at(&*zero, 5), 0);
    let run = zero.holes().unwrap().run_at(HostOffset(1), 1 << 20).unwrap();
    assert!(run.hole && run.len == 2 * EXTENT as u64 - 1);
    let error = open(&volume("v", 2, "type = \"error\""), "v").unwrap();
    assert!(error.read_at(HostOffset(0), &mut [0]).is_err());
}

#[test]
fn names_that_are_paths_are_refused() {
    for name in ["..", "a/b", "-x", "a\\b"] {
        let disk = store(device(A, &text(&[A], 1, &linear(name, 1, "pv0", 0)), &extents(0, 1)));
        let groups = VolumeGroups::open(&[disk], &Limits::default()).unwrap();
        assert_eq!(groups.members().len(), 1, "{name}");
        let note = groups.members()[0].note.as_deref().unwrap();
        assert!(note.contains("lvm2: name at"), "{note}");
    }
}

#[test]
fn writing_is_refused() {
    let volume = open(&linear("v", 1, "pv0", 0), "v").unwrap();
    assert!(!volume.is_writable());
    assert!(volume.write_at(HostOffset(0), &[1]).is_err());
    assert!(volume.set_len(5).is_err());
}

/// A volume `o` of chunks 0 to 3 (of 64 KiB), over which the store `s` has chunk 2; `tie` says what the
/// store is to it. The store's header begins with `head`.
fn with_store(tie: &str, head: &[u8; 16]) -> VolumeGroups {
    let volumes = linear("o", 4, "pv0", 0)
        + &linear("s", 4, "pv0", 4)
        + &volume(
            "snapshot0",
            4,
            &format!("type = \"snapshot\" chunk_size = 128 origin = \"o\" {tie} = \"s\""),
        );
    let mut extents = extents(0, 8);
    let store = &mut extents[4 * EXTENT..];
    store[..2 * EXTENT].fill(0);
    store[..16].copy_from_slice(head);
    (store[EXTENT], store[EXTENT + 8]) = (2, 2);
    let disk = store_of(&text(&[A], 1, &volumes), &extents);
    VolumeGroups::open(&[disk], &Limits::default()).expect("the group opens")
}

fn store_of(text: &str, extents: &[u8]) -> Arc<dyn Storage> {
    store(device(A, text, extents))
}

const GOOD: &[u8; 16] = b"SnAp\x01\0\0\0\x01\0\0\0\x80\0\0\0";
const LOST: &[u8; 16] = b"SnAp\0\0\0\0\x01\0\0\0\x80\0\0\0";

fn note(groups: &VolumeGroups, path: &str) -> String {
    let member = groups.members().iter().find(|member| member.path == path).expect("listed");
    member.note.clone().unwrap_or_default()
}

// The kernel sends all reads of an origin to the origin once the snapshot to be merged was lost.
#[test]
fn an_origin_whose_snapshot_was_lost_before_it_was_merged_reads_alone_and_that_is_told() {
    let third = |groups: &VolumeGroups| {
        byte_at(&*Members::open(groups, "vg/o").expect("it opens"), 2 * EXTENT)
    };
    let good = with_store("merging_store", GOOD);
    assert_eq!((third(&good), note(&good, "vg/o")), (6, String::new()));
    let lost = with_store("merging_store", LOST);
    assert_eq!(third(&lost), 2);
    assert!(
        note(&lost, "vg/o").starts_with("reads without s, the snapshot to be merged: its store")
    );
    let mut changes = lost.changes("vg/o", "vg/o").expect("nothing changed");
    assert_eq!(changes.next(GuestOffset::ZERO).expect("told"), None);
}

#[test]
fn volumes_that_will_not_open_say_so_in_the_list() {
    let lost = with_store("cow_store", LOST);
    assert!(Members::open(&lost, "vg/s").is_err());
    assert_eq!(note(&lost, "vg/s"), "of o; its store ran full or failed, so it was lost");
    let good = with_store("cow_store", GOOD);
    assert_eq!((note(&good, "vg/s").as_str(), note(&good, "vg/o").as_str()), ("of o", ""));
    let broken = with_store("merging_store", b"SnAp\x01\0\0\0\x01\0\0\0\x03\0\0\0");
    assert!(note(&broken, "vg/o").contains("chunk_size"), "{}", note(&broken, "vg/o"));
    let volumes =
        volume("v", 1, "type = \"vdo\"") + &volume("w", 1, "type = \"striped\" stripes = 7");
    let groups = group(&volumes);
    assert_eq!(note(&groups, "vg/v"), "segment type vdo is not supported");
    assert!(note(&groups, "vg/w").contains("stripes"), "{}", note(&groups, "vg/w"));
}

/// An identity for each number.
fn identity(number: usize) -> String {
    format!("{number:032}")
}

// Thousands of partitions over one physical volume, each with the same large text, took hours.
#[test]
fn the_texts_of_all_disks_together_are_bounded_and_copies_are_read_once() {
    let mut limits = Limits::default();
    limits.descriptor = 1 << 10;
    let ids: Vec<_> = (0..40).map(identity).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let text = text(&ids, 1, &linear("v", 1, "pv0", 1)) + &" ".repeat(4 << 10);
    assert!(text.len() < 16 << 10 && 40 * text.len() > 256 << 10);
    let disks: Vec<_> = ids.iter().map(|id| store(device(id, &text, &extents(0, 2)))).collect();
    let groups = VolumeGroups::open(&disks, &limits).expect("the group opens");
    let told = groups.members()[0].note.clone().unwrap();
    assert!(told.contains("bytes of all texts of volume groups"), "{told}");
    assert_eq!(byte_at(&*Members::open(&groups, "vg/v").expect("it opens"), 0), 1);
    let copies = vec![Arc::clone(&disks[3]); 40];
    let groups = VolumeGroups::open(&copies, &limits).expect("the group opens");
    assert_eq!(
        groups.members()[0].note.as_deref(),
        Some("40 of 40 physical volumes missing or ambiguous")
    );
}

#[test]
fn of_many_metadata_areas_two_are_read() {
    let mut disk = device(A, &text(&[A], 1, ""), &[]);
    // The list of metadata areas of the label, twice longer than LVM makes it.
    let area = disk[512 + 104..512 + 120].to_vec();
    for number in 1..4 {
        disk[512 + 104 + 16 * number..][..16].copy_from_slice(&area);
    }
    reseal(&mut disk);
    let groups = VolumeGroups::open(&[store(disk)], &Limits::default()).expect("it opens");
    assert_eq!(groups.members()[0].note.as_deref(), Some("4 metadata areas, of which 2 count"));
}

#[test]
fn a_physical_volume_has_the_size_of_its_store_and_says_which_one_that_is() {
    let whole = text(&[A, B], 1, "");
    let disks = [store(vec![0; 1 << 20]), store_of(&whole, &[7; 512])];
    let groups = VolumeGroups::open(&disks, &Limits::default()).expect("it opens");
    let [_, here, away] = groups.members() else { panic!("{:?}", groups.members()) };
    assert_eq!((here.size, away.size), (Some((1 << 20) + 512), None));
    let places = |path: &str| groups.places_of(path).collect::<Vec<_>>();
    assert_eq!([places(&here.path), places(&away.path), places("vg")], [vec![1], vec![], vec![]]);
    assert_eq!(Members::open(&groups, &here.path).unwrap().len().unwrap(), (1 << 20) + 512);
    assert!(Members::open(&groups, &away.path).is_err());
    let twice = [&disks[1], &disks[1]].map(Arc::clone);
    let groups = VolumeGroups::open(&twice, &Limits::default()).expect("it opens");
    assert_eq!(groups.places_of(&dashed(A)).collect::<Vec<_>>(), [0, 1]);
    assert!(Members::open(&groups, &dashed(A)).is_err());
}
