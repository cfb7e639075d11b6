//! Compacting, resizing, checking, repairing and renaming.

use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, CheckReport, CheckRequest, Disk, Error, Finding, Format, GuestOffset,
    GuestRange, HostOffset, Id, Layer, Limits, Location, OpenRequest, Options, Preallocation,
    Reference, Repair, Result, Role, Severity, Storage, StorageExt, Uuid,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::repair::{Trials, Word, shows_nothing_elsewhere};
use anydisk_testkit::{Aim, ByteModel, Operation, PlainImage, Random};
use anydisk_vdi::VDI;

use crate::common::{ByHand, PARENT, PARENT_MODIFY, damage, number_at};

const BLOCK: u64 = 1024;

fn here() -> Location {
    Location::Other("image".to_owned())
}

fn with_request<R>(
    store: Arc<dyn Storage>,
    access: Access,
    run: impl FnOnce(OpenRequest<'_>) -> R,
) -> R {
    let (here, limits) = (here(), Limits::default());
    let mut request = OpenRequest::new(store, &here, &limits);
    request.access = access;
    run(request)
}

fn open(store: &Arc<dyn Storage>, access: Access) -> Result<Disk> {
    with_request(Arc::clone(store), access, |request| Ok(Disk::new(VDI.open(request)?.image)))
}

fn over_noise(store: &Arc<dyn Storage>, base: &[u8]) -> Result<Disk> {
    let top = open(store, Access::ReadWrite)?.layers()[0].clone();
    let base = PlainImage::new(Arc::new(MemoryStorage::new(base.to_vec())))?;
    Ok(Disk::from_layers(vec![top, Layer::new(Arc::new(base), "below")], &Limits::default()))
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
    bytes
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("small")];
    Random::new(seed).fill(&mut bytes);
    bytes
}

/// Every third block written, in no order, every sixth with zeroes.
fn scattered(store: &Arc<dyn Storage>) -> Vec<u8> {
    let disk = open(store, Access::ReadWrite).expect("it opens");
    for block in [33, 3, 60, 9, 0, 6, 12, 57, 15] {
        let data = if block % 6 == 0 { vec![0; 1024] } else { noise(block, BLOCK) };
        disk.write(GuestOffset(block * BLOCK), &data).expect("a write");
    }
    disk.flush().expect("a flush");
    contents(&disk)
}

fn compact(disk: &Disk) -> Result<u64> {
    disk.top().compactor().expect("it can").compact(&|_, _| true)
}

fn by_hand(image: ByHand) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new(image.bytes()))
}

#[test]
fn compacting_drops_zeroes_closes_gaps_and_changes_nothing_that_is_read() {
    let store = by_hand(ByHand::SMALL);
    let expected = scattered(&store);
    let before = store.len().expect("memory");
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    let modify = disk.top().info().content_id;
    assert_eq!(compact(&disk).expect("it can be compacted"), 4 * BLOCK);
    assert_eq!(store.len().expect("memory"), before - 4 * BLOCK);
    assert_eq!(number_at(&*store, 0x184), 5);
    assert!(contents(&disk) == expected);
    assert_eq!(disk.top().info().content_id, modify, "the content is the same");
    disk.write(GuestOffset(40 * BLOCK), &[1; 1024]).expect("a write");
    disk.flush().expect("a flush");
    damage(&*store).expect("undamaged");
    assert_eq!(number_at(&*store, 0x184), 6);
    let again = open(&store, Access::Read).expect("it opens");
    assert!(contents(&again) == contents(&disk));
}

#[test]
fn compacting_an_image_with_nothing_to_give_back_writes_no_block() {
    let store = by_hand(ByHand::SMALL);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset::ZERO, &noise(1, 5 * BLOCK)).expect("a write");
    assert_eq!(compact(&disk).expect("it can be compacted"), 0);
    assert_eq!(compact(&disk).expect("it can be compacted again"), 0);
}

#[test]
fn compacting_that_is_cancelled_leaves_the_image_as_it_was() {
    let store = by_hand(ByHand::SMALL);
    let expected = scattered(&store);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    let error = disk.top().compactor().expect("it can").compact(&|done, _| done < 9000);
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
    assert!(contents(&disk) == expected);
    damage(&*store).expect("undamaged");
}

