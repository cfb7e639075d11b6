//! Files built by hand from what is known of the format, and a slow reader that knows nothing of
//! this crate: both must say the same.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Image, Layer, Limits, Location,
    OpenRequest, Options, Reference, Result, Role, Source, Storage,
};
use anydisk_cow::{COW, CowImage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::contents;
use anydisk_testkit::digest::{Reading, content_sha256};
use anydisk_testkit::{ByteModel, PlainImage, Random};

/// The kinds of headers, by hand: where the fields are, as offsets and widths.
#[derive(Clone, Copy, Debug)]
struct Plan {
    big_endian: bool,
    version: u32,
    name: (usize, usize),
    size: usize,
    sectorsize: usize,
    /// Version 3 of user-mode Linux.
    alignment: Option<usize>,
    len: usize,
}

const QEMU_64: Plan = Plan {
    big_endian: true,
    version: 2,
    name: (8, 1024),
    size: 1040,
    sectorsize: 1048,
    alignment: None,
    len: 1056,
};
const QEMU_32: Plan = Plan { size: 1036, sectorsize: 1044, len: 1048, ..QEMU_64 };
const UML_1: Plan =
    Plan { version: 1, name: (8, 256), size: 268, sectorsize: 276, len: 280, ..QEMU_64 };
const UML_1_LITTLE: Plan = Plan { big_endian: false, ..UML_1 };
const UML_1_LONG: Plan = Plan { big_endian: false, size: 272, sectorsize: 280, len: 288, ..UML_1 };
const UML_2: Plan = Plan { name: (8, 4096), size: 4108, sectorsize: 4116, len: 4120, ..QEMU_64 };
const UML_3: Plan = Plan {
    version: 3,
    name: (32, 4096),
    size: 12,
    sectorsize: 20,
    alignment: Some(24),
    len: 4128,
    ..QEMU_64
};
const UML_3_LONG: Plan =
    Plan { name: (36, 4096), size: 16, sectorsize: 24, alignment: Some(28), len: 4132, ..UML_3 };

const ALL: [Plan; 8] =
    [QEMU_64, QEMU_32, UML_1, UML_1_LITTLE, UML_1_LONG, UML_2, UML_3, UML_3_LONG];

impl Plan {
    fn put(&self, bytes: &mut [u8], at: usize, len: usize, value: u64) {
        for index in 0..len {
            let shift = if self.big_endian { len - 1 - index } else { index } * 8;
            bytes[at + index] = u8::try_from(value >> shift & 0xff).expect("a byte");
        }
    }

    fn get(&self, bytes: &[u8], at: usize, len: usize) -> u64 {
        (0..len).fold(0, |value, index| {
            let index = if self.big_endian { index } else { len - 1 - index };
            value << 8 | u64::from(bytes[at + index])
        })
    }

    fn is_old_uml(&self) -> bool {
        self.alignment.is_none() && self.len != 1056 && self.len != 1048
    }

    /// Where bitmap and data begin, and how long the bitmap is.
    fn places(&self, size: usize, sector: usize) -> (usize, usize, usize) {
        let align = if self.alignment.is_some() { 4096 } else { sector };
        let bitmap =
            if self.alignment.is_some() { self.len.next_multiple_of(align) } else { self.len };
        let len = match self.is_old_uml() {
            true => (size + sector - 1) / (8 * sector),
            false => size.div_ceil(sector).div_ceil(8),
        };
        (bitmap, len, (bitmap + len).next_multiple_of(align))
    }

    /// A file in which the sectors of the list hold bytes of their own.
    fn build(&self, size: usize, sector: usize, name: &[u8], here: &[usize]) -> Vec<u8> {
        let (bitmap, len, data) = self.places(size, sector);
        let mut file = vec![0; bitmap + len];
        self.put(&mut file, 0, 4, 0x4F4F_4F4D);
        self.put(&mut file, 4, 4, self.version.into());
        file[self.name.0..][..name.len()].copy_from_slice(name);
        self.put(&mut file, self.size, 8, size as u64);
        self.put(&mut file, self.sectorsize, 4, sector as u64);
        if let Some(at) = self.alignment {
            self.put(&mut file, at, 4, 4096);
        }
        for &number in here {
            file[bitmap + number / 8] |= 1 << (number % 8);
            let at = data + number * sector;
            file.resize(file.len().max(at + sector), 0);
            Random::new(number as u64).fill(&mut file[at..at + sector]);
        }
        file
    }

    /// The slow reader: sector by sector, bit by bit.
    fn read(&self, file: &[u8], below: &[u8]) -> Vec<u8> {
        let size = usize::try_from(self.get(file, self.size, 8)).expect("small");
        let sector = usize::try_from(self.get(file, self.sectorsize, 4)).expect("small");
        let (bitmap, len, data) = self.places(size, sector);
        let mut disk = vec![0; size];
        for (number, out) in disk.chunks_mut(sector).enumerate() {
            let is_here = number / 8 < len && file[bitmap + number / 8] & 1 << (number % 8) != 0;
            let (from, at) =
                if is_here { (file, data + number * sector) } else { (below, number * sector) };
            for (index, byte) in out.iter_mut().enumerate() {
                *byte = from.get(at + index).copied().unwrap_or(0);
            }
        }
        disk
    }
}

fn open(file: &[u8], access: Access) -> Result<(Arc<MemoryStorage>, Arc<dyn Image>)> {
    let store = Arc::new(MemoryStorage::new(file.to_vec()));
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest { access, ..OpenRequest::new(store.clone(), &location, &limits) };
    Ok((store, COW.open(request)?.image))
}

fn over(image: Arc<dyn Image>, below: &[u8]) -> Disk {
    let below = PlainImage::new(Arc::new(MemoryStorage::new(below.to_vec()))).expect("memory");
    Disk::new(Arc::new(below)).overlaid(Layer::new(image, "top"))
}

#[test]
fn every_kind_is_read_as_the_slow_reader_does() {
    let mut random = Random::new(3);
    for plan in ALL {
        for (size, sector) in [(64 << 10, 512), (9 * 512, 512), (20 << 20, 512), (1 << 20, 4096)] {
            if sector != 512 && plan.name.1 == 1024 {
                continue; // QEMU knows no other sectors.
            }
            let count = size / sector;
            let bits = plan.places(size, sector).1 * 8;
            let mut here: Vec<usize> = (0..30).map(|_| random.index(count.min(bits))).collect();
            here.extend(count / 2..(count / 2 + 9).min(count.min(bits)));
            let file = plan.build(size, sector, b"below", &here);
            let mut below = vec![0; size - 700];
            random.fill(&mut below);
            let (_, image) = open(&file, Access::Read).unwrap_or_else(|e| panic!("{plan:?}: {e}"));
            assert!(contents(&over(image, &below)) == plan.read(&file, &below), "{plan:?} {size}");
        }
    }
}

#[test]
fn data_behind_the_end_of_the_file_reads_as_zero() {
    let mut file = QEMU_64.build(64 << 10, 512, b"below", &[3, 9]);
    file.truncate(1536 + 9 * 512 + 100);
    let below = vec![0x11; 64 << 10];
    let (_, image) = open(&file, Access::Read).expect("it opens");
    let found = contents(&over(image, &below));
    assert!(found == QEMU_64.read(&file, &below));
    assert_eq!(found[9 * 512 + 100..10 * 512], [0; 412]);
}

#[test]
fn what_is_written_is_what_the_slow_reader_finds() {
    let (size, mut random) = (3 << 20, Random::new(8));
    for plan in [QEMU_64, QEMU_32] {
        let file = plan.build(size, 512, b"below", &[5, 6, 7, 4000]);
        let mut below = vec![0; size - 1000];
        random.fill(&mut below);
        let mut model = ByteModel::of(&plan.read(&file, &below), size as u64);
        let (store, image) = open(&file, Access::ReadWrite).expect("it opens");
        let disk = over(image, &below);
        for _ in 0..60 {
            let at = random.below(size as u64 - 9000);
            let mut bytes = vec![0; random.index(9000)];
            random.fill(&mut bytes);
            disk.write(GuestOffset(at), &bytes).expect("a write");
            model.write(at, &bytes);
        }
        disk.flush().expect("a flush");
        let file = store.to_vec();
        assert!(plan.read(&file, &below) == model.contents(), "{plan:?}");
        assert_eq!(file[..plan.len], plan.build(size, 512, b"below", &[])[..plan.len]);
        // What was not written still shows the file below.
        let ones: u32 = file[plan.len..][..768].iter().map(|byte| byte.count_ones()).sum();
        assert!((300..1800).contains(&ones), "{ones} sectors are here");
    }
}

/// 1 MiB over `base.raw`, sector 3 written with 0xA5 and sector 9 with 0x5A: the example of
/// docs/formats/cow.md, whose hashes were computed without this crate.
#[test]
fn the_worked_example_has_the_bytes_of_its_description() {
    for (plan, mtime_at, sha256) in [
        (QEMU_64, 1032, "1269cacff2a7d8329325271a17539d7b70bda0ff738b6173e0481cf28702e561"),
        (QEMU_32, 1032, "aee00f7d5b9780846a7a5264527ec8d11fe5bcb50220df56f0768bcadbb8d4fc"),
    ] {
        let mut file = plan.build(1 << 20, 512, b"base.raw", &[]);
        plan.put(&mut file, mtime_at, 4, 0x40B3_3A00);
        let (store, image) = open(&file, Access::ReadWrite).expect("it opens");
        let disk = over(image, &vec![0x11; 1 << 20]);
        disk.write(GuestOffset(3 * 512), &[0xA5; 512]).expect("a write");
        disk.write(GuestOffset(9 * 512), &[0x5A; 512]).expect("a write");
        disk.flush().expect("a flush");
        let plain = PlainImage::new(store).expect("memory");
        let found = content_sha256(&Disk::new(Arc::new(plain)), Reading::Large).expect("a read");
        assert_eq!(found, sha256, "{plan:?}");
    }
}

#[test]
fn a_new_image_is_empty_and_names_what_lies_below() {
    let store = Arc::new(MemoryStorage::default());
    let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
    let limits = Limits::default();
    let below = Reference::new(Role::Backing, "below");
    let request = CreateRequest::new(store.clone(), &location, 1 << 20, &options, &limits);
    let image = COW.create(CreateRequest { backing: Some(&below), ..request }).expect("an image");
    image.writer().expect("open for writing").flush().expect("a flush");
    assert!(store.to_vec() == QEMU_64.build(1 << 20, 512, b"below", &[]));
    let image = CowImage::open(store, &limits).expect("it opens");
    assert_eq!(image.backing(), Some(below));
}

#[test]
fn names_and_sizes_that_the_header_cannot_hold_are_refused() {
    let try_create = |size, name: &str| {
        let store = Arc::new(MemoryStorage::default());
        let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
        let limits = Limits::default();
        let below = Reference::new(Role::Backing, name);
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        let request = CreateRequest { backing: Some(&below), ..request };
        COW.create(request).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(try_create(512, &"n".repeat(1023)), Ok(()));
    assert!(try_create(512, &"n".repeat(1024)).unwrap_err().contains("at most 1023 bytes"));
    assert!(try_create(512, "a\0b").unwrap_err().contains("none of them 0"));
    assert!(try_create(1 << 63, "a").unwrap_err().contains("ends below 2^63"));
}

#[test]
fn images_of_user_mode_linux_are_not_written() {
    let file = UML_2.build(64 << 10, 512, b"below", &[]);
    let error = open(&file, Access::ReadWrite).unwrap_err().to_string();
    assert_eq!(error, "the image cannot be written: an image of user-mode Linux is only read");
}

#[test]
fn over_a_backing_file_a_sector_that_is_here_is_zeroed_in_its_place() {
    let file = QEMU_64.build(64 << 10, 512, b"below", &[3]);
    let (store, image) = open(&file, Access::ReadWrite).expect("it opens");
    let disk = over(image, &vec![0x11; 64 << 10]);
    let range = |at, len| GuestRange::new(GuestOffset(at), len).expect("small");
    disk.discard(range(2 * 512, 3 * 512)).expect("a discard");
    let found = contents(&disk);
    assert_eq!((found[2 * 512], found[3 * 512], found[4 * 512]), (0x11, 0, 0x11));
    disk.zero(range(4 * 512, 512), true).expect("a zeroing");
    let found = disk.map(range(4 * 512, 512)).expect("a map").extent;
    assert!(matches!(found.source, Source::Data { .. }), "{:?}", found.source);
    disk.flush().expect("a flush");
    assert!(store.len().expect("memory has a length") >= 1536 + 5 * 512);
}

/// 100 TiB: the bitmap has 25 GiB, and all of it is a hole. A sector is written in its midst.
#[test]
fn an_empty_disk_of_a_hundred_tebibytes_is_mapped_in_a_few_steps() {
    let store = Arc::new(MemoryStorage::default());
    let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
    let limits = Limits::default();
    let request = CreateRequest::new(store.clone(), &location, 100 << 40, &options, &limits);
    let disk = Disk::new(COW.create(request).expect("an image"));
    let runs = |disk: &Disk| {
        let mut rest = GuestRange::whole(disk.size());
        let mut runs = Vec::new();
        while !rest.is_empty() {
            let extent = disk.map(rest).expect("it can be mapped").extent;
            runs.push((extent.len, matches!(extent.source, Source::Absent { .. })));
            rest = rest.skip(extent.len);
            assert!(runs.len() < 1000, "it is read piece by piece");
        }
        runs
    };
    assert!(runs(&disk).iter().all(|(_, is_absent)| *is_absent));
    disk.write(GuestOffset(50 << 40), &[7; 512]).expect("a write");
    let data: Vec<_> = runs(&disk).into_iter().filter(|(_, is_absent)| !is_absent).collect();
    assert_eq!(data, [(512, false)]);
    disk.flush().expect("a flush");
    let image = CowImage::open(store, &Limits::default()).expect("it opens");
    let data: Vec<_> =
        runs(&Disk::new(Arc::new(image))).into_iter().filter(|(_, absent)| !absent).collect();
    assert_eq!(data, [(512, false)]);
}
