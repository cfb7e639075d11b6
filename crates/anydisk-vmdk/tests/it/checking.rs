//! What a check finds, and what a repair makes of it.

use std::sync::Arc;

use anydisk_core::{
    Access, BearingLoss, CheckReport, CheckRequest, CreateRequest, Disk, Format, GuestOffset,
    GuestRange, HostOffset, Limits, Location, NoReferences, OpenRequest, Options, Repair, Storage,
    StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::vmdk::ByHand;
use anydisk_vmdk::VMDK;

const IMAGE: ByHand = ByHand { sectors: 1920, grain: 128, zeroed_grain: false, parent: None };

/// First and second directory and table of the image, and its first grain.
const SECOND_DIRECTORY: u64 = 5 * 512;
const SECOND_TABLE: u64 = 6 * 512;
const DIRECTORY: u64 = 10 * 512;
const TABLE: u64 = 11 * 512;
const GRAINS: u64 = GRAIN;
/// Bytes of a grain.
const GRAIN: u64 = 65536;

/// An image whose grains 0 to 3 hold their number plus one.
fn image() -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::new(IMAGE.bytes()));
    let disk = open(store.clone(), Access::ReadWrite);
    for number in 0..4_u8 {
        let at = GuestOffset(u64::from(number) * GRAIN);
        disk.write(at, &[number + 1; 65536]).expect("a write");
    }
    disk.flush().expect("a flush");
    store
}

fn request(
    store: Arc<dyn Storage>,
    access: Access,
) -> (Location, Limits, Arc<dyn Storage>, Access) {
    (Location::Other("a".to_owned()), Limits::default(), store, access)
}

fn open(store: Arc<dyn Storage>, access: Access) -> Disk {
    let (location, limits, store, access) = request(store, access);
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    Disk::new(VMDK.open(request).expect("it opens").image)
}

/// The report, and the findings as lines of words.
fn check(store: Arc<dyn Storage>, repair: Repair) -> (CheckReport, Vec<String>) {
    let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
    let (location, limits, store, access) = request(store, access);
    let open = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    let mut lines = Vec::new();
    let report = VMDK.check(&CheckRequest::new(open).repairing(repair), &mut |finding| {
        let done = if finding.repaired { " (mended)" } else { "" };
        lines.push(format!("{} at {}{done}: {}", finding.kind, finding.at, finding.text));
    });
    (report.expect("it can be checked"), lines)
}

fn put(store: &MemoryStorage, at: u64, entry: u32) {
    store.write_at(HostOffset(at), &entry.to_le_bytes()).expect("a write to memory");
}

/// The first byte of each of the first four grains.
fn grains(store: &Arc<MemoryStorage>) -> [u8; 4] {
    let disk = open(store.clone(), Access::Read);
    [0, 1, 2, 3].map(|number| {
        let mut byte = [0];
        disk.read(GuestOffset(number * GRAIN), &mut byte).expect("a read");
        byte[0]
    })
}

#[test]
fn a_sound_image_is_clean_and_its_grains_are_counted() {
    let (report, lines) = check(image(), Repair::Nothing);
    assert!(report.is_clean() && lines.is_empty(), "{lines:?}");
    assert_eq!((report.total_clusters, report.allocated_clusters), (Some(15), Some(4)));
    assert_eq!(report.image_end, Some(HostOffset(GRAINS + 4 * GRAIN)));
}

/// One kind of damage, what is said of it, and the grains after it was mended.
struct Case {
    damage: fn(&MemoryStorage),
    found: &'static [&'static str],
    /// What is left after everything was mended.
    grains: [u8; 4],
}

#[test]
fn every_kind_of_damage_is_found_at_its_place_and_mended() {
    let cases = [
        Case {
            damage: |store| put(store, TABLE + 4, 0xFF00),
            found: &[
                "table-entry at 0x1604: vmdk: grain table entry at 0x1604 is 0xff00, expected a \
                 sector from 0x10 to the end at 0x280",
                "copies-differ at 0xc00: 1 entries differ from those of the first table at 0x1600",
            ],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| {
                put(store, TABLE + 4, 0xFF00);
                put(store, SECOND_TABLE + 4, 3);
            },
            found: &[
                "table-entry at 0x1604: vmdk: grain table entry at 0x1604 is 0xff00, expected a \
                 sector from 0x10 to the end at 0x280",
                "copies-differ at 0xc00: 1 entries differ from those of the first table at 0x1600",
            ],
            grains: [1, 0, 3, 4],
        },
        Case {
            damage: |store| {
                put(store, TABLE + 8, 0x100);
                put(store, SECOND_TABLE + 8, 0x100);
            },
            found: &[
                "grain-used-twice at 0x1608: the grain at 0x20000 shares 0x20000 with another \
                      grain or with metadata",
            ],
            grains: [1, 2, 2, 4],
        },
        Case {
            damage: |store| put(store, DIRECTORY, 0x7000_0000),
            found: &["directory-entry at 0x1400: vmdk: grain directory entry at 0x1400 is \
                      0x70000000, expected a table before the end of the file at 0x280"],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| {
                put(store, DIRECTORY, 0x7000_0000);
                put(store, SECOND_DIRECTORY, 0x7000_0000);
            },
            found: &["directory-entry at 0x1400: vmdk: grain directory entry at 0x1400 is \
                      0x70000000, expected a table before the end of the file at 0x280"],
            grains: [0; 4],
        },
        Case {
            damage: |store| put(store, 56, 0xFF_FFFF),
            found: &["directory-lost at 0x38: the first grain directory is not in the file"],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| put(store, 48, 0xFF_FFFF),
            found: &["directory-lost at 0x38: the second grain directory is not in the file"],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| put(store, SECOND_TABLE, 0),
            found: &[
                "copies-differ at 0xc00: 1 entries differ from those of the first table at 0x1600",
            ],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| {
                put(store, TABLE + 15 * 4, 0x80);
                put(store, SECOND_TABLE + 15 * 4, 0x80);
            },
            found: &["entry-behind-end at 0x163c: the entry 0x80 is for a grain behind the end"],
            grains: [1, 2, 3, 4],
        },
        Case {
            damage: |store| store.write_at(HostOffset(72), &[1]).expect("a write to memory"),
            found: &["unclean at 0x48: the extent was not closed by its last writer"],
            grains: [1, 2, 3, 4],
        },
    ];
    for case in cases {
        let store = image();
        (case.damage)(&store);
        let before = store.to_vec();
        let (_, lines) = check(store.clone(), Repair::Nothing);
        let lines: Vec<_> = lines.iter().filter(|line| !is_space(line)).collect();
        assert_eq!(lines, case.found);
        assert_eq!(store.to_vec(), before, "a check wrote something");
        let (report, lines) = check(store.clone(), Repair::All);
        assert!(report.is_clean(), "{lines:?}");
        let lines = lines.iter().filter(|line| !is_space(line));
        assert!(lines.clone().all(|line| line.contains("(mended)")), "{lines:?}");
        assert_eq!(grains(&store), case.grains, "{}", case.found[0]);
        assert!(
            store.to_vec().len() >= before.len(),
            "{}: something was given back",
            case.found[0]
        );
        check(store.clone(), Repair::Leaks);
        assert_eq!(grains(&store), case.grains, "{}", case.found[0]);
        let (report, lines) = check(store.clone(), Repair::Nothing);
        let is_mended = report.is_clean() && lines.iter().all(|line| is_space(line));
        assert!(is_mended, "after {:?}: {lines:?}", case.found);
    }
}