/// All states that a power failure during `operation` may leave hold one of what is `expected` for
/// their size, and can be compacted and written.
fn survives(
    image: ByHand,
    base: Option<&[u8]>,
    operation: impl Fn(&Disk) -> Result<()>,
    expected: impl Fn(u64, &[u8]) -> Vec<Vec<u8>>,
) {
    let start = by_hand(image);
    let before = scattered(&start);
    let len = usize::try_from(start.len().expect("memory")).expect("small");
    let mut bytes = vec![0; len];
    start.read_exact_at(HostOffset::ZERO, &mut bytes).expect("memory");
    let crash = CrashStorage::over(bytes);
    let open = |store: &Arc<dyn Storage>| match base {
        Some(base) => over_noise(store, base),
        None => open(store, Access::ReadWrite),
    };
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let disk = open(&store).expect("it opens");
    operation(&disk).expect("it can be done");
    disk.flush().expect("a flush");
    crash.mark();
    for state in crash.torn_states(600, 1) {
        let store: Arc<dyn Storage> = state.storage();
        let disk = open(&store).unwrap_or_else(|error| panic!("{error}\n{state}"));
        let found = contents(&disk);
        assert!(expected(disk.size(), &before).contains(&found), "{} bytes, {state}", disk.size());
        damage(&*store).unwrap_or_else(|damage| panic!("{damage}\n{state}"));
        compact(&disk).unwrap_or_else(|error| panic!("{error}\n{state}"));
        assert!(contents(&disk) == found, "compacted\n{state}");
        disk.write(GuestOffset(2 * BLOCK), &[9; 1024]).expect("a write");
        disk.flush().expect("a flush");
        damage(&*store).unwrap_or_else(|damage| panic!("written: {damage}\n{state}"));
    }
}

fn resized(size: u64, before: &[u8]) -> Vec<u8> {
    let mut bytes = before.to_vec();
    bytes.resize(usize::try_from(size).expect("small"), 0);
    bytes
}

#[test]
fn after_any_crash_while_compacting_everything_is_there() {
    for extra in [0, 512] {
        let image = ByHand { extra, ..ByHand::SMALL };
        survives(image, None, |disk| compact(disk).map(drop), |_, before| vec![before.to_vec()]);
    }
}

#[test]
fn after_any_crash_while_growing_the_disk_has_the_old_or_the_new_size() {
    // 64 entries; the gap before the first block has room for 128.
    for blocks in [100, 128, 129, 200, 900] {
        let size = blocks * BLOCK - 512;
        let grow = |disk: &Disk| disk.resize(size, Preallocation::Off);
        survives(ByHand::SMALL, None, grow, |size, before| vec![resized(size, before)]);
    }
}

#[test]
fn after_any_crash_while_shrinking_the_disk_has_the_old_or_the_new_size() {
    for size in [40 * BLOCK, 10 * BLOCK - 512, 3 * BLOCK + 512] {
        let shrink = |disk: &Disk| disk.resize(size, Preallocation::Off);
        survives(ByHand::SMALL, None, shrink, |found, before| {
            // What lies behind the new end in its block may be gone already.
            let untouched = resized(found, before);
            let mut zeroed = untouched.clone();
            let unit = usize::try_from(size.next_multiple_of(BLOCK)).expect("small");
            let start = usize::try_from(size).expect("small");
            if let Some(rest) = zeroed.get_mut(start..unit) {
                rest.fill(0);
            }
            vec![untouched, zeroed]
        });
    }
}

#[test]
fn a_grown_child_does_not_show_more_of_its_parent() {
    let base = noise(5, 300 * BLOCK);
    for blocks in [100, 250] {
        let store = by_hand(ByHand { has_parent: true, ..ByHand::SMALL });
        let disk = over_noise(&store, &base).expect("it opens");
        disk.write(GuestOffset(BLOCK), &[1; 10]).expect("a write");
        disk.resize(blocks * BLOCK, Preallocation::Off).expect("it can grow");
        disk.flush().expect("a flush");
        let found = contents(&disk);
        let old = 64 * 1024;
        assert!(found[2048..old] == base[2048..old]);
        assert!(found[old..].iter().all(|byte| *byte == 0));
        let again = over_noise(&store, &base).expect("it opens");
        assert!(contents(&again) == found);
    }
}

#[test]
fn a_disk_of_version_0_shrinks_and_does_not_outgrow_its_map() {
    let store = by_hand(ByHand { is_old: true, ..ByHand::SMALL });
    let expected = scattered(&store);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.resize(20 * BLOCK, Preallocation::Off).expect("it can shrink");
    disk.resize(64 * BLOCK, Preallocation::Off).expect("it can grow again");
    disk.flush().expect("a flush");
    let again = open(&store, Access::Read).expect("it opens");
    assert!(contents(&again) == resized(64 * BLOCK, &expected[..20 * 1024]));
    let error = disk.resize(65 * BLOCK, Preallocation::Off).expect_err("no room");
    assert_eq!(error.to_string(), "vdi: growing the map of an image of version 0 is not supported");
}

#[test]
fn a_grown_disk_has_space_where_that_is_asked_for() {
    for how in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
        let store = by_hand(ByHand::SMALL);
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        disk.resize(80 * BLOCK, how).expect("it can grow");
        disk.flush().expect("a flush");
        assert_eq!(number_at(&*store, 0x184), 16, "{how:?}");
        assert!(contents(&disk).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn writing_and_reading_go_on_while_the_image_is_compacted_and_grown() {
    let store = by_hand(ByHand::SMALL);
    scattered(&store);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    std::thread::scope(|scope| {
        for part in 0..2_u64 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 0..300_u64 {
                    let at = GuestOffset((part * 30 + round % 30) * BLOCK + 5);
                    let byte = u8::try_from(round % 3).expect("small");
                    disk.write(at, &[byte; 700]).expect("a write");
                    let mut bytes = [9; 700];
                    disk.read(at, &mut bytes).expect("a read");
                    assert_eq!(bytes, [byte; 700], "part {part}, round {round}");
                }
            });
        }
        for round in 0..20 {
            compact(&disk).expect("it can be compacted");
            disk.resize((64 + round * 40) * BLOCK, Preallocation::Off).expect("it can grow");
        }
    });
    let found = contents(&disk);
    disk.flush().expect("a flush");
    damage(&*store).expect("undamaged");
    assert!(contents(&open(&store, Access::Read).expect("it opens")) == found);
}

