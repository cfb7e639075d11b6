//! What is said of an image beside its content.

use anydisk_core::{Access, Disk, Error, GuestOffset, Id, Result};
use anydisk_testkit::MemoryFolder;

use crate::common::{folder_of, open_alone, open_in};

fn open(folder: &MemoryFolder, name: &str) -> Result<Disk> {
    open_in(folder, name, Access::Read)
}

#[test]
fn a_log_is_replayed_in_memory_with_a_warning_and_the_file_stays_as_it_is() {
    let (folder, name) = folder_of("log-one-entry");
    let before = folder.file(&name).expect("it is there").to_vec();
    let disk = open(&folder, &name).expect("it opens");
    assert_eq!(disk.layers()[0].warnings.len(), 1);
    let mut bytes = [0; 512];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
    assert!(folder.file(&name).expect("it is there").to_vec() == before);
}

#[test]
fn a_parent_that_was_written_since_is_refused() {
    let (folder, name) = folder_of("differencing");
    let child = open(&folder, &name).expect("it opens");
    let reference = child.layers()[0].backing.clone().expect("a parent");
    assert_eq!(reference.display_name(), "parent.vhdx");
    let linkage = reference.content_id;
    assert_eq!(linkage, child.layers()[1].image.info().content_id);
    assert!(matches!(linkage, Some(Id::Uuid(_))));
    let other = folder_of("dynamic-qemu");
    let bytes = other.0.file(&other.1).expect("it is there").to_vec();
    folder.put("parent.vhdx", bytes);
    let error = open(&folder, &name).unwrap_err();
    assert!(matches!(error.kind(), Error::Denied { .. }), "{error}");
}

fn open_to_write(folder: &MemoryFolder, name: &str) -> Result<Disk> {
    let store = folder.file(name).expect("it is there");
    Ok(Disk::new(open_alone(store, Access::ReadWrite)?.image))
}

#[test]
fn opened_for_writing_a_log_is_replayed_in_the_file_and_forgotten() {
    for case in ["log-one-entry", "log-wraps", "log-extends-file", "log-many-descriptors"] {
        let (folder, name) = folder_of(case);
        let content = |disk: &Disk| {
            let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
            disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
            bytes
        };
        let before = content(&open(&folder, &name).expect("it opens"));
        let disk = open_to_write(&folder, &name).expect("it opens");
        assert!(content(&disk) == before, "{case}");
        drop(disk);
        let again = open(&folder, &name).expect("it opens");
        assert!(again.layers()[0].warnings.is_empty(), "{case}");
        assert!(content(&again) == before, "{case}");
    }
}

#[test]
fn blocks_on_blocks_or_on_metadata_are_not_written() {
    for case in ["hostile-bat-shared", "hostile-bat-over-metadata", "hostile-bat-in-header"] {
        let (folder, name) = folder_of(case);
        let error = open_to_write(&folder, &name).unwrap_err();
        assert!(matches!(error.kind(), Error::NeedsRepair { .. }), "{case}: {error}");
    }
}

#[test]
fn the_first_change_of_a_session_gives_the_content_another_guid() {
    let (folder, name) = folder_of("dynamic-qemu");
    let id = |disk: &Disk| disk.top().info().content_id;
    let disk = open_to_write(&folder, &name).expect("it opens");
    let before = id(&disk);
    disk.write(GuestOffset(5), &[1]).expect("a write");
    let after = id(&disk);
    assert_ne!(before, after);
    disk.write(GuestOffset(9), &[1]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    assert_eq!(id(&open(&folder, &name).expect("it opens")), after);
}
