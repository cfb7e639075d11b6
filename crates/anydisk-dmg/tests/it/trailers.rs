//! Trailers where not everybody looks for them, and images that are refused by name.

use std::sync::Arc;

use anydisk_core::{Disk, Format, GuestOffset, Limits, Location, OpenRequest, Sample, Verdict};
use anydisk_dmg::{DMG, DmgImage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;

fn golden(name: &str) -> Vec<u8> {
    let case = cases("dmg").into_iter().find(|case| case.name == name).expect("is there");
    std::fs::read(case.unpack().path).expect("a file")
}

fn open(bytes: Vec<u8>) -> anydisk_core::Result<Disk> {
    let (location, limits) = (Location::Other("disk.dmg".into()), Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes));
    let image = DmgImage::open(&OpenRequest::new(store, &location, &limits))?;
    Ok(Disk::new(Arc::new(image)))
}

fn contents(bytes: Vec<u8>) -> Vec<u8> {
    let disk = open(bytes).expect("it opens");
    let mut all = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut all).expect("it reads");
    all
}

/// Adds to a number of the trailer.
fn add(trailer: &mut [u8], at: usize, more: u64) {
    let word = u64::from_be_bytes(trailer[at..at + 8].try_into().expect("8 bytes"));
    trailer[at..at + 8].copy_from_slice(&(word + more).to_be_bytes());
}

#[test]
fn a_file_that_was_filled_up_to_a_sector_has_its_trailer_found() {
    let plain = golden("udzo-zlib");
    for more in [1, 300, 511] {
        let filled = [&plain[..], &vec![0; more]].concat();
        let tail = &filled[filled.len() - 4096..];
        let sample = Sample { head: &filled, tail, len: filled.len() as u64 };
        assert_eq!(DMG.probe(&sample), Verdict::AtEnd, "{more}");
        assert!(contents(filled) == contents(plain.clone()), "{more}");
    }
    let farther = open([&plain[..], &[0; 512]].concat()).unwrap_err().to_string();
    assert_eq!(farther, "dmg: signature at 0x1ca2 is \"\\x00\\x00\\x00\\x00\", expected \"koly\"");
}

#[test]
fn a_trailer_at_the_start_counts_where_there_is_none_at_the_end() {
    let plain = golden("udzo-zlib");
    let (rest, trailer) = plain.split_at(plain.len() - 512);
    let mut trailer = trailer.to_vec();
    add(&mut trailer, 24, 512);
    add(&mut trailer, 216, 512);
    assert!(contents([&trailer[..], rest, &[0; 2000]].concat()) == contents(plain));
}

#[test]
fn images_encrypted_by_version_1_are_refused_by_name() {
    let refused = open([&[0; 5000][..], b"cdsaencr"].concat()).unwrap_err().to_string();
    assert_eq!(refused, "dmg: encryption of version 1 is not supported");
}

#[test]
fn the_property_list_counts_where_there_is_a_resource_fork_too() {
    let mut both = golden("udzo-zlib");
    let trailer = both.len() - 512;
    // A fork of four bytes, which holds nothing.
    both[trailer + 55] = 4;
    assert!(contents(both) == contents(golden("udzo-zlib")));
}