fn check(store: &Arc<dyn Storage>, repair: Repair) -> Result<(CheckReport, Vec<Finding>)> {
    let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
    with_request(Arc::clone(store), access, |request| {
        let mut found = Vec::new();
        let request = CheckRequest::new(request).repairing(repair);
        let report = VDI.check(&request, &mut |finding| found.push(finding))?;
        Ok((report, found))
    })
}

/// An image of 64 blocks with these entries, these many counted, and these many in the file.
fn with_entries(entries: &[u32], allocated: u32, blocks: u8, cut: usize) -> Arc<dyn Storage> {
    with_entries_of(ByHand::SMALL, entries, allocated, blocks, cut)
}

fn with_entries_of(
    image: ByHand,
    entries: &[u32],
    allocated: u32,
    blocks: u8,
    cut: usize,
) -> Arc<dyn Storage> {
    let mut bytes = image.bytes();
    bytes[0x184..0x188].copy_from_slice(&allocated.to_le_bytes());
    for (entry, place) in entries.iter().zip(bytes[512..].chunks_mut(4)) {
        place.copy_from_slice(&entry.to_le_bytes());
    }
    bytes.extend((1..=blocks).flat_map(|block| [block; 1024]));
    bytes.truncate(bytes.len() - cut);
    Arc::new(MemoryStorage::new(bytes))
}

#[test]
fn each_kind_of_damage_is_found_told_and_mended() {
    for (entries, allocated, blocks, cut, kind, first_bytes) in [
        (&[0, 9, 1][..], 10, 2, 0, "block-behind-end", &[1, 0, 2][..]),
        (&[0, 1, 0], 2, 2, 0, "block-used-twice", &[1, 2, 1]),
        (&[0, 1, 2], 1, 3, 0, "block-not-counted", &[1, 2, 3]),
        (&[0, 1, 2], 3, 3, 24, "block-cut", &[1, 2, 3]),
        (&[0, 3, 1], 4, 4, 0, "block-unnamed", &[1, 4, 2]),
    ] {
        let store = with_entries(entries, allocated, blocks, cut);
        if kind == "block-unnamed" {
            let first = store.len().expect("memory") - 4 * 1024;
            store.write_at(HostOffset(first + 2 * 1024), &[0; 1024]).expect("memory");
        }
        let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
        assert!(!report.is_clean(), "{kind}");
        assert!(found.iter().any(|finding| finding.kind == kind), "{kind}: {found:?}");
        let (report, found) = check(&store, Repair::All).expect("it can be repaired");
        assert!(report.is_clean() || report.leaks > 0, "{kind}: {report:?}");
        assert!(found.iter().any(|finding| finding.repaired), "{kind}");
        check(&store, Repair::Leaks).expect("it can be repaired");
        let (report, found) = check(&store, Repair::Nothing).expect("it can be checked again");
        // What an entry may have named that was damaged is kept.
        assert!(report.corruptions == 0, "{kind}: {found:?}");
        assert!(report.is_clean() || kind == "block-behind-end", "{kind}: {found:?}");
        damage(&*store).unwrap_or_else(|damage| panic!("{kind}: {damage}"));
        let disk = open(&store, Access::ReadWrite).expect("it can be written");
        let bytes = contents(&disk);
        let firsts: Vec<u8> = (0..3).map(|block| bytes[block * 1024]).collect();
        assert_eq!(firsts, first_bytes, "{kind}");
    }
}

/// Copies go to where the file ends, which is where a damaged entry leads.
#[test]
fn a_repair_shows_no_block_in_another_whenever_power_fails() {
    for (entries, blocks, left) in [
        (&[0, 0, 1, 2][..], 2, 0),
        (&[2, 0, 0, 1], 2, 0),
        (&[0, 4, 0, 3, 1, 2], 3, 0),
        // A block is left over, which a damaged entry may have named.
        (&[2, 0, 0], 2, 2),
        (&[0, 3, 1, 1], 3, 2),
    ] {
        let store = with_entries(entries, blocks.into(), blocks, 0);
        let found = shows_nothing_elsewhere(&VDI, &content_of(&store), BLOCK);
        assert_eq!(found, left, "{entries:?}");
    }
}

#[test]
fn a_repair_of_any_damage_keeps_what_is_right() {
    repairs_of_any_damage(false);
}

#[test]
fn a_repair_of_an_image_over_another_uncovers_nothing() {
    repairs_of_any_damage(true);
}

