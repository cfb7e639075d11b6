//! Changing the size: more tables, more extents, fewer of both; and what others then read.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, CheckRequest, Companions, CreateRequest, Disk, Error, Format, GuestOffset,
    HostOffset, Image, Limits, Location, NoReferences, OpenRequest, Options, Preallocation,
    Reference, Result, Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::oracle::Qemu;
use anydisk_testkit::suite::Fixture;
use anydisk_testkit::vmdk::ByHand;
use anydisk_testkit::{ByteModel, MemoryFolder};
use anydisk_vmdk::VMDK;

/// Images whose tables have four entries, so that a disk of some grains has several.
#[derive(Debug)]
struct SmallTables;

impl Fixture for SmallTables {
    fn create(&self, store: Arc<dyn Storage>, size: u64, _: Below) -> Result<Arc<dyn Image>> {
        let image = ByHand { sectors: size / 512, grain: 2, zeroed_grain: false, parent: None };
        store.write_at(HostOffset::ZERO, &image.bytes_with_tables_of(4))?;
        store.flush()?;
        self.open(store, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
        let request = OpenRequest::new(store, &location, &limits);
        Ok(VMDK.open(OpenRequest { access, resolver: &NoReferences, ..request })?.image)
    }

    fn unit(&self) -> u64 {
        1024
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        check_tables(&*store)
    }
}

/// Looks for damage with a reader of its own: both sets of tables and the grains in the file, apart,
/// and both sets saying the same.
fn check_tables(store: &dyn Storage) -> Result<(), String> {
    let number = |at: u64, len: usize| {
        let mut bytes = [0; 8];
        store.read_padded_at(HostOffset(at), &mut bytes[..len]).map_err(|e| e.to_string())?;
        Ok::<u64, String>(u64::from_le_bytes(bytes))
    };
    let len = store.len().map_err(|e| e.to_string())?.div_ceil(512);
    let (capacity, second, first) = (number(12, 8)?, number(48, 8)?, number(56, 8)?);
    let tables = capacity.div_ceil(8);
    let mut used = vec![(0, 5), (first, 1), (second, 1)];
    for table in 0..tables {
        let place = |directory: u64| number(directory * 512 + table * 4, 4);
        let (first, second) = (place(first)?, place(second)?);
        used.extend([(first, 1), (second, 1)]);
        for entry in (0..4).filter(|entry| table * 8 + entry * 2 < capacity) {
            let (one, other) =
                (number(first * 512 + entry * 4, 4)?, number(second * 512 + entry * 4, 4)?);
            if one != other && number(72, 1)? == 0 {
                return Err(format!("table {table}: entry {entry} is {one} and {other}"));
            }
            used.extend(Some((one, 2)).filter(|(sector, _)| *sector != 0));
        }
    }
    used.sort_unstable();
    let apart = used.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
    match apart && used.iter().all(|(at, count)| at + count <= len) {
        true => Ok(()),
        false => Err(format!("{used:?} in {len} sectors")),
    }
}

mod small_tables {
    anydisk_testkit::behaviour_tests! {
        super::SmallTables;
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
    }
}

/// What lies behind the old end has other tables now than those that small reads remember.
#[test]
fn a_disk_that_was_shrunk_and_grown_is_read_by_its_new_tables_in_small_pieces_too() {
    let size = 64 << 10;
    let disk = Disk::new(
        SmallTables.create(Arc::new(MemoryStorage::default()), size, Below::Nothing).expect("new"),
    );
    let check = |disk: &Disk, wanted: &dyn Fn(u64) -> u8| {
        for at in (0..size).step_by(512) {
            let mut bytes = [0; 512];
            disk.read(GuestOffset(at), &mut bytes).expect("a read");
            assert_eq!(bytes, [wanted(at); 512], "{at}");
        }
    };
    disk.write(GuestOffset::ZERO, &vec![1; 64 << 10]).expect("a write");
    check(&disk, &|_| 1);
    let kept = 10 << 10;
    disk.resize(kept, Preallocation::Off).expect("a shorter disk");
    disk.resize(size, Preallocation::Off).expect("a longer disk");
    check(&disk, &|at| u8::from(at < kept));
    disk.write(GuestOffset(kept), &vec![2; 54 << 10]).expect("a write");
    check(&disk, &|at| if at < kept { 1 } else { 2 });
}

/// Images in a folder.
trait Images {
    fn create(&self, name: &str, size: u64, given: &[(&str, &str)]) -> Disk;
    fn open(&self, name: &str) -> Disk;
    fn text(&self, name: &str) -> String;
}

impl Images for MemoryFolder {
    fn create(&self, name: &str, size: u64, given: &[(&str, &str)]) -> Disk {
        let mut options = Options::of(&VMDK);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        let store = self.make_file(name).expect("new");
        let (location, limits) = (Location::Path(name.into()), Limits::default());
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        let image = VMDK.create(CreateRequest { companions: self, ..request });
        Disk::new(image.expect("an image"))
    }

