//! Which directory counts, sectors that were never written, states that are not known.

use std::sync::Arc;

use anydisk_asif::{ASIF, AsifImage};
use anydisk_core::{Disk, Format, GuestOffset, Limits, Location, OpenRequest};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;

const MIB: usize = 1 << 20;

fn golden(name: &str) -> Vec<u8> {
    let case = cases("asif").into_iter().find(|case| case.name == name).expect("is there");
    std::fs::read(case.unpack().path).expect("a file")
}

fn sector(bytes: &[u8], at: u64) -> Result<Vec<u8>, String> {
    let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
    let image = AsifImage::open(store, &Limits::strict()).map_err(|error| error.to_string())?;
    let mut sector = vec![7; 512];
    let read = Disk::new(Arc::new(image)).read(GuestOffset(at), &mut sector);
    read.map_err(|error| error.to_string()).map(|()| sector)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn set(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Where the table is that the live directory names first, and that directory.
fn table(bytes: &[u8]) -> (usize, usize) {
    let directories = [16, 24].map(|at| usize::try_from(word(bytes, at)).expect("small"));
    let live = directories.into_iter().max_by_key(|at| word(bytes, *at)).expect("two");
    (usize::try_from(word(bytes, live + 8)).expect("small") * MIB, live)
}

#[test]
fn the_directory_of_the_higher_version_counts() {
    let mut bytes = golden("synthetic-full");
    let (_, live) = table(&bytes);
    let first = sector(&bytes, 0).expect("it reads");
    assert_ne!(first, [0; 512]);
    set(&mut bytes, live, 0);
    assert_ne!(sector(&bytes, 0), Ok(first), "the other one leads elsewhere");
}

#[test]
fn states_that_are_not_known_are_refused() {
    let good = golden("synthetic-partial");
    let (table, _) = table(&good);
    let refusal = |value: u64| {
        let mut bytes = good.clone();
        set(&mut bytes, table, value);
        sector(&bytes, 0).unwrap_err()
    };
    let expected = "expected a state that is known, and a chunk in the file";
    for value in [5, 2 << 62 | 3, 1 << 62 | 1 << 55 | 3, 1 << 62 | 7, 1 << 62] {
        let error = refusal(value);
        assert_eq!(
            error,
            format!("asif: entry of a chunk at {table:#x} is {value:#x}, {expected}")
        );
    }
}

#[test]
fn a_sector_of_a_state_that_is_not_known_is_refused_and_its_neighbours_are_read() {
    let mut bytes = golden("synthetic-partial");
    let (table, _) = table(&bytes);
    let bitmap = usize::try_from(word(&bytes, table + 2048 * 8)).expect("small") * MIB;
    // The fourth chunk of the disk is partly there: its first sector is number 6144 of the group.
    bytes[bitmap + 6144 / 4] = 0b11_00_01_00;
    assert_eq!(sector(&bytes, 3 << 20), Ok(vec![0; 512]));
    assert_ne!(sector(&bytes, (3 << 20) + 512), Ok(vec![0; 512]));
    let error = sector(&bytes, (3 << 20) + 3 * 512).unwrap_err();
    assert!(
        error.contains("state of a sector") && error.ends_with("is 0x3, expected 0 or 1"),
        "{error}"
    );
}

#[test]
fn everybody_is_told_that_the_format_was_never_described() {
    let (location, limits) = (Location::Other("disk".into()), Limits::default());
    let store = Arc::new(MemoryStorage::new(golden("synthetic-full")));
    let opened = ASIF.open(OpenRequest::new(store, &location, &limits)).expect("it opens");
    assert_eq!(opened.warnings.len(), 1);
}