fn repairs_of_any_damage(has_parent: bool) {
    let image = ByHand { has_parent, ..ByHand::SMALL };
    let entries = [0, 1, u32::MAX, 2, 3, u32::MAX - 1, 4];
    let sound = content_of(&with_entries_of(image, &entries, 5, 5, 0));
    let trials = Trials {
        format: &VDI,
        sound: &sound,
        unit: 512,
        // The map, and what the header says of blocks.
        areas: &[512..544, 512..544, 0x154..0x15C, 0x170..0x188],
        word: Word::Little32,
        nasty: &[0, 1, 2, 4, 5, 6, 64, 1 << 20, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF],
        count: 300,
    };
    trials.run(&mut Random::new(5));
}

/// Of 17 MiB in blocks the map names none: all would be cut off, or written over.
#[test]
fn blocks_of_a_map_that_was_lost_are_neither_leaks_nor_given_back_nor_written_over() {
    let image = ByHand { size: 17 << 20, block: 1 << 20, ..ByHand::SMALL };
    let mut bytes = image.bytes();
    bytes[0x184..0x188].copy_from_slice(&17_u32.to_le_bytes());
    let first = bytes.len();
    bytes.resize(first + (17 << 20), 7);
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let before = content_of(&store);
    for repair in [Repair::Nothing, Repair::Leaks, Repair::All, Repair::All] {
        let (report, found) = check(&store, repair).expect("it can be checked");
        assert_eq!((report.corruptions, report.leaks), (1, 0), "{repair:?}");
        assert_eq!((found[0].kind, found[0].at), ("map-lost", HostOffset(512)));
        let text = "17 blocks are counted, and the map names 0: it may be damaged";
        assert_eq!(found[0].text, text);
        assert!(content_of(&store) == before, "{repair:?}");
    }
    let disk = open(&store, Access::ReadWrite).expect("it can be written");
    disk.write(GuestOffset(0), &[9; 1024]).expect("a write");
    disk.flush().expect("a flush");
    assert!(content_of(&store)[first..].starts_with(&before[first..]));
}

