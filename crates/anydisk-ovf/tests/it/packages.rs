//! Golden packages and those of the corpus: what is in them, and what the disks hold.

use std::path::Path;
use std::sync::Arc;

use anydisk_core::{
    Access, Disk, Limits, Located, Location, Members, NoReferences, Opener, Registry, Result,
};
use anydisk_ovf::{Package, PackageDisk};
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::corpus::{Expect, Row, rows};
use anydisk_testkit::digest::{Reading, content_sha256};
use anydisk_testkit::golden::{Case, OpenVerdict, cases};
use anydisk_vmdk::VMDK;

fn located(path: &Path) -> Located {
    let store = FileStorage::open(path, &OpenOptions::new()).expect("the file opens");
    Located { store: Arc::new(store), location: Location::Path(path.to_owned()) }
}

fn package(path: &Path) -> Result<Package> {
    Package::open_ova(located(path).store, &Limits::default())
}

/// The disk, opened as the image that its member holds.
fn open(package: &Package, disk: &PackageDisk) -> Result<Disk> {
    let registry = Registry::new(&[&VMDK]);
    let file = disk.file.as_deref().expect("a disk with content");
    let store = Members::open(package, file)?;
    let location = Location::Other(file.to_owned());
    let opener = Opener::new(&registry, &NoReferences);
    let image = opener.open(Located { store, location }, None, Access::Read)?;
    disk.check_size(image.size())?;
    Ok(image)
}

/// The content of all disks that have one.
fn contents(path: &Path) -> Result<Vec<String>> {
    let package = package(path)?;
    let disks = package.disks().iter().filter(|disk| disk.file.is_some());
    disks.map(|disk| content_sha256(&open(&package, disk)?, Reading::Odd)).collect()
}

fn judge(case: &Case) {
    let unpacked = case.unpack();
    match (case.expect.open, contents(&unpacked.path)) {
        (OpenVerdict::Ok, outcome) => {
            let found = outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
            let expected = case.expect.content_sha256.clone().expect("a content");
            assert_eq!(found, [expected], "{case}");
        }
        (_, Ok(_)) => panic!("{case} opens and reads, expected an error"),
        (_, Err(error)) => eprintln!("{case}: {error}"),
    }
}

#[test]
fn every_golden_package_gives_the_expected_verdict_and_content() {
    let cases = cases("ova");
    assert_eq!(cases.len(), 21);
    cases.iter().for_each(judge);
}

#[test]
fn an_empty_disk_is_a_member_of_its_own_and_reads_as_zero() {
    let all = cases("ova");
    let case = all.iter().find(|case| case.name == "empty-disk-no-mf").expect("the case");
    let package = package(&case.unpack().path).unwrap();
    let [full, empty] = package.disks() else { panic!("two disks") };
    assert_eq!((full.capacity, full.format.as_deref()), (2_117_632, Some("vmdk")));
    assert_eq!((empty.id.as_str(), empty.capacity, &empty.file), ("empty1", 1 << 30, &None));
    let store = Members::open(&package, "empty1").unwrap();
    let mut bytes = [7; 512];
    assert_eq!(store.read_at(anydisk_storage::HostOffset(1 << 20), &mut bytes).unwrap(), 512);
    assert_eq!((store.len().unwrap(), bytes), (1 << 30, [0; 512]));
}

#[test]
fn a_packed_member_is_unpacked_into_a_store_of_the_callers_within_the_capacity() {
    let all = cases("ova");
    let case = all.iter().find(|case| case.name == "gzip").expect("the case");
    let unpacked = case.unpack();
    let package = package(&unpacked.path).unwrap();
    let target = MemoryStorage::default();
    assert!(package.unpack("golden-disk1.vmdk.gz", &target).unwrap());
    assert_eq!(&target.to_vec()[..4], b"KDMV");
    let mut strict = Limits::strict();
    strict.unit = 1000;
    let small = Package::open_ova(located(&unpacked.path).store, &strict).unwrap();
    let error = Members::open(&small, "golden-disk1.vmdk.gz").unwrap_err().to_string();
    assert!(error.contains("more than the limit of 1000"), "{error}");
}

/// The disk that a row of the corpus means.
fn disk_of(row: &Row, package: &Package) -> Result<Option<String>> {
    let Some(name) = row.part.as_deref().and_then(|part| part.strip_prefix("disk=")) else {
        return Ok(None);
    };
    let disk = package.disks().iter().find(|disk| disk.file.as_deref() == Some(name));
    let disk = open(package, disk.expect("the disk of the row"))?;
    assert_eq!(Some(disk.size()), row.virtual_size, "{}", row.name);
    content_sha256(&disk, Reading::Large).map(Some)
}

#[test]
fn packages_of_the_corpus_hold_what_other_programs_read() {
    for row in rows("ova") {
        let unpacked = row.unpack();
        let opened = match row.image.ends_with(".ovf") {
            false => package(&unpacked.path),
            true => {
                let others: Vec<_> = std::fs::read_dir(unpacked.folder.path())
                    .expect("the folder")
                    .map(|entry| located(&entry.expect("an entry").path()))
                    .collect();
                Package::open_folder(&located(&unpacked.path), &others, &Limits::default())
            }
        };
        let outcome = opened.and_then(|package| {
            let disks = package.disks();
            let mut all = disks.iter().filter(|disk| disk.file.is_some());
            // A stand-in is found out by whoever opens the image.
            all.try_for_each(|disk| open(&package, disk).map(drop))?;
            disk_of(&row, &package)
        });
        match (row.expect, outcome) {
            (Expect::Ok, Ok(content)) => {
                use anydisk_testkit::corpus::Content;
                let expected = row.content.as_ref().map(|content| match content {
                    Content::Sha256(hash) => hash.clone(),
                    Content::Runs(_) => panic!("{}: not by runs", row.name),
                });
                assert_eq!(content, expected, "{}", row.name);
            }
            (Expect::Reject, Err(error)) => eprintln!("{}: {error}", row.name),
            (_, outcome) => panic!("{}: {outcome:?}", row.name),
        }
    }
}
