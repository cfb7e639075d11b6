//! qemu-img and qemu-io as judges, both ways.
//!
//! Where qemu is not installed these tests say so and pass; the golden images stand for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, Limits, Located, Location, Opener, Options,
    Reference, Registry, Role, StorageExt,
};
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, OpenOptions, Storage};
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::{Aim, ByteModel, FolderResolver, Operation, Random};
use anydisk_vmdk::VMDK;
use tempfile::TempDir;

/// A folder of images.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(path: &Path, options: &OpenOptions) -> Arc<dyn Storage> {
        Arc::new(FileStorage::open(path, options).expect("a file"))
    }

    fn create(&self, name: &str, size: u64, given: &[(&str, &str)], below: Option<&str>) -> Disk {
        let path = self.path(name);
        let mut options = Options::of(&VMDK);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        let reference = below.map(|below| {
            let mut reference = Reference::new(Role::Backing, below);
            reference.content_id = self.open(below, Access::Read).top().info().content_id;
            reference
        });
        let store = Self::store(&path, &OpenOptions::new().write(true).create_new(true));
        let (location, limits) = (Location::Path(path), Limits::default());
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        let companions = FolderResolver::new(self.0.path());
        let request =
            CreateRequest { backing: reference.as_ref(), companions: &companions, ..request };
        Disk::new(VMDK.create(request).expect("an image"))
    }

    /// The image with all that lies below it.
    fn open(&self, name: &str, access: Access) -> Disk {
        let path = self.path(name);
        let write = access == Access::ReadWrite;
        let store = Self::store(&path, &OpenOptions::new().write(write));
        let registry = Registry::new(&[&VMDK, &RAW]);
        let resolver = FolderResolver::new(self.0.path());
        let file = Located { store, location: Location::Path(path) };
        Opener::new(&registry, &resolver).open(file, Some("vmdk"), access).expect("it opens")
    }

    /// Writes what the disk should hold beside it, as a raw image.
    fn write_raw(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("room for a raw image");
        path
    }
}

/// Plays random operations on a disk and on a byte vector.
fn play(disk: &Disk, model: &mut ByteModel, seed: u64, count: usize) {
    let aim = Aim::at(disk.size(), 65536);
    for operation in aim.operations(seed).take(count) {
        let bytes = |len: u64| usize::try_from(len).expect("small");
        match &operation {
            Operation::Read { at, len } => {
                let mut found = vec![0; bytes(*len)];
                disk.read(GuestOffset(*at), &mut found).expect("a read");
                assert!(found == model.read(*at, *len), "{operation:?}");
            }
            Operation::Write { at, .. } => {
                disk.write(GuestOffset(*at), &operation.data()).expect("a write");
            }
            Operation::Zero { at, len, unmap } => {
                disk.zero(range(*at, *len), *unmap).expect("a zeroing");
            }
            Operation::Discard { at, len } => {
                disk.discard(range(*at, *len)).expect("a discard");
                let mut found = vec![0; bytes(*len)];
                disk.read(GuestOffset(*at), &mut found).expect("a read");
                model.write(*at, &found);
                continue;
            }
            Operation::Flush => disk.flush().expect("a flush"),
            _ => continue,
        }
        model.apply(&operation);
    }
}

fn range(at: u64, len: u64) -> anydisk_core::GuestRange {
    anydisk_core::GuestRange::new(GuestOffset(at), len).expect("on the disk")
}

/// The content of the disk at once.
fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

/// The file without the value of its content ID, and without the padding of its descriptor.
fn without_content_id(path: &Path) -> (Vec<u8>, String, Vec<u8>) {
    let bytes = std::fs::read(path).expect("an image");
    let text = String::from_utf8_lossy(&bytes[512..21 * 512]).trim_end_matches('\0').to_owned();
    let lines = text.lines().filter(|line| !line.starts_with("CID=")).collect::<Vec<_>>();
    (bytes[..512].to_vec(), lines.join("\n"), bytes[21 * 512..].to_vec())
}