/// A kill while a fixed image grows leaves many blocks without a name. They hold nothing.
#[test]
fn many_empty_blocks_without_a_name_are_a_leak_and_no_lost_map() {
    let image = ByHand { size: 40 << 20, block: 1 << 20, ..ByHand::SMALL };
    let mut bytes = image.bytes();
    bytes[0x184..0x188].copy_from_slice(&40_u32.to_le_bytes());
    bytes[512..516].copy_from_slice(&0_u32.to_le_bytes());
    let first = bytes.len();
    bytes.resize(first + (40 << 20), 0);
    bytes[first] = 7;
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let (report, _) = check(&store, Repair::Nothing).expect("it can be checked");
    assert_eq!((report.corruptions, report.leaks), (0, 39));
    let disk = open(&store, Access::ReadWrite).expect("it can be written");
    disk.write(GuestOffset(20 << 20), &[9; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory"), first as u64 + (40 << 20));
    drop(disk);
    assert!(check(&store, Repair::Leaks).expect("it can be repaired").0.is_clean());
    assert_eq!(store.len().expect("memory"), first as u64 + (2 << 20));
}

/// What was cut off is not made again.
#[test]
fn a_file_that_ends_behind_its_map_is_mended_and_stays_short() {
    let store = with_entries(&[0, 1, 2], 3, 0, 0);
    let len = store.len().expect("memory");
    let (report, _) = check(&store, Repair::All).expect("it can be repaired");
    assert_eq!((report.corruptions_fixed, report.leaks), (3, 0));
    assert_eq!(store.len().expect("memory"), len);
    assert!(check(&store, Repair::Nothing).expect("it can be checked").0.is_clean());
}

/// A sector of the map was written over with what says "free": its blocks hold the only copy.
#[test]
fn blocks_with_data_are_kept_and_not_written_over_though_no_entry_names_them() {
    let store = with_entries(&[0, u32::MAX, u32::MAX, 3], 4, 4, 0);
    let before = content_of(&store);
    for repair in [Repair::Nothing, Repair::Leaks, Repair::All] {
        let (report, found) = check(&store, repair).expect("it can be checked");
        assert_eq!((report.leaks, report.leaks_fixed), (2, 0), "{repair:?}");
        let text = "blocks 1 to 2 of the file are counted, and nothing names them; there is data: it \
                    is kept until the image is compacted";
        assert_eq!((found[0].kind, &*found[0].text), ("block-unnamed", text));
        assert!(content_of(&store) == before, "{repair:?}");
    }
    let disk = open(&store, Access::ReadWrite).expect("it can be written");
    disk.write(GuestOffset(BLOCK), &[9; 1024]).expect("a write");
    disk.flush().expect("a flush");
    let first = before.len() - 4 * 1024;
    assert!(content_of(&store)[first..].starts_with(&before[first..]));
    // Who wants to have the space asks for it.
    disk.top().compactor().expect("it can be").compact(&|_, _| true).expect("a compaction");
    assert!(check(&store, Repair::Nothing).expect("it can be checked").0.is_clean());
}

#[test]
fn nothing_is_given_back_beside_an_entry_that_is_damaged_or_was_until_this_repair() {
    // Block 1 of the file belongs to the entry that says 9.
    let store = with_entries(&[0, 9, 2], 3, 3, 0);
    let before = content_of(&store);
    check(&store, Repair::Leaks).expect("it can be repaired");
    assert!(content_of(&store) == before);
    let (report, _) = check(&store, Repair::All).expect("it can be repaired");
    assert_eq!((report.corruptions, report.leaks, report.leaks_fixed), (1, 1, 0));
    assert!(content_of(&store) == before);
    // It belongs to the entry that names the rest of a file that was cut.
    let store = with_entries(&[0, 3, 2], 3, 4, 900);
    let before = content_of(&store);
    let (report, found) = check(&store, Repair::All).expect("it can be checked");
    assert_eq!((report.corruptions, found[0].kind), (1, "block-not-counted"));
    assert!(content_of(&store) == before);
    // With no block left over it is taken for what it says.
    let store = with_entries(&[0, 2, 1], 2, 3, 900);
    assert!(check(&store, Repair::All).expect("it can be repaired").0.is_clean());
}

#[test]
fn what_no_program_writes_and_reads_in_spite_of_it_is_noted() {
    let sound = content_of(&with_entries(&[0, 1], 2, 2, 0));
    for (at, byte, kind) in [(0x154, 4, "map-not-in-sectors"), (0x1A8, 1, "type-and-parent")] {
        let mut bytes = sound.clone();
        bytes[at] ^= byte;
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
        let (_, found) = check(&store, Repair::Nothing).expect("it can be checked");
        let told = found.iter().find(|found| found.kind == kind).expect(kind);
        assert_eq!((told.severity, told.at), (Severity::Note, HostOffset(at as u64)));
    }
}

#[test]
fn blocks_that_the_map_names_behind_the_end_of_the_disk_are_told_and_kept() {
    let store = with_entries(&[0, 1, 2], 3, 3, 0);
    store.write_at(HostOffset(0x170), &1024_u64.to_le_bytes()).expect("memory");
    let len = store.len().expect("memory");
    let (report, found) = check(&store, Repair::All).expect("it can be checked");
    assert!(report.is_clean());
    assert_eq!((found[0].kind, found[0].at), ("entry-behind-end", HostOffset(512 + 4)));
    assert_eq!(found[0].text, "the map names 2 blocks behind the end of the disk at 0x400");
    assert_eq!(store.len().expect("memory"), len);
}

/// 34 blocks with data of 64 places, in no order.
fn of_34_blocks(image: ByHand) -> (Vec<u8>, Vec<u8>) {
    let store = by_hand(image);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    for number in 0..34 {
        let at = GuestOffset(number * 29 % 64 * BLOCK);
        disk.write(at, &noise(number + 1, BLOCK)).expect("a write");
    }
    disk.flush().expect("a flush");
    (content_of(&store), contents(&disk))
}

/// With one bit of a place or a length wrong, whole blocks seemed to be lost or named twice, and were given
/// up or copied; the file grew to hundreds of times its length.
#[test]
fn no_bit_of_the_header_that_is_wrong_makes_a_repair_cost_anything() {
    for image in [ByHand::SMALL, ByHand { is_old: true, ..ByHand::SMALL }] {
        let (whole, expected) = of_34_blocks(image);
        let fields = if image.is_old { 0x48..0x174 } else { 0x48..0x188 };
        let mut told = std::collections::BTreeSet::new();
        for bit in fields.start * 8..fields.end * 8 {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            // Not the text.
            if at / 0x40 > 1 && at < 0x150 {
                continue;
            }
            let mut wrong = whole.clone();
            wrong[at] ^= mask;
            let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(wrong));
            let kinds = match check(&store, Repair::All) {
                Ok((_, found)) => found.into_iter().map(|it| (it.kind, it.repaired)).collect(),
                Err(_) => Vec::new(),
            };
            if kinds.iter().any(|(kind, _)| *kind == "header-field") {
                told.insert(at / 4 * 4);
            }
            let len = store.len().expect("memory");
            assert!(len <= whole.len() as u64 + BLOCK, "{at:#x}, {mask}: {len}");
            store.write_at(HostOffset(at as u64), &whole[at..=at]).expect("memory");
            let disk = open(&store, Access::Read).expect("it opens");
            assert!(contents(&disk) == expected, "{at:#x}, {mask}: {kinds:?}");
        }
        // offBlocks, offData, cbBlockExtra, cBlocks; or the only one of them that version 0 has.
        let fields: &[usize] = if image.is_old { &[0x16c] } else { &[0x154, 0x158, 0x17c, 0x180] };
        assert!(fields.iter().all(|at| told.contains(at)), "{told:x?}");
    }
}

#[test]
fn an_image_of_which_a_field_is_suspect_is_neither_mended_nor_written() {
    let (whole, expected) = of_34_blocks(ByHand::SMALL);
    let extra = 512_u32.to_le_bytes();
    for (at, bytes, text) in [
        (
            0x17c,
            &extra[..],
            "cbBlockExtra is 0x200: everything fits with 0x0, one bit of it is wrong",
        ),
        (0x159, &[6], "offData is 0x600: everything fits with 0x400, one bit of it is wrong"),
        (
            0x154,
            &[3],
            "offBlocks is 0x203, in the middle of a sector, and the map there is damaged",
        ),
    ] {
        let mut wrong = whole.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(wrong.clone()));
        let (report, found) = check(&store, Repair::All).expect("it can be checked");
        assert_eq!((found[0].kind, &*found[0].text), ("header-field", text));
        assert_eq!(found[0].at, HostOffset(at as u64 / 4 * 4));
        assert!(report.corruptions > 0 && report.corruptions_fixed == 0, "{report:?}");
        assert!(content_of(&store) == wrong);
        let refused = open(&store, Access::ReadWrite).map(|_| ());
        assert!(matches!(refused, Err(Error::NeedsRepair { .. })), "{refused:?}");
        store.write_at(HostOffset(at as u64), &whole[at..at + bytes.len()]).expect("memory");
        assert!(contents(&open(&store, Access::ReadWrite).expect("it opens")) == expected);
    }
}