/// Whether a line of findings tells of space without a name.
fn is_space(line: &str) -> bool {
    line.starts_with("leak") || line.starts_with("unnamed")
}

/// The first directory or a table is zeroed, the second copies are whole: a repair once cut all the data
/// off, told as leaks without harm.
#[test]
fn what_the_second_copies_name_is_no_leak_and_comes_back() {
    type Damage = fn(&MemoryStorage);
    let damages: [(Damage, &str); 4] = [
        (|store| put(store, DIRECTORY, 0), "directory-entry at 0x1400"),
        (|store| put(store, DIRECTORY, 1), "directory-entry at 0x1400"),
        (
            |store| store.write_at(HostOffset(TABLE), &[0; 512]).expect("memory"),
            "table-entry at 0x1600",
        ),
        (
            |store| store.write_at(HostOffset(TABLE), &[0xEE; 512]).expect("memory"),
            "table-entry at 0x1600",
        ),
    ];
    for (damage, expected) in damages {
        let store = image();
        let len = store.len().expect("memory");
        damage(&store);
        for repair in [Repair::Nothing, Repair::Leaks] {
            let (report, lines) = check(store.clone(), repair);
            assert!(lines.iter().any(|line| line.starts_with(expected)), "{lines:?}");
            assert!(report.corruptions > 0 && report.leaks == 0, "{expected}: {report:?}");
            assert_eq!(store.len().expect("memory"), len, "{expected}");
        }
        assert!(check(store.clone(), Repair::All).0.is_clean());
        assert_eq!(grains(&store), [1, 2, 3, 4], "{expected}");
        assert!(store.len().expect("memory") >= len, "{expected}");
        let (report, lines) = check(store.clone(), Repair::Leaks);
        assert!(report.is_clean(), "{expected}: {lines:?}");
        assert_eq!(grains(&store), [1, 2, 3, 4], "{expected}");
    }
}