#[test]
fn a_new_image_is_the_one_that_qemu_makes_but_for_its_content_id() {
    let Some(qemu) = Qemu::find() else { return };
    let cases: [(u64, &[(&str, &str)]); 7] = [
        (512, &[]),
        (5_267_456, &[]),
        (32 << 20, &[("adapter_type", "lsilogic")]),
        ((32 << 20) + 512, &[("compat6", "on"), ("adapter_type", "buslogic")]),
        (100 << 20, &[("hwversion", "13"), ("toolsversion", "10338")]),
        (5 << 30, &[("zeroed_grain", "on"), ("adapter_type", "legacyESX")]),
        (2 << 40, &[]),
    ];
    for (size, options) in cases {
        let (ours, theirs) = (Folder::new(), Folder::new());
        ours.create("disk.vmdk", size, options, None).flush().expect("a flush");
        let given: Vec<String> =
            options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        qemu.create("vmdk", &given, &theirs.path("disk.vmdk"), &size.to_string());
        let (ours, theirs) = (ours.path("disk.vmdk"), theirs.path("disk.vmdk"));
        assert!(without_content_id(&ours) == without_content_id(&theirs), "{size} {options:?}");
    }
}

/// The text without the value of its content ID.
fn text_without_content_id(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a descriptor");
    text.lines().filter(|line| !line.starts_with("CID=")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_new_image_of_several_files_is_the_one_that_qemu_makes_but_for_its_content_id() {
    let Some(qemu) = Qemu::find() else { return };
    let cases: [(&str, u64, &[&str]); 4] = [
        ("monolithicFlat", 5_267_456, &["disk-flat.vmdk"]),
        ("twoGbMaxExtentFlat", (4 << 30) + 512, &["disk-f001.vmdk", "disk-f003.vmdk"]),
        ("twoGbMaxExtentSparse", 5 << 30, &["disk-s001.vmdk", "disk-s003.vmdk"]),
        ("twoGbMaxExtentSparse", 512, &["disk-s001.vmdk"]),
    ];
    for (subformat, size, files) in cases {
        let (ours, theirs) = (Folder::new(), Folder::new());
        ours.create("disk.vmdk", size, &[("subformat", subformat)], None).flush().expect("a flush");
        let option = format!("subformat={subformat}");
        qemu.create("vmdk", &[&option], &theirs.path("disk.vmdk"), &size.to_string());
        let names = |folder: &Folder| {
            let entries = std::fs::read_dir(folder.0.path()).expect("a folder");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&ours), names(&theirs));
        let text = |folder: &Folder| text_without_content_id(&folder.path("disk.vmdk"));
        assert_eq!(text(&ours), text(&theirs));
        for file in files {
            let store = |folder: &Folder| Folder::store(&folder.path(file), &OpenOptions::new());
            let (ours, theirs) = (store(&ours), store(&theirs));
            let len = ours.len().expect("a length");
            assert_eq!(len, theirs.len().expect("a length"), "{file}");
            let bytes = |store: Arc<dyn Storage>| {
                let mut bytes = vec![0; usize::try_from(len.min(2 << 20)).expect("small")];
                store.read_exact_at(anydisk_core::HostOffset::ZERO, &mut bytes).expect("a read");
                bytes
            };
            assert!(bytes(ours) == bytes(theirs), "{file}");
        }
    }
}

#[test]
fn qemu_reads_what_random_histories_leave() {
    let Some(qemu) = Qemu::find() else { return };
    let cases = [
        &[][..],
        &[("zeroed_grain", "on")],
        &[("subformat", "monolithicFlat")],
        &[("subformat", "twoGbMaxExtentFlat"), ("split_size", "10M")],
        &[("subformat", "twoGbMaxExtentSparse"), ("split_size", "20M")],
    ];
    for (seed, options) in cases.into_iter().enumerate() {
        let folder = Folder::new();
        let size = (70 << 20) + 512 * 77;
        let disk = folder.create("disk.vmdk", size, options, None);
        let mut model = ByteModel::new(size);
        play(&disk, &mut model, seed as u64, 300);
        disk.flush().expect("a flush");
        drop(disk);
        let disk = folder.open("disk.vmdk", Access::ReadWrite);
        play(&disk, &mut model, 100 + seed as u64, 100);
        disk.flush().expect("a flush");
        drop(disk);
        let path = folder.path("disk.vmdk");
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_undamaged(&path, "vmdk");
        qemu.assert_same((&path, "vmdk"), (&raw, "raw"));
        assert!(contents(&folder.open("disk.vmdk", Access::Read)) == model.contents());
    }
}

#[test]
fn what_qemu_wrote_is_read_and_written_on() {
    let Some(qemu) = Qemu::find() else { return };
    for subformat in
        ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
    {
        let folder = Folder::new();
        let path = folder.path("disk.vmdk");
        qemu.create("vmdk", &[&format!("subformat={subformat}")], &path, "9M");
        qemu.io(&path, "vmdk", &["write -P 7 100k 300k", "write -P 9 5M 1", "write -z 150k 64k"]);
        let disk = folder.open("disk.vmdk", Access::ReadWrite);
        let mut model = ByteModel::of(&contents(&disk), disk.size());
        assert_eq!(model.read(100 << 10, 1), [7], "{subformat}");
        assert_eq!(model.read(5 << 20, 2), [9, 0], "{subformat}");
        play(&disk, &mut model, 5, 200);
        disk.flush().expect("a flush");
        drop(disk);
        let raw = folder.write_raw("disk.raw", &model.contents());
        qemu.assert_undamaged(&path, "vmdk");
        qemu.assert_same((&path, "vmdk"), (&raw, "raw"));
    }
}

#[test]
fn data_on_both_sides_of_a_split_goes_to_both_files() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let path = folder.path("disk.vmdk");
    qemu.create("vmdk", &["subformat=twoGbMaxExtentSparse"], &path, "5G");
    let disk = folder.open("disk.vmdk", Access::ReadWrite);
    let mut bytes = vec![0; 300 << 10];
    Random::new(3).fill(&mut bytes);
    let at = (4 << 30) - (150 << 10);
    disk.write(GuestOffset(at), &bytes).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    qemu.assert_undamaged(&path, "vmdk");
    let raw = folder.path("disk.raw");
    qemu.convert((&path, "vmdk"), (&raw, "raw"), &[]);
    let raw = Folder::store(&raw, &OpenOptions::new());
    let mut found = vec![0; bytes.len()];
    raw.read_exact_at(anydisk_core::HostOffset(at), &mut found).expect("a read");
    assert!(found == bytes);
}