/// Entries behind the disk that are the zeroes of a gap: each of them got a copy of block 0.
#[test]
fn entries_behind_the_end_of_the_disk_that_are_wrong_get_no_copies_but_the_map_its_length() {
    let mut bytes = by_hand(ByHand { size: 32 << 10, ..ByHand::SMALL });
    let store = &mut bytes;
    store.write_at(HostOffset(0x180), &40_u32.to_le_bytes()).expect("memory");
    store.write_at(HostOffset(0x158), &2048_u32.to_le_bytes()).expect("memory");
    store.write_at(HostOffset(512), &0_u32.to_le_bytes()).expect("memory");
    store.write_at(HostOffset(512 + 32 * 4), &[0; 32]).expect("memory");
    store.write_at(HostOffset(0x184), &1_u32.to_le_bytes()).expect("memory");
    store.write_at(HostOffset(2048), &[7; 1024]).expect("memory");
    let len = store.len().expect("memory");
    let refused = open(store, Access::ReadWrite).map(|_| ());
    assert!(matches!(refused, Err(Error::NeedsRepair { .. })), "{refused:?}");
    let (report, found) = check(store, Repair::All).expect("it can be repaired");
    assert_eq!((report.corruptions, report.corruptions_fixed), (0, 1), "{found:?}");
    let text = "cBlocks is 40, the disk has 32 blocks, and 8 entries behind them name blocks that \
                others name, or that are not there";
    assert_eq!((found[0].kind, &*found[0].text), ("header-field", text));
    assert_eq!((number_at(&**store, 0x180), store.len().expect("memory")), (32, len));
    assert!(check(store, Repair::Nothing).expect("it can be checked").0.is_clean());
    assert_eq!(contents(&open(store, Access::ReadWrite).expect("it opens"))[..2], [7, 7]);
}

/// A count that was too low hid blocks with data that nothing names.
#[test]
fn a_count_that_is_raised_uncovers_what_is_told_in_the_same_run() {
    let store = with_entries(&[0, u32::MAX, 2], 1, 3, 0);
    let (report, found) = check(&store, Repair::All).expect("it can be repaired");
    assert_eq!((report.corruptions_fixed, report.leaks), (1, 1), "{found:?}");
    let (report, _) = check(&store, Repair::All).expect("it can be checked");
    assert_eq!((report.corruptions, report.corruptions_fixed, report.leaks), (0, 0, 1));
}

/// Power failed while the disk shrank: the map is that of the shorter disk, the blocks are all there.
#[test]
fn blocks_for_which_the_map_has_no_entries_are_a_leak_and_no_lost_map() {
    let image = ByHand { size: 20 << 20, block: 1 << 20, ..ByHand::SMALL };
    let mut bytes = image.bytes();
    bytes[0x184..0x188].copy_from_slice(&60_u32.to_le_bytes());
    for number in 0..20_u8 {
        bytes[512 + 4 * usize::from(number)] = number;
        bytes[513 + 4 * usize::from(number)..516 + 4 * usize::from(number)].fill(0);
    }
    let first = bytes.len();
    bytes.resize(first + (60 << 20), 7);
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
    let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
    assert_eq!((report.corruptions, report.leaks), (0, 40), "{found:?}");
}

fn content_of(store: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("memory")).expect("small")];
    store.read_exact_at(HostOffset(0), &mut bytes).expect("memory");
    bytes
}

#[test]
fn a_finding_names_the_entry_the_block_and_the_part_of_the_disk() {
    let store = with_entries(&[0, 1, 0], 2, 2, 0);
    let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
    assert_eq!((report.corruptions, report.leaks), (1, 0));
    assert_eq!(found[0].at, HostOffset(512 + 8));
    assert_eq!(
        found[0].text,
        "block 2 of the disk is block 0 of the file: another entry names it too"
    );
    let range = GuestRange::new(GuestOffset(2 * BLOCK), BLOCK);
    assert_eq!(found[0].guest, range);
}