/// A disk reads as before through whichever copy is good, and is not written before it is repaired.
#[test]
fn what_only_the_second_copies_name_is_read_and_not_written_over() {
    let damages: [fn(&MemoryStorage); 6] = [
        |store| put(store, DIRECTORY, 0),
        |store| put(store, TABLE, 0),
        |store| store.write_at(HostOffset(TABLE), &[0; 512]).expect("memory"),
        |store| store.write_at(HostOffset(TABLE), &[0xEE; 512]).expect("memory"),
        |store| store.write_at(HostOffset(56), &[0; 8]).expect("memory"),
        |store| store.write_at(HostOffset(56), &(1_u64 << 40).to_le_bytes()).expect("memory"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let store = image();
        damage(&store);
        assert_eq!(grains(&store), [1, 2, 3, 4], "{number}");
        // Where a table is zeroed, its entries are taken when it is opened for writing.
        let (location, limits, writable, access) = request(store.clone(), Access::ReadWrite);
        let request = OpenRequest { access, ..OpenRequest::new(writable, &location, &limits) };
        match VMDK.open(request) {
            Err(_) => assert!(!(1..=2).contains(&number), "{number}"),
            Ok(opened) => {
                let disk = Disk::new(opened.image);
                disk.write(GuestOffset(6 * GRAIN), &[7; 512]).expect("a write");
                disk.flush().expect("a flush");
            }
        }
        assert_eq!(grains(&store), [1, 2, 3, 4], "{number}");
        assert!(check(store.clone(), Repair::All).0.is_clean(), "{number}");
        assert_eq!(grains(&store), [1, 2, 3, 4], "{number}");
        drop(open(store, Access::ReadWrite));
    }
}

/// A crash between the writes of the two tables leaves an entry in one of them.
#[test]
fn what_a_crash_left_in_the_second_table_alone_is_there_for_reading_and_writing() {
    let store = image();
    put(&store, TABLE + 12, 0);
    store.write_at(HostOffset(72), &[1]).expect("memory");
    assert_eq!(grains(&store), [1, 2, 3, 4]);
    assert!(check(store.clone(), Repair::Nothing).0.is_clean());
    let disk = open(store.clone(), Access::ReadWrite);
    disk.write(GuestOffset(5 * GRAIN), &[6; 65536]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    assert_eq!(grains(&store), [1, 2, 3, 4]);
    drop(open(store.clone(), Access::ReadWrite));
    let (_, lines) = check(store, Repair::Nothing);
    assert!(lines.iter().all(|line| line.starts_with("unclean")), "{lines:?}");
}

/// Grains in a row were once all lost if the last of them was.
#[test]
fn of_a_file_that_was_cut_everything_before_the_cut_is_read() {
    let store = image();
    store.set_len(GRAINS + 2 * GRAIN + 100).expect("memory");
    let disk = open(store, Access::Read);
    let mut bytes = vec![0; 2 << 16];
    disk.read(GuestOffset(0), &mut bytes).expect("what is before the cut");
    assert_eq!((bytes[0], bytes[131_071]), (1, 2));
    let mut bytes = [0; 100];
    disk.read(GuestOffset(2 * GRAIN), &mut bytes).expect("what is before the cut");
    assert_eq!(bytes, [3; 100]);
    let error = disk.read(GuestOffset(3 * GRAIN), &mut bytes).expect_err("behind it").to_string();
    assert!(error.contains("grain table entry at 0x160c is 0x200, expected a sector"), "{error}");
}

/// Bytes of the disk, or nothing if it cannot be read.
fn content(store: &Arc<MemoryStorage>) -> Option<Vec<u8>> {
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let opened = VMDK.open(OpenRequest::new(store.clone(), &location, &limits)).ok()?;
    let disk = Disk::new(opened.image);
    let mut bytes = vec![0; usize::try_from(disk.size()).ok()?];
    disk.read(GuestOffset(0), &mut bytes).ok().map(|()| bytes)
}

/// Where the directories and the tables of the first and of the second set are, by sectors.
fn sets(bytes: &[u8]) -> [Vec<usize>; 2] {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        usize::try_from(bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))).expect("32 bits")
    };
    [56, 48].map(|field| {
        let directory = word(field);
        let tables = (0..8).map(|index| word(directory * 512 + index * 4));
        let tables: Vec<_> = tables.take_while(|table| *table != 0).collect();
        std::iter::once(directory)
            .chain(tables.into_iter().flat_map(|table| table..table + 4))
            .collect()
    })
}

/// Whatever happens to a sector of one set: it is told, all is read or the damage is told, a repair of
/// leaks harms nothing, and one of everything brings all of it back.
#[test]
fn damage_to_either_set_of_tables_is_found_and_mended_without_loss() {
    let names = ["monolithicSparse", "hosted-v2-grain16-unclean", "monolithicSparse-zeroed-grain"];
    let mut count = 0;
    for case in cases("vmdk").into_iter().filter(|case| names.contains(&case.name.as_str())) {
        let original = std::fs::read(&case.unpack().path).expect("it was unpacked");
        let before = content(&Arc::new(MemoryStorage::new(original.clone()))).expect("it is good");
        for (set, sectors) in sets(&original).into_iter().enumerate() {
            for sector in sectors {
                for damage in 0..3 {
                    let mut bytes = original.clone();
                    let place = &mut bytes[sector * 512..(sector + 1) * 512];
                    match damage {
                        0 => place.fill(0),
                        1 => place.fill(0xEE),
                        _ => place[0] ^= 0x40,
                    }
                    if bytes == original {
                        continue;
                    }
                    count += 1;
                    let what = format!("{case}: set {set}, sector {sector}, damage {damage}");
                    let store = Arc::new(MemoryStorage::new(bytes));
                    let (report, lines) = check(store.clone(), Repair::Nothing);
                    assert!(!lines.is_empty(), "{what}");
                    // Entries behind the end of the disk mean nothing, and in an extent that was not
                    // closed a crash may have been it.
                    let is_note = case.name.contains("unclean")
                        || lines.iter().any(|line| line.starts_with("entry-behind-end"));
                    assert!(set == 1 || is_note || !report.is_clean(), "{what}: {lines:?}");
                    let read = content(&store);
                    assert!(damage == 2 || read.as_ref() == Some(&before), "{what}");
                    let len = store.len().expect("memory");
                    check(store.clone(), Repair::Leaks);
                    assert!(
                        content(&store) == read && store.len().expect("memory") == len,
                        "{what}"
                    );
                    let (report, lines) = check(store.clone(), Repair::All);
                    assert!(report.corruptions == 0, "{what}: {lines:?}");
                    assert!(content(&store).as_ref() == Some(&before), "{what}: {lines:?}");
                    check(store.clone(), Repair::All);
                    assert!(content(&store).as_ref() == Some(&before), "{what}");
                    assert!(check(store, Repair::Nothing).0.is_clean(), "{what}");
                }
            }
        }
    }
    assert!(count > 30, "{count}");
}

/// One bit of what says where the sets are is wrong: a repair that then believes the wrong one, or the
/// header rather than both of them, empties a disk that was whole.
#[test]
fn no_wrong_bit_in_what_names_the_sets_makes_a_repair_lose_a_grain() {
    let whole = image();
    let before = content(&whole).expect("it is good");
    let bytes = whole.to_vec();
    let [first, second] = sets(&bytes).map(|sectors| sectors[0] * 512);
    for place in [48, 56, 64, first, second] {
        for bit in 0..32 {
            let mut bytes = bytes.clone();
            bytes[place + bit / 8] ^= 1 << (bit % 8);
            let store = Arc::new(MemoryStorage::new(bytes));
            let read = content(&store);
            for repair in [Repair::Leaks, Repair::All] {
                let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
                let request = OpenRequest::new(store.clone(), &location, &limits);
                let open = OpenRequest { access: Access::ReadWrite, ..request };
                let request = CheckRequest::new(open).repairing(repair);
                let mut lines = Vec::new();
                let checked = VMDK.check(&request, &mut |found| lines.push(found.text.clone()));
                let after = content(&store);
                let is_kept = after.as_ref() == Some(&before) || after.is_none() && read.is_none();
                assert!(is_kept, "byte {place}, bit {bit}: {checked:?} {lines:?}");
            }
        }
    }
}

