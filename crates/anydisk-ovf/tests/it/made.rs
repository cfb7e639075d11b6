//! Packages made by hand: what no golden one has.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anydisk_core::{HostOffset, Limits, Located, Location, Members, Result, Storage, StorageExt};
use anydisk_ovf::{Package, Scratch};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::{Random, digest};
use flate2::Compression;
use flate2::write::GzEncoder;

fn located(name: &str, bytes: &[u8]) -> Located {
    let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
    Located { store, location: Location::Other(name.to_owned()) }
}

fn descriptor([references, disks]: [&str; 2]) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\">\
         <References>{references}</References><DiskSection>{disks}</DiskSection></Envelope>"
    )
}

/// A package in a folder: these elements, these files, and whatever else lies there.
fn folder(elements: [&str; 2], files: &[(&str, Vec<u8>)], limits: &Limits) -> Result<Package> {
    let descriptor = descriptor(elements);
    let others: Vec<_> = files.iter().map(|(name, bytes)| located(name, bytes)).collect();
    Package::open_folder(&located("box.ovf", descriptor.as_bytes()), &others, limits)
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("it packs");
    encoder.finish().expect("it packs")
}

fn bytes_of(store: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_exact_at(HostOffset::ZERO, &mut bytes).expect("it reads");
    bytes
}

/// Two mebibytes that do not pack well, with zeroes at the end.
fn content() -> Vec<u8> {
    let mut random = Random::new(7);
    let mut bytes: Vec<u8> =
        (0..1 << 20).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    bytes.resize(2 << 20, 0);
    bytes
}

const DISK: &str = "<Disk diskId=\"d\" fileRef=\"f\" capacity=\"2097152\"/>";

/// Room in memory, counted.
#[derive(Debug, Default)]
struct Rooms(AtomicUsize);

impl Scratch for Rooms {
    fn make(&self) -> Result<Arc<dyn Storage>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(MemoryStorage::default()))
    }
}

#[test]
fn a_packed_disk_larger_than_memory_is_unpacked_once_into_room_of_the_callers() {
    let file = "<File id=\"f\" href=\"disk.gz\" compression=\"gzip\"/>";
    let files = [("disk.gz", packed(&content()))];
    let mut limits = Limits::default();
    limits.unit = 1 << 20;
    let small = folder([file, DISK], &files, &limits).unwrap();
    let error = Members::open(&small, "disk.gz").unwrap_err().to_string();
    assert!(error.contains("more than the limit of 1048576"), "{error}");
    let rooms = Arc::new(Rooms::default());
    let roomy = small.with_scratch(Arc::clone(&rooms) as Arc<dyn Scratch>);
    for _ in 0..2 {
        assert!(bytes_of(&*Members::open(&roomy, "disk.gz").unwrap()) == content());
    }
    assert_eq!(rooms.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_packed_disk_that_unpacks_to_more_than_its_capacity_is_refused() {
    let file = "<File id=\"f\" href=\"disk.gz\" compression=\"gzip\"/>";
    let files = [("disk.gz", packed(&vec![0; 64 << 20]))];
    let mut limits = Limits::default();
    limits.unit = 1 << 20;
    let package = folder([file, DISK], &files, &limits).unwrap();
    let package = package.with_scratch(Arc::new(Rooms::default()));
    let error = Members::open(&package, "disk.gz").unwrap_err().to_string();
    // The capacity, a tenth and a mebibyte.
    assert!(error.contains("more than the limit of 3355443"), "{error}");
    // A file that is no disk's has no capacity.
    let other = folder([file, ""], &files, &limits).unwrap();
    let other = other.with_scratch(Arc::new(Rooms::default()));
    let error = Members::open(&other, "disk.gz").unwrap_err().to_string();
    assert!(error.contains("more than the limit of 1048576"), "{error}");
}

#[test]
fn a_disk_that_was_packed_and_then_cut_is_read_and_each_piece_is_verified() {
    let all = packed(&content());
    let chunk = all.len() / 3 - 1;
    let pieces: Vec<_> = all.chunks(chunk).collect();
    assert!(pieces.len() > 3);
    let file = format!(
        "<File id=\"f\" href=\"disk.gz\" compression=\"gzip\" chunkSize=\"{chunk}\" size=\"{}\"/>",
        all.len()
    );
    let names: Vec<_> = (0..pieces.len()).map(|number| format!("disk.gz.{number:09}")).collect();
    let named = names.iter().map(String::as_str).zip(pieces);
    let mut files: Vec<_> = named.map(|(name, bytes)| (name, bytes.to_vec())).collect();
    let open = |files: &[(&str, Vec<u8>)]| folder([&file, DISK], files, &Limits::default());
    let package = open(&files).unwrap();
    assert!(bytes_of(&*Members::open(&package, "disk.gz").unwrap()) == content());
    // The manifest has the pieces by their names.
    let own = descriptor([&file, DISK]).into_bytes();
    let mut manifest = String::new();
    for (name, bytes) in files.iter().chain([&("box.ovf", own)]) {
        let _ = writeln!(manifest, "SHA256({name})= {}", digest::of_bytes(bytes));
    }
    files.push(("box.mf", manifest.into_bytes()));
    let package = open(&files).unwrap();
    Members::open(&package, "disk.gz").unwrap();
    files[1].1[5] ^= 1;
    let error = Members::open(&open(&files).unwrap(), "disk.gz").unwrap_err().to_string();
    assert!(error.contains("digest of disk.gz.000000001"), "{error}");
}

#[test]
fn a_certificate_is_told_by_its_name() {
    let package = folder(["", ""], &[("box.cert", b"x".to_vec())], &Limits::default()).unwrap();
    assert_eq!((package.certificate(), package.has_manifest()), (Some("box.cert"), false));
    let other = folder(["", ""], &[("other.cert", b"x".to_vec())], &Limits::default()).unwrap();
    assert_eq!(other.certificate(), None);
}

#[test]
fn a_disk_that_changes_another_is_told_and_is_no_empty_one() {
    let disks = "<Disk diskId=\"base\" capacity=\"512\"/>\
                 <Disk diskId=\"same\" parentRef=\"base\" capacity=\"512\"/>";
    let package = folder(["", disks], &[], &Limits::default()).unwrap();
    let [base, same] = package.disks() else { panic!("two disks") };
    assert!(base.is_empty() && !same.is_empty());
    assert_eq!(package.members()[1].note.as_deref(), Some("changes disk base"));
    assert!(Members::open(&package, "base").is_ok() && Members::open(&package, "same").is_err());
}