#[test]
fn golden_images_are_clean_or_not_as_they_should_be() {
    for case in cases("vdi") {
        let unpacked = case.unpack();
        let bytes = std::fs::read(&unpacked.path).expect("it was unpacked");
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes));
        let found = check(&store, Repair::Nothing);
        let name = &case.name;
        match case.expect.check.as_str() {
            "clean" => {
                let (report, found) = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(report.is_clean(), "{name}: {found:?}");
            }
            "findings" => {
                let (report, _) = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(!report.is_clean(), "{name}");
                check(&store, Repair::All).unwrap_or_else(|error| panic!("{name}: {error}"));
                check(&store, Repair::All).unwrap_or_else(|error| panic!("{name}: {error}"));
                let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
                if name == "hostile-block-beyond-eof" {
                    // There is a block without a name, which its entry may have named.
                    assert_eq!((report.corruptions, report.leaks), (1, 1), "{name}: {found:?}");
                    continue;
                }
                assert!(report.corruptions == 0, "{name}, repaired: {found:?}");
                open(&store, Access::ReadWrite).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            // The damage is in the header, or in how it fits its parent.
            _ if case.parent.is_some() => {}
            _ => assert!(found.is_err(), "{name}: {found:?}"),
        }
    }
}

#[test]
fn a_repair_that_loses_power_at_any_moment_can_be_done_again() {
    let start = with_entries(&[0, 1, 0, 9, 2, 1], 3, 4, 0);
    let mut bytes = vec![0; usize::try_from(start.len().expect("memory")).expect("small")];
    start.read_exact_at(HostOffset::ZERO, &mut bytes).expect("memory");
    let crash = CrashStorage::over(bytes);
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    check(&store, Repair::All).expect("it can be repaired");
    for state in crash.torn_states(600, 3) {
        let store: Arc<dyn Storage> = state.storage();
        for _ in 0..2 {
            check(&store, Repair::All).unwrap_or_else(|error| panic!("{error}\n{state}"));
        }
        let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
        assert!(report.corruptions == 0, "{found:?}\n{state}");
        let bytes = contents(&open(&store, Access::Read).expect("it opens"));
        let firsts: Vec<u8> = (0..6).map(|block| bytes[block * 1024]).collect();
        assert_eq!(firsts, [1, 2, 1, 0, 3, 2], "{state}");
    }
}

fn amend(store: &Arc<dyn Storage>, given: &[(&str, &str)]) -> Result<()> {
    let mut options = Options::to_amend(&VDI);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    with_request(Arc::clone(store), Access::ReadWrite, |open| {
        VDI.amend(AmendRequest { open, options: &options, force: false })
    })
}

/// The header lies in one sector: power leaves the old or the new one.
#[test]
fn after_any_crash_while_the_parent_or_the_names_change_they_are_the_old_or_the_new_ones() {
    let image = ByHand { has_parent: true, ..ByHand::SMALL };
    let crash = CrashStorage::over(image.bytes());
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let info = |store: &Arc<dyn Storage>| {
        let disk = open(store, Access::Read).expect("it opens");
        let parent = disk.layers()[0].backing.as_ref().and_then(|reference| reference.id);
        (disk.top().info().id, parent)
    };
    let mut told = vec![info(&store)];
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    let link = disk.top().backing_link().expect("it can be changed");
    let mut other = Reference::new(Role::Backing, "");
    other.id = Some(Id::Uuid(Uuid::from_bytes([5; 16])));
    other.content_id = Some(Id::Uuid(Uuid::from_bytes([6; 16])));
    for parent in [Some(&other), None] {
        link.set_backing(parent).expect("another parent");
        crash.mark();
        told.push(info(&store));
    }
    drop(disk);
    amend(&store, &[("uuid", "random")]).expect("another name");
    told.push(info(&store));
    for state in crash.torn_states(200, 1) {
        let found = info(&(state.storage() as Arc<dyn Storage>));
        let before = state.marks().min(told.len() - 2);
        assert!(told[before..before + 2].contains(&found), "{found:?}\n{state}");
    }
}