#[test]
fn overlays_over_the_images_of_the_other_show_them() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = Folder::new();
    let size = 3 << 20;
    qemu.create("vmdk", &[], &folder.path("a.vmdk"), &size.to_string());
    qemu.io(&folder.path("a.vmdk"), "vmdk", &["write -P 1 0 1M"]);
    let ours = folder.create("b.vmdk", size, &[], Some("a.vmdk"));
    ours.flush().expect("a flush");
    drop(ours);
    let disk = folder.open("b.vmdk", Access::ReadWrite);
    disk.write(GuestOffset(1000), &[2; 100_000]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let options = ["backing_file=b.vmdk", "backing_fmt=vmdk"];
    qemu.create("vmdk", &options, &folder.path("c.vmdk"), &size.to_string());
    let commands =
        ["read -P 1 0 1000", "read -P 2 1000 100000", "read -P 1 101000 900k", "write -P 3 2M 5"];
    qemu.io(&folder.path("c.vmdk"), "vmdk", &commands);
    let disk = folder.open("c.vmdk", Access::Read);
    assert_eq!(disk.layers().len(), 3);
    let bytes = contents(&disk);
    let first = [bytes[0], bytes[1000], bytes[101_000], bytes[2 << 20], bytes[(2 << 20) + 5]];
    assert_eq!(first, [1, 2, 1, 3, 0]);
}