/// Each set of tables has a damage of its own; together they say all. Believing one of them as a whole lost
/// what only the other one knew.
#[test]
fn what_either_set_alone_says_of_a_grain_is_kept_by_a_repair() {
    type Damage = fn(&MemoryStorage);
    let damages: [Damage; 4] = [
        |store| {
            put(store, TABLE, 0);
            put(store, TABLE + 4, 0);
            put(store, SECOND_TABLE + 8, 0);
        },
        // The second names more, but one place twice.
        |store| {
            put(store, TABLE, 0);
            put(store, TABLE + 4, 0);
            put(store, SECOND_TABLE + 8, u32::try_from(GRAINS / 512).expect("small"));
        },
        |store| {
            put(store, TABLE, 0xFFFF_0000);
            put(store, SECOND_TABLE + 12, 0xFFFF_0000);
        },
        |store| {
            put(store, TABLE + 4, u32::try_from((GRAINS + GRAIN) / 512 + 16).expect("small"));
            put(store, SECOND_TABLE + 8, u32::try_from(GRAINS / 512).expect("small"));
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let store = image();
        damage(&store);
        let (report, lines) = check(store.clone(), Repair::All);
        assert!(report.is_clean(), "{number}: {lines:?}");
        assert_eq!(grains(&store), [1, 2, 3, 4], "{number}: {lines:?}");
        for repair in [Repair::All, Repair::Leaks] {
            check(store.clone(), repair);
            assert_eq!(grains(&store), [1, 2, 3, 4], "{number}");
        }
    }
}

/// The first table lacks two grains, and the second names one of them twice: where the first has a grain
/// in a place of its own, that is the one. A repair once believed the second as a whole.
#[test]
fn a_good_entry_of_the_first_table_is_not_given_up_for_a_place_that_the_second_names_twice() {
    let place = |number: u64| u32::try_from((GRAINS + number * GRAIN) / 512).expect("small");
    for (twice, lacking) in [(0, [2, 3]), (3, [2, 1]), (1, [3, 2])] {
        let store = image();
        let other = lacking[0];
        lacking.iter().for_each(|number| put(&store, TABLE + 4 * number, 0));
        put(&store, SECOND_TABLE + 4 * twice, place(other));
        assert_eq!(grains(&store), [1, 2, 3, 4], "{twice}");
        let (report, lines) = check(store.clone(), Repair::All);
        assert!(report.is_clean(), "{lines:?}");
        assert_eq!(grains(&store), [1, 2, 3, 4], "{twice}: {lines:?}");
        let (report, lines) = check(store, Repair::Nothing);
        assert!(report.corruptions == 0, "{lines:?}");
    }
}

/// A write elsewhere once gave such a grain to one of the two, and the other read zero without a word.
#[test]
fn what_only_the_second_table_names_and_twice_is_not_written_and_a_repair_keeps_it_for_both() {
    for (low, high) in [(0_usize, 3_usize), (1, 2)] {
        let store = image();
        let place = GRAINS + high as u64 * GRAIN;
        (0..4).for_each(|number| put(&store, TABLE + 4 * number, 0));
        let entry = u32::try_from(place / 512).expect("small");
        put(&store, SECOND_TABLE + 4 * low as u64, entry);
        let mut shown = [1, 2, 3, 4];
        shown[low] = shown[high];
        assert_eq!(grains(&store), shown);
        let before = store.to_vec();
        let (location, limits, writable, access) = request(store.clone(), Access::ReadWrite);
        let request = OpenRequest { access, ..OpenRequest::new(writable, &location, &limits) };
        let error = VMDK.open(request).expect_err("it is not written").to_string();
        assert!(error.contains("another entry names the grain"), "{error}");
        assert!(store.to_vec() == before, "nothing was changed");
        let (_, lines) = check(store.clone(), Repair::All);
        assert!(lines.iter().any(|line| line.starts_with("grain-used-twice")), "{lines:?}");
        assert_eq!(grains(&store), shown, "{lines:?}");
        let disk = open(store.clone(), Access::ReadWrite);
        disk.write(GuestOffset(low as u64 * GRAIN), &[9; 512]).expect("a write");
        disk.flush().expect("a flush");
        let mut after = shown;
        after[low] = 9;
        assert_eq!(grains(&store), after);
        assert!(check(store, Repair::Nothing).0.corruptions == 0);
    }
}

/// What only the second table names is not taken where it cannot be written.
#[test]
fn what_only_the_second_table_names_on_metadata_or_beyond_the_end_keeps_an_image_from_being_written()
 {
    let store = image();
    put(&store, TABLE + 4 * 3, 0);
    store.set_len(GRAINS + 3 * GRAIN + 512).expect("memory");
    let (location, limits, writable, access) = request(store, Access::ReadWrite);
    let request = OpenRequest { access, ..OpenRequest::new(writable, &location, &limits) };
    let error = VMDK.open(request).expect_err("it is not written").to_string();
    assert!(error.contains("the file ends in the grain"), "{error}");
}

/// One wrong bit in the second table is enough for an entry that names the place of another grain.
#[test]
fn a_grain_that_only_the_second_table_names_is_not_shown_if_another_has_it() {
    let store = image();
    put(&store, SECOND_TABLE + 4 * 6, u32::try_from(GRAINS / 512).expect("small"));
    let mut bytes = [9; 512];
    open(store.clone(), Access::Read).read(GuestOffset(6 * GRAIN), &mut bytes).expect("a read");
    assert_eq!(bytes, [0; 512]);
    // One that nobody has is.
    put(&store, TABLE + 8, 0);
    assert_eq!(grains(&store), [1, 2, 3, 4]);
    assert!(check(store.clone(), Repair::All).0.is_clean());
    assert_eq!(grains(&store), [1, 2, 3, 4]);
    open(store, Access::Read).read(GuestOffset(6 * GRAIN), &mut bytes).expect("a read");
    assert_eq!(bytes, [0; 512]);
}

/// What is written to one would be in both.
#[test]
fn an_image_in_which_two_entries_name_one_grain_is_not_written() {
    let store = image();
    let first = u32::try_from(GRAINS / 512).expect("small");
    for table in [TABLE, SECOND_TABLE] {
        put(&store, table + 4, first);
    }
    let (location, limits, file, access) = request(store, Access::ReadWrite);
    let request = OpenRequest { access, ..OpenRequest::new(file, &location, &limits) };
    let error = VMDK.open(request).expect_err("it is damaged").to_string();
    let expected = "the image needs repair: another entry names the grain at 0x10000 too";
    assert!(error.ends_with(expected), "{error}");
}

/// No writer ends a file inside a grain, but for what lies behind the end of the disk.
#[test]
fn a_file_that_ends_in_a_grain_is_damaged_and_its_end_is_not_read_as_zeroes() {
    let store = image();
    let len = store.len().expect("memory");
    store.set_len(len - 20000).expect("memory");
    let (report, lines) = check(store.clone(), Repair::Nothing);
    assert_eq!(report.corruptions, 1);
    let expected = "grain-cut at 0x160c: the file ends in the grain at 0x40000, at 0x4b1e0";
    assert_eq!(lines, [expected]);
    let disk = open(store.clone(), Access::Read);
    let mut bytes = vec![0; 65536 - 20000];
    disk.read(GuestOffset(3 * GRAIN), &mut bytes).expect("what is before the cut");
    let error = disk.read(GuestOffset(4 * GRAIN - 1), &mut [0]).expect_err("lost").to_string();
    assert!(error.contains("grain at 0x4ffff is missing, expected bytes"), "{error}");
    assert!(check(store.clone(), Repair::All).0.is_clean());
    assert_eq!(store.len().expect("memory"), len);
    assert!(check(store.clone(), Repair::Nothing).1.is_empty());
    drop(open(store, Access::ReadWrite));
}

/// A table that is appended behind the end of the file would lie in the grain that the end cuts.
#[test]
fn a_table_is_appended_once_no_grain_is_named_behind_the_end() {
    let store = image();
    let len = store.len().expect("memory");
    store.set_len(len - 20000).expect("memory");
    put(&store, DIRECTORY, 0);
    let (report, lines) = check(store.clone(), Repair::All);
    assert_eq!(report.corruptions, 1, "{lines:?}");
    assert!(lines[0].starts_with("directory-entry at 0x1400: "), "{lines:?}");
    assert!(lines[1].starts_with("grain-cut at 0xc0c (mended): "), "{lines:?}");
    assert_eq!(check(store.clone(), Repair::Nothing).0.corruptions, 1);
    assert!(check(store.clone(), Repair::All).0.is_clean());
    assert!(check(store.clone(), Repair::Nothing).1.is_empty());
    let disk = open(store, Access::Read);
    let mut bytes = vec![0; 65536];
    disk.read(GuestOffset(3 * GRAIN), &mut bytes).expect("it is there");
    assert!(bytes[..65536 - 20000] == [4; 65536 - 20000] && bytes[65536 - 20000..] == [0; 20000]);
}

/// An image as it is made here, whose grains 0 to 3 hold their number plus one.
fn made(size: u64, given: &[(&str, &str)]) -> Arc<MemoryStorage> {
    let store = Arc::new(MemoryStorage::default());
    let (location, limits, file, _) = request(store.clone(), Access::ReadWrite);
    let mut options = Options::of(&VMDK);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let request = CreateRequest::new(file, &location, size, &options, &limits);
    let disk = Disk::new(VMDK.create(request).expect("an image"));
    for number in 0..4_u8 {
        let at = GuestOffset(u64::from(number) * GRAIN);
        disk.write(at, &[number + 1; 65536]).expect("a write");
    }
    disk.flush().expect("a flush");
    store
}

/// One wrong bit in what divides an extent once made all of it unreadable.
#[test]
fn every_wrong_bit_in_grain_size_or_table_size_is_mended_by_what_the_tables_say() {
    for size in [960 << 10, 100 << 20] {
        let whole = made(size, &[]);
        for (field, bits, name) in [(0x14, 64, "grainSize"), (0x2c, 32, "numGTEsPerGT")] {
            for bit in 0..bits {
                let mut bytes = whole.to_vec();
                bytes[field + bit / 8] ^= 1 << (bit % 8);
                let store = Arc::new(MemoryStorage::new(bytes));
                let (report, lines) = check(store.clone(), Repair::Nothing);
                assert_eq!(report.corruptions, 1, "{name}, bit {bit}: {lines:?}");
                assert!(lines[0].starts_with(&format!("header-field at {field:#x}: vmdk: ")));
                assert!(lines[0].contains(name), "{lines:?}");
                let (report, lines) = check(store.clone(), Repair::All);
                assert!(report.is_clean() && lines[0].contains("(mended)"), "{lines:?}");
                assert!(store.to_vec() == whole.to_vec(), "{name}, bit {bit}");
            }
        }
    }
}

/// Of an empty disk nothing tells whether its grains are of 4 or of 128 sectors.
#[test]
fn a_wrong_bit_that_may_have_been_one_of_several_values_is_refused_and_nothing_is_written() {
    let store = Arc::new(MemoryStorage::default());
    let (location, limits, file, access) = request(store.clone(), Access::ReadWrite);
    let options = Options::of(&VMDK);
    let create = CreateRequest::new(file.clone(), &location, 960 << 10, &options, &limits);
    drop(VMDK.create(create).expect("an image"));
    store.write_at(HostOffset(0x14), &[128 | 4]).expect("memory");
    let before = store.to_vec();
    let open = OpenRequest { access, ..OpenRequest::new(file, &location, &limits) };
    let check = CheckRequest::new(open).repairing(Repair::All);
    let error = VMDK.check(&check, &mut |_| {}).expect_err("it is damaged").to_string();
    let expected = "vmdk: grainSize at 0x14 is 132, expected a power of two up to 2097152";
    assert_eq!(error, expected);
    assert_eq!(store.to_vec(), before);
}

/// A header that says less than the descriptor in the same file once made a repair cut off the rest.
#[test]
fn a_header_that_says_less_than_its_descriptor_is_damaged_and_nothing_is_given_back_or_written() {
    let store = image();
    store.write_at(HostOffset(12), &256_u64.to_le_bytes()).expect("memory");
    let before = store.to_vec();
    for repair in [Repair::Nothing, Repair::Leaks, Repair::All, Repair::All] {
        let (report, lines) = check(store.clone(), repair);
        assert!(report.corruptions == 1 && report.leaks + report.leaks_fixed == 0, "{lines:?}");
        let expected =
            "extent-size at 0xc: the header speaks of 131072 bytes, the descriptor of 983040";
        assert_eq!(lines[0], expected);
    }
    assert_eq!(store.to_vec().len(), before.len());
    assert_eq!(store.to_vec()[65536..], before[65536..]);
    let (location, limits, store, access) = request(store, Access::ReadWrite);
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    let error = VMDK.open(request).expect_err("it is damaged").to_string();
    assert!(error.contains("131072 bytes in the header, 983040 in the descriptor"), "{error}");
}

/// Grain 1 is lost in the middle of the file, grain 3 at its end. They hold nothing.
fn with_leaks() -> Arc<MemoryStorage> {
    let store = image();
    for number in [1, 3] {
        store.write_at(HostOffset(GRAINS + number * GRAIN), &[0; 65536]).expect("memory");
    }
    for table in [TABLE, SECOND_TABLE] {
        put(&store, table + 4, 0);
        put(&store, table + 12, 0);
    }
    store
}

#[test]
fn grains_that_no_table_names_are_leaks_and_given_back() {
    let store = with_leaks();
    let (report, lines) = check(store.clone(), Repair::Nothing);
    assert_eq!((report.leaks, report.corruptions), (2, 0));
    assert_eq!(
        lines,
        [
            "leak at 0x20000: 1 grains from here on are named by no table",
            "leak at 0x40000: 1 grains from here on are named by no table",
        ]
    );
    let (report, _) = check(store.clone(), Repair::Leaks);
    assert_eq!((report.leaks, report.leaks_fixed), (0, 2));
    assert_eq!(store.len().expect("memory"), GRAINS + 3 * GRAIN);
    assert_eq!(grains(&store), [1, 0, 3, 0]);
    assert!(check(store, Repair::Nothing).0.is_clean());
}

/// Both tables are wiped, or both directories, or one entry of either: nothing tells it from a disk that
/// was never written, but that there is data.
#[test]
fn grains_with_data_are_kept_whatever_no_table_says_of_them() {
    let damages: [fn(&MemoryStorage); 3] = [
        |store| {
            for table in [TABLE, SECOND_TABLE] {
                store.write_at(HostOffset(table), &[0; 2048]).expect("memory");
            }
        },
        |store| {
            put(store, DIRECTORY, 0);
            put(store, SECOND_DIRECTORY, 0);
        },
        |store| {
            put(store, TABLE + 12, 0);
            put(store, SECOND_TABLE + 12, 0);
        },
    ];
    for damage in damages {
        let store = image();
        damage(&store);
        let before = store.to_vec();
        for repair in [Repair::Leaks, Repair::All, Repair::Leaks] {
            let (report, lines) = check(store.clone(), repair);
            assert_eq!((report.leaks, report.leaks_fixed), (0, 0), "{lines:?}");
            assert!(lines[0].starts_with("unnamed at 0x"), "{lines:?}");
            assert!(lines[0].ends_with(", and hold data: they are kept"), "{lines:?}");
            assert_eq!(store.to_vec(), before);
        }
    }
}

#[test]
fn a_grain_that_was_zeroed_or_discarded_takes_no_space_when_the_image_is_closed() {
    let store = image();
    let disk = open(store.clone(), Access::ReadWrite);
    let range = |number: u64| {
        GuestRange::new(GuestOffset(number * GRAIN), GRAIN).expect("a grain on the disk")
    };
    disk.zero(range(1), true).expect("a zeroing");
    disk.discard(range(2)).expect("a discard");
    disk.flush().expect("a flush");
    drop(disk);
    assert_eq!(grains(&store), [1, 0, 0, 4]);
    let (report, lines) = check(store.clone(), Repair::Nothing);
    assert!(report.is_clean() && lines.is_empty(), "{lines:?}");
    // At the end of the file, it ends before.
    let disk = open(store.clone(), Access::ReadWrite);
    disk.discard(range(3)).expect("a discard");
    disk.flush().expect("a flush");
    assert_eq!(store.len().expect("memory"), GRAINS + 3 * GRAIN);
}

#[test]
fn what_another_damage_may_hide_is_not_given_back_as_a_leak() {
    let store = with_leaks();
    put(&store, TABLE, 0xFF00);
    let (report, _) = check(store.clone(), Repair::Leaks);
    assert_eq!((report.leaks, report.leaks_fixed, report.corruptions), (0, 0, 1));
    let (report, _) = check(store.clone(), Repair::All);
    assert!(report.is_clean() && report.leaks_fixed == 0);
    // Now that nothing is damaged any more.
    let (report, _) = check(store, Repair::All);
    assert_eq!((report.leaks_fixed, report.corruptions_fixed), (2, 0));
}

#[test]
fn after_any_crash_of_a_repair_every_grain_is_as_before_or_mended() {
    let damages: [fn(&MemoryStorage); 3] = [
        |store| {
            put(store, TABLE + 8, 0x100);
            put(store, SECOND_TABLE + 8, 0x100);
        },
        |store| put(store, DIRECTORY, 0x7000_0000),
        |store| put(store, 56, 0xFF_FFFF),
    ];
    for damage in damages {
        let store = image();
        damage(&store);
        let before = grains(&store);
        let crash = CrashStorage::over(store.to_vec());
        assert!(check(Arc::new(crash.clone()), Repair::All).0.is_clean());
        for state in crash.torn_states(500, 3) {
            assert_eq!(grains(&state.storage()), before, "{state}");
            assert!(check(state.storage(), Repair::All).0.is_clean(), "{state}");
            assert_eq!(grains(&state.storage()), before, "{state}");
        }
    }
}

/// Opening for writing gives the first table what only the second one has.
#[test]
fn after_any_crash_while_the_second_tables_entries_are_taken_everything_is_there() {
    let store = image();
    put(&store, TABLE, 0);
    put(&store, TABLE + 12, 0);
    let crash = CrashStorage::over(store.to_vec());
    let disk = open(Arc::new(crash.clone()), Access::ReadWrite);
    disk.write(GuestOffset(7 * GRAIN), &[8; 512]).expect("a write");
    disk.flush().expect("a flush");
    for state in crash.torn_states(500, 1) {
        assert_eq!(grains(&state.storage()), [1, 2, 3, 4], "{state}");
        drop(open(state.storage(), Access::ReadWrite));
        assert_eq!(grains(&state.storage()), [1, 2, 3, 4], "{state}");
    }
}

#[test]
fn a_check_can_be_cancelled_and_tells_how_far_it_is() {
    let (location, limits, store, _) = request(image(), Access::Read);
    let open = OpenRequest::new(store, &location, &limits);
    let mut request = CheckRequest::new(open);
    let seen = std::sync::Mutex::new(Vec::new());
    let stop = |done, all| {
        seen.lock().expect("one thread").push((done, all));
        false
    };
    request.progress = Some(&stop);
    let error = VMDK.check(&request, &mut |_| {}).expect_err("cancelled").to_string();
    assert_eq!(error, "cancelled");
    assert_eq!(*seen.lock().expect("one thread"), [(2048, 2048)]);
}

/// A reader of the same store must not see a repair half done.
#[test]
fn a_repaired_image_can_be_written_again() {
    let store = image();
    put(&store, TABLE + 8, 0x100);
    put(&store, SECOND_TABLE + 8, 0x100);
    check(store.clone(), Repair::All);
    let disk = open(store.clone(), Access::ReadWrite);
    disk.write(GuestOffset(2 * GRAIN), &[9; 65536]).expect("a write");
    disk.flush().expect("a flush");
    assert_eq!(grains(&store), [1, 2, 9, 4]);
    let mut sector = [0; 512];
    store.read_exact_at(HostOffset(0x20000), &mut sector).expect("a read");
    assert_eq!(sector, [2; 512]);
    assert!(check(store, Repair::Leaks).0.is_clean());
}

/// In a redo log of ESX the mark is a word.
#[test]
fn a_redo_log_that_was_not_closed_is_clean_after_a_repair_whatever_marks_it() {
    let case = cases("vmdk").into_iter().find(|case| case.name == "vmfsSparse-grain8").expect("it");
    let folder = case.in_memory();
    let log = case.files.iter().find(|file| file.name != case.open).expect("a redo log");
    let log = folder.file(&log.name).expect("it was put there");
    log.write_at(HostOffset(1648), &[0, 0, 1, 0]).expect("memory");
    let marks = |repair: Repair| {
        let store = folder.file(&case.open).expect("it was put there");
        let (location, limits, store, access) = request(store, Access::ReadWrite);
        let open = OpenRequest::new(store, &location, &limits);
        let open = OpenRequest { access, resolver: &folder, ..open };
        let mut kinds = Vec::new();
        let request = CheckRequest::new(open).repairing(repair);
        VMDK.check(&request, &mut |finding| kinds.push(finding.kind)).expect("a check");
        kinds.into_iter().filter(|kind| *kind == "unclean").count()
    };
    let found = [Repair::Nothing, Repair::All, Repair::Nothing].map(marks);
    assert_eq!(found, [1, 1, 0]);
}

#[test]
fn a_descriptor_that_is_gone_is_told() {
    let store = made(960 << 10, &[]);
    store.write_at(HostOffset(512), &[0; 20 * 512]).expect("memory");
    let before = store.to_vec();
    let (report, lines) = check(store.clone(), Repair::All);
    assert_eq!(report.corruptions, 1);
    assert!(lines[0].starts_with("descriptor-lost at 0x200: there is nothing"), "{lines:?}");
    // It can be salvaged, and so can one with a wrong bit in its header.
    store.write_at(HostOffset(0x14), &[128 | 4]).expect("memory");
    let damaged = store.to_vec();
    let (location, limits, file, _) = request(store.clone(), Access::Read);
    let resolver = BearingLoss(&NoReferences);
    let open = OpenRequest { resolver: &resolver, ..OpenRequest::new(file, &location, &limits) };
    let opened = VMDK.open(open).expect("it opens");
    assert_eq!(opened.warnings.len(), 2, "{:?}", opened.warnings);
    let disk = Disk::new(opened.image);
    for number in 0..4 {
        let mut byte = [0];
        disk.read(GuestOffset(number * GRAIN), &mut byte).expect("a read");
        assert_eq!(u64::from(byte[0]), number + 1);
    }
    assert_eq!(store.to_vec(), damaged);
    assert_eq!(damaged.len(), before.len());
}

/// Two entries of the first directory name one table: what the second says is read, and told.
#[test]
fn a_directory_that_names_one_table_twice_is_passed_over_for_one_that_does_not() {
    const WIDE: ByHand =
        ByHand { sectors: 3 * 65536, grain: 128, zeroed_grain: false, parent: None };
    let store = Arc::new(MemoryStorage::new(WIDE.bytes()));
    let disk = open(store.clone(), Access::ReadWrite);
    for number in 0..3_u8 {
        disk.write(GuestOffset(u64::from(number) << 25), &[number + 1; 65536]).expect("a write");
    }
    disk.flush().expect("a flush");
    let bytes = store.to_vec();
    let [first, second] = sets(&bytes).map(|sectors| sectors[0] as u64 * 512);
    let firsts = |store: &Arc<MemoryStorage>| {
        let disk = open(store.clone(), Access::Read);
        [0, 1, 2].map(|number: u64| {
            let mut byte = [0];
            disk.read(GuestOffset(number << 25), &mut byte).expect("a read");
            byte[0]
        })
    };
    assert_eq!(firsts(&store), [1, 2, 3]);
    let mut entry = [0; 4];
    store.read_at(HostOffset(first), &mut entry).expect("memory");
    let table = u32::from_le_bytes(entry);
    for wrong in [table, table + 1] {
        let store = Arc::new(MemoryStorage::new(bytes.clone()));
        put(&store, first + 4, wrong);
        assert_eq!(firsts(&store), [1, 2, 3], "{wrong}");
        let (location, limits, read, access) = request(store.clone(), Access::Read);
        let opened =
            VMDK.open(OpenRequest { access, ..OpenRequest::new(read, &location, &limits) });
        let warnings = opened.expect("it opens").warnings;
        assert!(warnings[0].contains("names one place for several tables"), "{warnings:?}");
        let (location, limits, written, access) = request(store.clone(), Access::ReadWrite);
        let request = OpenRequest { access, ..OpenRequest::new(written, &location, &limits) };
        VMDK.open(request).expect_err("it is not written");
        assert!(check(store.clone(), Repair::Nothing).0.corruptions > 0);
        assert!(check(store.clone(), Repair::All).0.is_clean());
        assert_eq!(firsts(&store), [1, 2, 3], "{wrong}");
    }
    // Both are wrong: nobody knows.
    put(&store, first + 4, table);
    put(&store, second + 4, table);
    assert_eq!(firsts(&store), [1, 1, 3]);
}

/// The descriptor in the same file has the right size: the header is in doubt, and no entry is given up.
#[test]
fn where_the_header_has_fewer_bytes_than_the_descriptor_entries_behind_its_end_stay() {
    let store = image();
    let tables = |store: &MemoryStorage| store.to_vec()[..65_536].to_vec();
    store.write_at(HostOffset(12), &256_u64.to_le_bytes()).expect("memory");
    let before = tables(&store);
    let (report, lines) = check(store.clone(), Repair::All);
    assert!(report.corruptions > 0, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("entry-behind-end")), "{lines:?}");
    assert!(tables(&store) == before, "{lines:?}");
}