#[test]
fn a_copy_gets_another_uuid_and_keeps_its_content() {
    let store = by_hand(ByHand::SMALL);
    let expected = scattered(&store);
    let info = |store| open(store, Access::Read).expect("it opens").top().info();
    let before = info(&store);
    amend(&store, &[("uuid", "random"), ("comment", "a copy"), ("lchs", "100/16/63")])
        .expect("it can be amended");
    let after = info(&store);
    assert_ne!(after.id, before.id);
    assert_eq!(after.content_id, before.content_id);
    assert!(contents(&open(&store, Access::Read).expect("it opens")) == expected);
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    amend(&store, &[("uuid", uuid), ("uuid_modify", uuid)]).expect("it can be amended");
    let uuid: Uuid = uuid.parse().expect("a UUID");
    assert_eq!(
        (info(&store).id, info(&store).content_id),
        (Some(Id::Uuid(uuid)), Some(Id::Uuid(uuid)))
    );
    assert_eq!([0x1c8, 0x1cc, 0x1d0].map(|at| number_at(&*store, at)), [100, 16, 63]);
    let mut comment = [0; 7];
    store.read_exact_at(HostOffset(0x54), &mut comment).expect("memory");
    assert_eq!(&comment, b"a copy\0");
    for (name, value) in [("uuid", "nil"), ("lchs", "1/2"), ("comment", &*"x".repeat(256))] {
        let error = amend(&store, &[(name, value)]).expect_err("refused");
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
}

#[test]
fn an_emptied_child_shows_its_parent_and_takes_no_space() {
    let store = by_hand(ByHand { has_parent: true, ..ByHand::SMALL });
    scattered(&store);
    let base = noise(3, 64 * BLOCK);
    let disk = over_noise(&store, &base).expect("it opens");
    assert!(contents(&disk) != base);
    disk.top().backing_link().expect("it has one").make_empty().expect("it can be emptied");
    assert!(contents(&disk) == base);
    assert_eq!(number_at(&*store, 0x184), 0);
    let first = usize::try_from(store.len().expect("memory")).expect("small");
    assert_eq!(first, ByHand::SMALL.bytes().len());
    disk.write(GuestOffset(BLOCK), &[1; 5]).expect("a write");
    disk.flush().expect("a flush");
    damage(&*store).expect("undamaged");
    let base = open(&by_hand(ByHand::SMALL), Access::ReadWrite).expect("it opens");
    assert!(base.top().backing_link().expect("it has one").make_empty().is_err(), "no parent");
}

#[test]
fn another_parent_can_be_named_and_none() {
    let store = by_hand(ByHand::SMALL);
    let link = |reference: Option<&Reference>| {
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        disk.top().backing_link().expect("it has one").set_backing(reference)
    };
    let mut reference = Reference::new(Role::Backing, "x.vdi");
    assert!(link(Some(&reference)).is_err(), "its UUIDs are not known");
    (reference.id, reference.content_id) = (Some(Id::Uuid(PARENT)), Some(Id::Uuid(PARENT_MODIFY)));
    let backing = || {
        with_request(Arc::clone(&store), Access::Read, |request| {
            VDI.open(request).expect("it opens").backing
        })
    };
    link(Some(&reference)).expect("it can be linked");
    assert_eq!(number_at(&*store, 76), 4);
    let found = backing().expect("it has a parent");
    assert_eq!((found.id, found.content_id), (reference.id, reference.content_id));
    link(None).expect("it can be unlinked");
    assert_eq!((number_at(&*store, 76), backing()), (1, None));
}

/// Ordinary operations, and every so often one that moves blocks, over a parent or not.
fn history(image: ByHand, base: Option<&[u8]>, seed: u64) {
    let store = by_hand(image);
    let open = || match base {
        Some(base) => over_noise(&store, base).expect("it opens"),
        None => open(&store, Access::ReadWrite).expect("it opens"),
    };
    let mut disk = open();
    let mut model = ByteModel::of(base.unwrap_or_default(), disk.size());
    let mut random = Random::new(seed);
    for number in 0..400 {
        let aim = Aim { step: 512, ..Aim::at(disk.size(), BLOCK) };
        let operation = aim.random_operation(&mut random);
        let range = |at, len| GuestRange::new(GuestOffset(at), len).expect("on the disk");
        match (random.below(12), operation) {
            (0, _) => {
                compact(&disk).expect("it can be compacted");
            }
            (1, _) => {
                let size = (1 + random.below(300)) * 512;
                disk.resize(size, Preallocation::Off).expect("it can be resized");
                model.resize(size);
            }
            (_, Operation::Write { at, .. }) => {
                disk.write(GuestOffset(at), &operation.data()).expect("a write");
                model.apply(&operation);
            }
            (_, Operation::Zero { at, len, unmap }) => {
                disk.zero(range(at, len), unmap).expect("a zeroing");
                model.apply(&operation);
            }
            (_, Operation::Reopen) => {
                disk.flush().expect("a flush");
                damage(&*store).unwrap_or_else(|damage| panic!("{seed}, {number}: {damage}"));
                drop(disk);
                disk = open();
            }
            (_, Operation::Flush) => disk.flush().expect("a flush"),
            _ => {}
        }
        if number % 8 == 0 {
            assert!(contents(&disk) == model.contents(), "seed {seed}, operation {number}");
        }
    }
    disk.flush().expect("a flush");
    drop(disk);
    assert!(contents(&open()) == model.contents(), "seed {seed}, at the end");
    let (report, found) = check(&store, Repair::Nothing).expect("it can be checked");
    assert_eq!(report.corruptions, 0, "seed {seed}: {found:?}");
}

#[test]
fn random_histories_with_compacting_and_resizing_equal_a_byte_vector() {
    for seed in 0..12 {
        let extra = if seed % 3 == 0 { 512 } else { 0 };
        history(ByHand { extra, ..ByHand::SMALL }, None, seed);
        let base = noise(seed, (20 + 12 * seed) * BLOCK);
        history(ByHand { extra, has_parent: true, ..ByHand::SMALL }, Some(&base), 100 + seed);
    }
}
