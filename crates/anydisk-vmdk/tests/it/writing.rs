//! What writing does to a VMDK beside the data: content IDs, flags, second tables; and what it
//! refuses.

use std::collections::HashMap;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Error, Format, GuestOffset, GuestRange, HostOffset, Limits,
    Located, Location, NoSecrets, OpenRequest, Options, Reference, Resolver, Result, Role, Source,
    Storage, StorageExt,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::vmdk::ByHand;
use anydisk_vmdk::VMDK;

/// Files in memory, by name.
#[derive(Debug, Default)]
struct Files(HashMap<&'static str, Arc<MemoryStorage>>);

impl Resolver for Files {
    fn resolve(&self, reference: &Reference, _: &Location, _: Access) -> Result<Located> {
        let name = reference.display_name();
        let store = self.0.get(&*name).ok_or_else(|| reference.denied("there is no such file"))?;
        Ok(Located { store: store.clone(), location: Location::Other(name) })
    }
}

impl Files {
    fn with(mut self, name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(name, Arc::new(MemoryStorage::new(bytes.into())));
        self
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0[name].to_vec()
    }

    fn open(&self, name: &str, access: Access) -> Result<Disk> {
        let request = OpenRequest {
            store: self.0[name].clone(),
            location: &Location::Other(name.to_owned()),
            access,
            resolver: self,
            limits: &Limits::default(),
            secrets: &NoSecrets,
        };
        Ok(Disk::new(VMDK.open(request)?.image))
    }

    fn refusal(&self, name: &str, access: Access) -> String {
        self.open(name, access).expect_err("refused").to_string()
    }
}

const SMALL: ByHand = ByHand { sectors: 128, grain: 8, zeroed_grain: false, parent: None };

/// The text of the descriptor that begins at `at`.
fn text(bytes: &[u8], at: usize) -> String {
    String::from_utf8_lossy(&bytes[at..]).split('\0').next().unwrap_or_default().to_owned()
}

fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the key is there");
    line.trim_matches(|c| matches!(c, ' ' | '=' | '"')).to_owned()
}

#[test]
fn the_first_write_of_a_session_renews_the_content_id_and_no_other() {
    let files = Files::default().with("a", SMALL.bytes());
    let before = text(&files.bytes("a"), 512);
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    assert_eq!(files.bytes("a"), SMALL.bytes(), "opening wrote something");
    disk.write(GuestOffset(0), &[1]).expect("a write");
    let first = text(&files.bytes("a"), 512);
    disk.write(GuestOffset(9999), &[1]).expect("a write");
    disk.flush().expect("a flush");
    let second = text(&files.bytes("a"), 512);
    assert_ne!(value(&first, "CID"), value(&before, "CID"));
    assert_eq!(first, second);
    assert!(value(&first, "ddb.longContentID").ends_with(&value(&first, "CID")));
    let id = u32::from_str_radix(&value(&first, "CID"), 16).expect("hexadecimal");
    assert_eq!(disk.top().info().content_id, Some(id.into()));
    drop(disk);
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    disk.zero(GuestRange::whole(4096), true).expect("a zeroing");
    assert_ne!(text(&files.bytes("a"), 512), second);
}

/// Sums up the map of a disk: extents, and bytes in those that are not absent.
fn mapped(disk: &Disk) -> (u64, u64) {
    let (mut rest, mut extents, mut bytes) = (GuestRange::whole(disk.size()), 0, 0);
    while !rest.is_empty() {
        let found = disk.map(rest).expect("a map");
        let absent = matches!(found.extent.source, Source::Absent { .. });
        extents += 1;
        bytes += if absent { 0 } else { found.extent.len };
        rest = rest.skip(found.extent.len);
    }
    (extents, bytes)
}