    fn open(&self, name: &str) -> Disk {
        let store = self.file(name).expect("it is there");
        let (location, limits) = (Location::Path(name.into()), Limits::default());
        let request = OpenRequest::new(store, &location, &limits);
        let request = OpenRequest { access: Access::ReadWrite, resolver: self, ..request };
        Disk::new(VMDK.open(request).expect("it opens").image)
    }

    fn text(&self, name: &str) -> String {
        let bytes = self.file(name).expect("it is there").to_vec();
        String::from_utf8_lossy(&bytes).split('\0').next().unwrap_or_default().to_owned()
    }
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

const MIB: u64 = 1 << 20;

#[test]
fn a_split_disk_gets_and_loses_extents_and_their_files() {
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let files = MemoryFolder::default();
        let disk =
            files.create("d.vmdk", 3 * MIB, &[("subformat", subformat), ("split_size", "2M")]);
        let mut model = ByteModel::new(3 * MIB);
        let check = |disk: &Disk, model: &ByteModel, extents: usize| {
            assert!(contents(disk) == model.contents(), "{subformat}");
            assert!(
                contents(&files.open("d.vmdk")) == model.contents(),
                "{subformat}, opened again"
            );
            assert_eq!(files.names().len(), 1 + extents, "{:?}", files.names());
            assert_eq!(files.text("d.vmdk").matches("RW ").count(), extents);
        };
        for (step, (size, extents)) in
            [(9, 5), (4, 2), (3, 2), (7, 4), (1, 1)].into_iter().enumerate()
        {
            let fill = vec![u8::try_from(step).expect("small") + 1; 4096];
            for at in [0, model.size() - 4096, model.size() / 2] {
                disk.write(GuestOffset(at), &fill).expect("a write");
                model.write(at, &fill);
            }
            disk.resize_with(size * MIB, Preallocation::Off, &files).expect("a resize");
            model.resize(size * MIB);
            disk.flush().expect("a flush");
            check(&disk, &model, extents);
        }
    }
}

/// The disk keeps its size, and the files that were made for nothing are gone.
#[test]
fn a_split_disk_that_cannot_get_all_its_extents_stays_as_it_was() {
    let files = MemoryFolder::default();
    let options = [("subformat", "twoGbMaxExtentSparse"), ("split_size", "2M")];
    let disk = files.create("d.vmdk", 3 * MIB, &options);
    disk.write(GuestOffset(3 * MIB - 1), &[7]).expect("a write");
    disk.flush().expect("a flush");
    files.make(&Reference::new(anydisk_core::Role::Extent, "d-s004.vmdk")).expect("a file");
    let error = disk.resize(9 * MIB, Preallocation::Off).expect_err("nobody makes files");
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    disk.resize(4 * MIB, Preallocation::Off).expect("no file is needed");
    assert_eq!(contents(&disk)[3 * 1024 * 1024 - 1..3 * 1024 * 1024 + 1], [7, 0]);
    assert_eq!(contents(&files.open("d.vmdk")).len(), 4 << 20);
    // A file that is there, which a resize may have left that was cut short, is passed over.
    disk.resize_with(9 * MIB, Preallocation::Off, &files).expect("a resize");
    let names: Vec<_> = files.names();
    let expected = ["d-s001", "d-s002", "d-s003", "d-s004", "d-s005", "d-s006"];
    assert_eq!(names[..6], expected.map(|name| format!("{name}.vmdk")));
    assert_eq!(files.file("d-s004.vmdk").expect("it is there").to_vec(), b"");
    assert!(!files.text("d.vmdk").contains("d-s004"));
    assert_eq!(contents(&files.open("d.vmdk")).len(), 9 << 20);
}

/// Replaces a part of a text descriptor, in its file.
fn edit(files: &MemoryFolder, name: &str, old: &str, new: &str) {
    let store = files.file(name).expect("it is there");
    let text = String::from_utf8(store.to_vec()).expect("a text");
    assert!(text.contains(old), "{text}");
    let text = text.replace(old, new);
    store.set_len(0).expect("memory");
    store.write_at(HostOffset::ZERO, text.as_bytes()).expect("memory");
}

#[test]
fn extents_that_are_added_are_read_as_their_lines_say() {
    let files = MemoryFolder::default();
    let options = [("subformat", "twoGbMaxExtentFlat"), ("split_size", "2M")];
    drop(files.create("d.vmdk", 3 * MIB, &options));
    // The data of the last file begins at sector 128, and the line is the end of the text.
    edit(&files, "d.vmdk", "\"d-f002.vmdk\" 0", "\"d-f002.vmdk\" 128");
    let text = files.text("d.vmdk");
    let line_end = text.find("\"d-f002.vmdk\" 128").expect("the line") + 17;
    edit(&files, "d.vmdk", &text[line_end..], "");
    files.file("d-f002.vmdk").expect("it is there").set_len(MIB + 65536).expect("memory");
    let disk = files.open("d.vmdk");
    disk.resize_with(9 * MIB, Preallocation::Off, &files).expect("a resize");
    let mut model = ByteModel::new(9 * MIB);
    for at in [0, 3 * MIB - 512, 5 * MIB, 9 * MIB - 512] {
        disk.write(GuestOffset(at), &[3; 512]).expect("a write");
        model.write(at, &[3; 512]);
    }
    disk.flush().expect("a flush");
    assert!(contents(&files.open("d.vmdk")) == model.contents());
}

#[test]
fn an_extent_that_holds_the_descriptor_stays_the_only_one() {
    let files = MemoryFolder::default();
    drop(files.create("d-s001.vmdk", 3 * MIB, &[]));
    let store = files.file("d-s001.vmdk").expect("it is there");
    let mut text = vec![0; 20 * 512];
    store.read_at(HostOffset(512), &mut text).expect("memory");
    let old = String::from_utf8(text).expect("a text");
    let new = old.replace("monolithicSparse", "twoGbMaxExtentSparse");
    assert!(old != new);
    store.write_at(HostOffset(512), &new.as_bytes()[..20 * 512]).expect("memory");
    let disk = files.open("d-s001.vmdk");
    disk.resize_with(3 << 30, Preallocation::Off, &files).expect("a resize");
    assert_eq!(files.names(), ["d-s001.vmdk"]);
    assert_eq!(files.open("d-s001.vmdk").size(), 3 << 30);
}

/// Grains that a shrink cut off would be read again by whoever trusts the tables.
#[test]
fn the_header_of_both_sets_of_tables_and_the_descriptor_tell_the_new_size() {
    let files = MemoryFolder::default();
    let disk = files.create("d.vmdk", 40 * MIB, &[]);
    disk.write(GuestOffset(35 * MIB), &[1; 4096]).expect("a write");
    for (size, cylinders) in [(100, 203), (33, 67), (5000, 10158)] {
        disk.resize(size * MIB, Preallocation::Off).expect("a resize");
        disk.flush().expect("a flush");
        let bytes = files.file("d.vmdk").expect("it is there").to_vec();
        assert_eq!(bytes[12..20], (size * 2048).to_le_bytes());
        let text = String::from_utf8_lossy(&bytes[512..21 * 512]).into_owned();
        assert!(text.contains(&format!("RW {} SPARSE", size * 2048)), "{text}");
        assert!(text.contains(&format!("ddb.geometry.cylinders = \"{cylinders}\"")), "{text}");
        assert_eq!(bytes[28..44], [1_u64, 20].map(u64::to_le_bytes).concat()[..]);
        let found = files.open("d.vmdk");
        assert_eq!(found.size(), size * MIB);
        let mut bytes = [7; 4096];
        if size > 35 {
            found.read(GuestOffset(35 * MIB), &mut bytes).expect("a read");
            assert_eq!(bytes, [u8::from(size == 100); 4096]);
        }
    }
}

#[test]
fn a_file_ends_where_32_bit_sector_numbers_do() {
    let files = MemoryFolder::default();
    drop(files.create("d.vmdk", MIB, &[]));
    let store = files.file("d.vmdk").expect("it is there");
    store.set_len((1 << 41) - 65536).expect("holes");
    let disk = files.open("d.vmdk");
    disk.write(GuestOffset(0), &[1]).expect("the last grain");
    let error = disk.write(GuestOffset(65536), &[1]).expect_err("full").to_string();
    assert_eq!(
        error,
        "vmdk: size of an extent's file in bytes is 2199023321088, more than the limit of \
         2199023255552"
    );
}

#[test]
fn what_cannot_be_resized_is_refused_by_name_and_nothing_changes() {
    let files = MemoryFolder::default();
    let disk = files.create("d.vmdk", MIB, &[]);
    let before = files.file("d.vmdk").expect("it is there").to_vec();
    let refusal = |size: u64, how| disk.resize(size, how).expect_err("refused").to_string();
    assert_eq!(
        refusal(MIB + 1, Preallocation::Off),
        "vmdk: a size that is 0 or no multiple of 512 bytes is not supported"
    );
    assert_eq!(
        refusal(2 * MIB, Preallocation::Full),
        "vmdk: preallocation of sparse extents is not supported"
    );
    assert_eq!(
        refusal(3 << 40, Preallocation::Off),
        "vmdk: size of a sparse extent in bytes is 3298534883328, more than the limit of \
         2199023255552"
    );
    assert_eq!(disk.size(), MIB);
    assert!(before == files.file("d.vmdk").expect("it is there").to_vec());
}

#[test]
fn a_shrink_gives_the_space_of_what_it_cuts_off_back_to_the_host() {
    let files = MemoryFolder::default();
    let disk = files.create("d.vmdk", 40 * MIB, &[]);
    disk.write(GuestOffset(MIB), &[1; 1 << 20]).expect("a write");
    disk.write(GuestOffset(20 * MIB), &[2; 10 << 20]).expect("a write");
    disk.flush().expect("a flush");
    let store = files.file("d.vmdk").expect("it is there");
    let stored = || store.holes().expect("memory has holes").allocated().expect("it tells");
    let before = stored();
    disk.resize(10 * MIB, Preallocation::Off).expect("a resize");
    assert!(stored() <= before - 10 * MIB, "{} of {before} are left", stored());
    let (location, limits) = (Location::Other("d".to_owned()), Limits::default());
    let request = CheckRequest::new(OpenRequest::new(store.clone(), &location, &limits));
    let mut found = Vec::new();
    let report = VMDK.check(&request, &mut |finding| found.push(finding));
    assert!(report.expect("it can be checked").is_clean(), "{found:?}");
}

/// qemu-img reads what grew and shrank, and its check finds nothing.
#[test]
fn qemu_reads_what_was_resized() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for subformat in ["monolithicSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let name = format!("{subformat}.vmdk");
        let files = MemoryFolder::default();
        let mut options = vec![("subformat", subformat)];
        options.extend((subformat != "monolithicSparse").then_some(("split_size", "32M")));
        let disk = files.create(&name, 40 * MIB, &options);
        let mut model = ByteModel::new(40 * MIB);
        for (size, seed) in [(100, 3), (50, 5), (130, 7)] {
            for at in [0, model.size() - 70_000, model.size() / 2 + 511] {
                let data = vec![seed; 70_000];
                disk.write(GuestOffset(at), &data).expect("a write");
                model.write(at, &data);
            }
            disk.resize_with(size * MIB, Preallocation::Off, &files).expect("a resize");
            model.resize(size * MIB);
        }
        disk.flush().expect("a flush");
        for file in files.names() {
            let bytes = files.file(&file).expect("it is there").to_vec();
            std::fs::write(folder.path().join(file), bytes).expect("room for an image");
        }
        let raw = folder.path().join("model");
        std::fs::write(&raw, model.contents()).expect("room for a raw image");
        let path = folder.path().join(&name);
        qemu.assert_same((&path, "vmdk"), (&raw, "raw"));
        if subformat == "monolithicSparse" {
            qemu.assert_undamaged(&path, "vmdk");
        }
    }
}