/// Values of the header that can be, but that nothing else fits.
#[test]
fn a_wrong_power_of_two_in_the_header_is_told_by_all_else_and_mended() {
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let options = Options::of(&VMDK);
    let made = || {
        let store = Arc::new(MemoryStorage::default());
        let request = CreateRequest::new(store.clone(), &location, 20 << 20, &options, &limits);
        let disk = Disk::new(VMDK.create(request).expect("an image"));
        for number in 0..4_u8 {
            disk.write(GuestOffset(u64::from(number) * GRAIN), &[number + 1; 65536])
                .expect("a write");
        }
        disk.flush().expect("a flush");
        store
    };
    for (at, values) in [(20, &[1_u32, 16, 64, 256, 1024][..]), (44, &[1, 64, 128, 256])] {
        for value in values {
            let store = made();
            put(&store, at, *value);
            let (report, lines) = check(store.clone(), Repair::Nothing);
            assert_eq!(report.corruptions, 1, "{at}: {value}: {lines:?}");
            let expected = format!("header-field at 0x{at:x}: ");
            assert!(lines[0].starts_with(&expected), "{at}: {value}: {lines:?}");
            assert!(check(store.clone(), Repair::All).0.is_clean(), "{at}: {value}");
            assert_eq!(grains(&store), [1, 2, 3, 4], "{at}: {value}");
        }
    }
    // A sound one is not doubted.
    let (_, lines) = check(made(), Repair::Nothing);
    assert!(lines.is_empty(), "{lines:?}");
}

/// It shows what it did: the image above still fits.
#[test]
fn an_image_that_is_emptied_keeps_its_content_id_and_the_next_write_renews_it() {
    let delta = ByHand { parent: Some(7), ..IMAGE };
    let store = Arc::new(MemoryStorage::new(delta.bytes()));
    let disk = open(store.clone(), Access::ReadWrite);
    disk.write(GuestOffset(0), &[1; 65536]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let number = |store: &Arc<MemoryStorage>| {
        open(store.clone(), Access::Read).top().info().content_id.expect("a number")
    };
    let before = number(&store);
    let disk = open(store.clone(), Access::ReadWrite);
    disk.top().backing_link().expect("it can").make_empty().expect("it is emptied");
    assert_eq!(number(&store), before);
    disk.write(GuestOffset(0), &[2; 512]).expect("a write");
    disk.flush().expect("a flush");
    assert_ne!(number(&store), before);
}