/// 65536 tables, which took as many reads.
#[test]
fn tables_that_were_never_written_are_mapped_at_once_and_written_ones_are_seen_among_them() {
    let store = Arc::new(MemoryStorage::default());
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let options = Options::of(&VMDK);
    let request = CreateRequest::new(store.clone(), &location, 2 << 40, &options, &limits);
    let disk = Disk::new(VMDK.create(request).expect("an image"));
    disk.flush().expect("a flush");
    let (extents, bytes) = mapped(&disk);
    assert!(extents <= 2 * 128, "{extents} answers");
    assert_eq!(bytes, 0);
    let places = [0, 5 << 30, (1 << 40) - 1, (1 << 40) + (32 << 20), (2 << 40) - 1];
    for at in places {
        disk.write(GuestOffset(at), &[7]).expect("a write");
        let mut byte = [0];
        disk.read(GuestOffset(at), &mut byte).expect("a read");
        assert_eq!(byte, [7]);
    }
    assert_eq!(mapped(&disk).1, 5 << 16);
    disk.flush().expect("a flush");
    assert_eq!(mapped(&disk).1, 5 << 16);
    let other = VMDK.open(OpenRequest::new(store, &location, &limits)).expect("it opens");
    let (extents, bytes) = mapped(&Disk::new(other.image));
    assert_eq!(bytes, 5 << 16);
    assert!(extents < 4 * 128, "{extents} answers");
}

#[test]
fn the_unclean_flag_is_set_between_a_write_and_its_flush() {
    let files = Files::default().with("a", SMALL.bytes());
    let flag = || files.bytes("a")[72];
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    assert_eq!(flag(), 0);
    for _ in 0..2 {
        disk.write(GuestOffset(0), &[1]).expect("a write");
        assert_eq!(flag(), 1);
        let other = files.open("a", Access::Read).expect("it opens");
        assert!(other.top().info().dirty);
        disk.flush().expect("a flush");
        assert_eq!(flag(), 0);
    }
}

#[test]
fn both_sets_of_tables_are_written() {
    let files = Files::default().with("a", SMALL.bytes());
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(5 * 4096), &[1; 9000]).expect("a write");
    disk.flush().expect("a flush");
    let bytes = files.bytes("a");
    let table = |sector: usize| bytes[sector * 512 + 20..][..16].to_vec();
    assert_eq!(table(6), table(11));
    let entries = [16_u32, 24, 32, 0].map(u32::to_le_bytes).concat();
    assert_eq!(table(11), entries);
}

#[test]
fn extents_are_written_where_their_access_allows() {
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
        createType=\"custom\"\nRW 8 FLAT \"a\" 2\nRDONLY 8 FLAT \"b\" 0\nRW 8 ZERO\n\
        RW 8 FLAT \"a\" 10\nNOACCESS 8 FLAT \"c\" 0\n";
    let files = Files::default()
        .with("d", descriptor)
        .with("a", vec![1; 18 * 512])
        .with("b", vec![2; 8 * 512])
        .with("c", vec![3; 8 * 512]);
    let disk = files.open("d", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(4095), &[9]).expect("a write");
    disk.write(GuestOffset(3 * 4096), &[8]).expect("a write");
    for (at, data) in [(4096, 2), (8192, 1), (4 * 4096, 0)] {
        let error = disk.write(GuestOffset(at), &[data]).expect_err("read-only");
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    }
    let mut bytes = vec![0; 5 * 4096];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    let seen = [0, 4095, 4096, 8192, 3 * 4096, 3 * 4096 + 1, 4 * 4096].map(|at| bytes[at]);
    assert_eq!(seen, [1, 9, 2, 0, 8, 1, 0]);
    disk.flush().expect("a flush");
    let a = files.bytes("a");
    assert_eq!([a[2 * 512 + 4095], a[10 * 512]], [9, 8]);
    assert_ne!(value(&text(&files.bytes("d"), 0), "CID"), "12345678");
}

#[test]
fn what_must_not_be_written_is_refused_with_the_reason() {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = SMALL.bytes();
        change(&mut bytes);
        Files::default().with("a", bytes).refusal("a", Access::ReadWrite)
    };
    let put = |at: usize, entry: u32| {
        move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&entry.to_le_bytes())
    };
    assert_eq!(
        changed(&put(11 * 512 + 8, 3)),
        "a: vmdk: the image needs repair: vmdk: grain table entry at 0x1608 is 0x3, expected a \
         sector from 0x10 to the end at 0x10"
    );
    assert_eq!(
        changed(&put(10 * 512, 2)),
        "a: vmdk: the image needs repair: metadata at 0x400 lies on other metadata"
    );
    assert_eq!(
        changed(&put(5 * 512, 0)),
        "a: vmdk: writing to a sparse extent without all of its grain tables is not supported"
    );
    assert_eq!(
        changed(&|bytes: &mut Vec<u8>| {
            put(64, 5)(bytes);
            put(11 * 512 + 8, 8)(bytes);
        }),
        "a: vmdk: the image needs repair: the grain at 0x1000 lies on metadata"
    );
    assert_eq!(
        changed(&|bytes| {
            let line = b"changeTrackPath=\"x-ctk.vmdk\"\n\0";
            let end = bytes[512..].iter().position(|byte| *byte == 0).expect("padding") + 512;
            bytes[end..end + line.len()].copy_from_slice(line);
        }),
        "the image cannot be written: it has a change tracking file, which would no longer be true"
    );
}