/// A descriptor of a Chinese Windows: the names of its files are in GBK, those of the files here in UTF-8.
#[test]
fn names_in_the_encoding_of_the_descriptor_are_found_and_written_and_all_else_stays_as_it_is() {
    let files = MemoryFolder::default();
    let options = [("subformat", "twoGbMaxExtentFlat"), ("split_size", "2M")];
    drop(files.create("磁盘.vmdk", 3 * MIB, &options));
    let made = files.text("磁盘.vmdk");
    assert!(
        made.starts_with("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID="),
        "{made}"
    );
    // The same in GBK, with lines that nobody knows.
    let name: &[u8] = b"\xb4\xc5\xc5\xcc";
    let text: Vec<u8> = made.replace("UTF-8", "GBK").replace("磁盘", "*").into_bytes();
    let mut text: Vec<u8> = text
        .iter()
        .flat_map(|byte| if *byte == b'*' { name } else { std::slice::from_ref(byte) }.to_vec())
        .collect();
    text.extend(b"who.knows = \"\xff\xfe\"\n\xb4 what\n");
    files.put("磁盘.vmdk", text.clone());
    let disk = files.open("磁盘.vmdk");
    disk.write(GuestOffset(2 * MIB + 5), b"data").expect("a write");
    disk.resize_with(5 * MIB, Preallocation::Off, &files).expect("a resize");
    disk.flush().expect("a flush");
    drop(disk);
    let names = ["磁盘-f001.vmdk", "磁盘-f002.vmdk", "磁盘-f003.vmdk", "磁盘.vmdk"];
    assert_eq!(files.names(), names);
    let mut bytes = [0; 4];
    files.open("磁盘.vmdk").read(GuestOffset(2 * MIB + 5), &mut bytes).expect("a read");
    assert_eq!(&bytes, b"data");
    let after = files.file("磁盘.vmdk").expect("it is there").to_vec();
    let has = |part: &[u8]| after.windows(part.len()).any(|window| window == part);
    assert!(has(&[&b"FLAT \""[..], name, b"-f003.vmdk\" 0"].concat()));
    assert!(has(b"who.knows = \"\xff\xfe\"\n\xb4 what\n"));
}

/// Who copied the files without a change of their names left them as the text has them.
#[test]
fn a_file_whose_name_is_as_it_is_written_is_found_too() {
    let files = MemoryFolder::default();
    let line = b"RW 2 FLAT \"\xb4\xc5-flat\" 0\n";
    let text = [
        &b"# Disk DescriptorFile\nversion=1\nencoding=\"GBK\"\nCID=1\nparentCID=ffffffff\n"[..],
        line,
    ];
    files.put("d.vmdk", text.concat());
    let written = Reference::new(anydisk_core::Role::Extent, b"\xb4\xc5-flat".to_vec());
    files.make(&written).expect("a file").store.set_len(1024).expect("memory");
    assert_eq!(files.open("d.vmdk").size(), 1024);
}