#[test]
fn hostile_names_are_the_resolvers_to_refuse_and_come_to_it_as_they_are() {
    for name in ["/etc/passwd", "../x", "C:\\x", "nbd://host/x", "json:{}"] {
        let descriptor = format!("version=1\nRW 8 FLAT \"{name}\" 0\n");
        let files = Files::default().with("d", descriptor);
        let refusal = files.refusal("d", Access::Read);
        let expected = format!("extent {name:?} is named by the image and was not opened");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

#[test]
fn an_extent_that_is_the_descriptor_is_refused() {
    let descriptor = "version=1\nRW 1 FLAT \"d\" 0\n";
    let files = Files::default().with("d", descriptor);
    assert_eq!(
        files.refusal("d", Access::Read),
        "extent \"d\" is named by the image and was not opened: it is the descriptor itself"
    );
}

/// qemu reads on behind the end of the extent, in the next grains of the same file.
#[test]
fn an_extent_that_ends_inside_a_grain_is_cut_there() {
    let first = ByHand { sectors: 13, ..SMALL };
    let descriptor = "version=1\nCID=00000001\nRW 13 SPARSE \"a\"\nRW 3 SPARSE \"b\"\n";
    let files =
        Files::default().with("d", descriptor).with("a", first.bytes()).with("b", SMALL.bytes());
    let disk = files.open("d", Access::ReadWrite).expect("it opens");
    assert_eq!(disk.size(), 16 * 512);
    let data: Vec<u8> = (0..16_u8).flat_map(|sector| [sector + 1; 512]).collect();
    disk.write(GuestOffset::ZERO, &data).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let disk = files.open("d", Access::Read).expect("it opens");
    let mut bytes = vec![0; 16 * 512];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    assert!(bytes == data);
    let mut sector = [0; 512];
    files.0["b"].read_exact_at(HostOffset(16 * 512), &mut sector).expect("a read");
    assert_eq!(sector, [14; 512]);
}

#[test]
fn a_flat_file_that_is_too_short_reads_up_to_its_end_and_then_fails() {
    let files =
        Files::default().with("d", "version=1\nRW 8 FLAT \"a\" 0\n").with("a", vec![5; 1000]);
    let disk = files.open("d", Access::Read).expect("it opens");
    let mut bytes = [0; 1000];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    assert_eq!(bytes, [5; 1000]);
    let error = disk.read(GuestOffset(1000), &mut bytes).expect_err("it ends").to_string();
    assert_eq!(
        error,
        "a: vmdk: flat extent at 0x3e8 is missing, expected bytes, but the file ends at 0x3e8"
    );
}

#[test]
fn a_broken_table_pointer_is_looked_up_in_the_second_directory() {
    let files = Files::default().with("a", SMALL.bytes());
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[6; 4096]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    files.0["a"].write_at(HostOffset(10 * 512), &[0xFF; 4]).expect("a write to memory");
    let disk = files.open("a", Access::Read).expect("it opens");
    let mut bytes = [0; 4096];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("the second table is good");
    assert_eq!(bytes, [6; 4096]);
}

#[test]
fn a_directory_that_is_not_in_the_file_is_replaced_by_the_second_for_reading_only() {
    let files = Files::default().with("a", SMALL.bytes());
    let disk = files.open("a", Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[6; 4096]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    files.0["a"].write_at(HostOffset(56), &[0, 0xFF]).expect("a write to memory");
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let request = OpenRequest::new(files.0["a"].clone(), &location, &limits);
    let opened = VMDK.open(request).expect("it opens");
    assert_eq!(
        opened.warnings,
        ["Of a, its first grain directory is not in the file; the second is used."]
    );
    let mut bytes = [0; 4096];
    Disk::new(opened.image).read(GuestOffset::ZERO, &mut bytes).expect("the second is good");
    assert_eq!(bytes, [6; 4096]);
    assert_eq!(
        files.refusal("a", Access::ReadWrite),
        "a: vmdk: the image needs repair: its first grain directory is not in the file"
    );
}

/// Opens host devices, and nothing else.
#[derive(Debug)]
struct Devices(Arc<MemoryStorage>);

impl Resolver for Devices {
    fn resolve(&self, reference: &Reference, from: &Location, _: Access) -> Result<Located> {
        match reference.role {
            Role::Device => Ok(Located { store: self.0.clone(), location: from.clone() }),
            _ => Err(reference.denied("it is no device")),
        }
    }
}

#[test]
fn an_extent_that_may_be_a_host_device_is_asked_for_as_one_and_read_and_written_as_it_is() {
    let device = Arc::new(MemoryStorage::new(vec![3; 8 * 512]));
    let (location, limits) = (Location::Other("d".to_owned()), Limits::default());
    let open = |text: &str| {
        let store = Arc::new(MemoryStorage::new(text.as_bytes().to_vec()));
        let resolver = Devices(device.clone());
        let request = OpenRequest::new(store, &location, &limits);
        let access = Access::ReadWrite;
        VMDK.open(OpenRequest { access, resolver: &resolver, ..request }).map(|opened| opened.image)
    };
    for text in [
        "version=1\nCID=00000001\ncreateType=\"fullDevice\"\nRW 8 FLAT \"/dev/sdx\" 0\n",
        "version=1\nCID=00000001\ncreateType=\"vmfsRDM\"\nRW 8 VMFSRDM \"x-rdm.vmdk\"\n",
    ] {
        let disk = Disk::new(open(text).expect("it is given"));
        let mut bytes = [0; 512];
        disk.read(GuestOffset(512), &mut bytes).expect("a read");
        assert_eq!(bytes, [3; 512]);
        disk.write(GuestOffset(1024), &[4; 512]).expect("a write");
    }
    assert_eq!(device.to_vec()[1024], 4);
    open("version=1\ncreateType=\"custom\"\nRW 8 FLAT \"/dev/sdx\" 0\n").expect_err("no device");
}

/// ESX names them by a descriptor; who finds one alone may look into it.
#[test]
fn an_extent_of_esx_without_its_descriptor_is_read_with_a_warning_and_not_written() {
    let mut bytes = b"COWD".to_vec();
    bytes.extend([1, 3, 64, 8, 4, 1, 5_u32].map(u32::to_le_bytes).concat());
    bytes.resize(5 * 512, 0);
    let files = Files::default().with("a", bytes);
    let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
    let opened = VMDK.open(OpenRequest::new(files.0["a"].clone(), &location, &limits));
    let opened = opened.expect("it opens");
    assert_eq!(opened.warnings.len(), 1);
    assert_eq!(opened.image.size(), 64 * 512);
    assert_eq!(
        files.refusal("a", Access::ReadWrite),
        "the image cannot be written: it is an extent without the descriptor that names it"
    );
}

#[test]
fn an_image_of_extents_that_cannot_be_written_is_refused_with_the_reason() {
    let refusal = |name: &str| {
        let case = cases("vmdk").into_iter().find(|case| case.name == name).expect("a case");
        let folder = case.in_memory();
        let (location, limits) = (Location::Other("a".to_owned()), Limits::default());
        let store = folder.file(&case.open).expect("it was put there");
        let request = OpenRequest::new(store, &location, &limits);
        let access = Access::ReadWrite;
        let opened = VMDK.open(OpenRequest { access, resolver: &folder, ..request });
        opened.err().map(|error| error.to_string())
    };
    assert_eq!(
        refusal("seSparse-chain").expect("a refusal"),
        "the image cannot be written: of a seSparse extent, the bitmap, the back map and the \
         journal beside its tables are not known"
    );
    assert_eq!(
        refusal("streamOptimized-footer").expect("a refusal"),
        "the image cannot be written: compressed grains are written in one pass only"
    );
}

/// A large file that is none is not refused for its size.
#[test]
fn a_file_without_any_mark_is_no_descriptor_whatever_its_size() {
    for len in [1 << 10, 2 << 20] {
        let files = Files::default().with("a", vec![b'x'; len]);
        let expected =
            "vmdk: version at 0x0 is \"xxxxxxxxxxxxxxxx\", expected the text of a descriptor";
        assert_eq!(files.refusal("a", Access::Read), expected);
    }
}
