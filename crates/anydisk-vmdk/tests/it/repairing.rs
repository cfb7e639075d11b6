//! Whatever is damaged at random, a repair keeps what could be read, and shows nothing of one place in another.

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Encode, Format, GuestOffset, Layer, Limits, Location, OpenRequest,
    Repair, Storage,
};
use anydisk_raw::RAW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_vmdk::VMDK;

use crate::common::OneFile;

const SECTOR: u64 = 512;

/// Set to a number: so many damages of each image, instead of the few that a test affords.
const COUNT: &str = "ANYDISK_MUTANTS";

/// An image whose content is known.
struct Sound {
    name: &'static str,
    /// The text that names `file`, where that does not hold it.
    descriptor: Option<Vec<u8>>,
    file: Vec<u8>,
    disk: Vec<u8>,
    /// The disk below.
    below: Option<Vec<u8>>,
    is_packed: bool,
    /// Where directories and tables are, each with its length.
    metadata: Vec<(u64, u64)>,
    /// Sectors at which something begins.
    places: Vec<u64>,
}

/// How an image is laid out.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    kind: Kind,
    /// Sectors of a grain.
    grain: u64,
    /// Entries of a table.
    entries: u64,
    sectors: u64,
    two_sets: bool,
    zeroed: bool,
    below: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Tables, then grains.
    Hosted,
    /// A redo log of ESX: grains and tables as they came.
    Cowd,
    /// Packed grains behind the tables.
    Packed,
    /// Packed grains, then the tables. `footer`: the header leads to it.
    Stream { footer: bool, markers: bool },
}

const HOSTED: Shape = Shape {
    name: "hosted",
    kind: Kind::Hosted,
    grain: 8,
    entries: 8,
    sectors: 8 * 61,
    two_sets: true,
    zeroed: false,
    below: false,
};

const STREAM: Shape = Shape {
    name: "stream",
    kind: Kind::Stream { footer: true, markers: true },
    two_sets: false,
    ..HOSTED
};

const SHAPES: &[Shape] = &[
    HOSTED,
    Shape { name: "one set", two_sets: false, ..HOSTED },
    Shape { name: "small grains", grain: 1, entries: 64, sectors: 200, ..HOSTED },
    Shape { name: "one table", grain: 16, entries: 512, sectors: 16 * 50, ..HOSTED },
    Shape {
        name: "one table in one set",
        grain: 1,
        entries: 512,
        sectors: 333,
        two_sets: false,
        ..HOSTED
    },
    Shape { name: "zeroed grains", zeroed: true, ..HOSTED },
    Shape { name: "delta", below: true, ..HOSTED },
    Shape { name: "delta of one set", below: true, two_sets: false, ..HOSTED },
    Shape { name: "delta with zeroed grains", below: true, zeroed: true, ..HOSTED },
    Shape {
        name: "redo log",
        kind: Kind::Cowd,
        grain: 1,
        entries: 4096,
        sectors: 4096 + 900,
        below: true,
        two_sets: false,
        ..HOSTED
    },
    Shape {
        name: "base as a redo log",
        kind: Kind::Cowd,
        grain: 1,
        entries: 4096,
        sectors: 4096 + 700,
        two_sets: false,
        ..HOSTED
    },
    Shape { name: "packed", kind: Kind::Packed, ..HOSTED },
    Shape { name: "packed in one set", kind: Kind::Packed, two_sets: false, ..HOSTED },
    STREAM,
    Shape { name: "stream of two sets", two_sets: true, ..STREAM },
    Shape {
        name: "stream without a footer",
        kind: Kind::Stream { footer: false, markers: true },
        ..STREAM
    },
    Shape {
        name: "stream without markers",
        kind: Kind::Stream { footer: false, markers: false },
        ..STREAM
    },
    Shape {
        name: "two sets behind the grains",
        kind: Kind::Stream { footer: false, markers: true },
        two_sets: true,
        ..STREAM
    },
];

/// What is in the file, as it grows.
struct Writer {
    bytes: Vec<u8>,
    metadata: Vec<(u64, u64)>,
    places: Vec<u64>,
}

impl Writer {
    fn sector(&self) -> u64 {
        self.bytes.len() as u64 / SECTOR
    }

    /// Appends bytes, fills their sector up, and says which was the first.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let sector = self.sector();
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.places.push(sector);
        sector
    }

    fn put_entries(&mut self, entries: &[u64]) -> u64 {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| word(*entry)).collect();
        let sector = self.put(&bytes);
        self.metadata.push((sector * SECTOR, bytes.len() as u64));
        sector
    }

    /// What stands before metadata.
    fn mark(&mut self, kind: u32, sectors: u64) {
        let mut marker = sectors.to_le_bytes().to_vec();
        marker.extend([0, kind].map(u32::to_le_bytes).concat());
        self.put(&marker);
    }

    fn fill_to(&mut self, sector: u64) {
        self.bytes.resize(usize::try_from(sector * SECTOR).expect("small"), 0);
    }
}

fn word(value: u64) -> [u8; 4] {
    u32::try_from(value).expect("32 bits").to_le_bytes()
}

impl Shape {
    fn grains(self) -> u64 {
        self.sectors.div_ceil(self.grain)
    }

    fn tables(self) -> u64 {
        self.grains().div_ceil(self.entries)
    }

    fn descriptor(self) -> Vec<u8> {
        let parent = match self.below {
            true => "parentCID=0badcafe\nparentFileNameHint=\"below.vmdk\"",
            false => "parentCID=ffffffff",
        };
        let kind = if self.kind == Kind::Cowd { "VMFSSPARSE" } else { "SPARSE" };
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\n{parent}\ncreateType=\"monolithicSparse\"\n\
             RW {} {kind} \"x.vmdk\"\n",
            self.sectors
        )
        .into_bytes()
    }

    /// A header or footer; `directories`: the second and the first, 0: there is none.
    fn header(self, directories: [u64; 2], overhead: u64) -> Vec<u8> {
        let mut flags = 1 | u32::from(directories[0] != 0) << 1 | u32::from(self.zeroed) << 2;
        let packed = !matches!(self.kind, Kind::Hosted | Kind::Cowd);
        flags |= u32::from(packed) << 16;
        flags |=
            u32::from(packed && self.kind != Kind::Stream { footer: false, markers: false }) << 17;
        let version = if packed { 3_u32 } else { 1 + u32::from(self.zeroed) };
        let mut bytes = b"KDMV".to_vec();
        bytes.extend([version, flags].map(u32::to_le_bytes).concat());
        bytes.extend([self.sectors, self.grain, 1, 4].map(u64::to_le_bytes).concat());
        bytes.extend(word(self.entries));
        bytes.extend([directories[0], directories[1], overhead].map(u64::to_le_bytes).concat());
        bytes.extend(b"\0\n \r\n");
        bytes.extend([u8::from(packed), 0]);
        bytes.resize(512, 0);
        bytes
    }

    /// The image, with what is in its grains.
    fn build(self, random: &mut Random) -> Sound {
        let below = self.below.then(|| content(self.sectors, 0xB0));
        let len = usize::try_from(self.sectors * SECTOR).expect("small");
        let mut disk = below.clone().unwrap_or_else(|| vec![0; len]);
        let own = content(self.sectors, 0xA0);
        let mut entries = vec![0; usize::try_from(self.tables() * self.entries).expect("small")];
        let mut order: Vec<_> = (0..self.grains()).filter(|_| random.chance(3, 5)).collect();
        if self.kind == Kind::Cowd {
            order.retain(|number| number % 64 < 3 || *number > self.entries + 500);
        }
        for index in (1..order.len()).rev() {
            order.swap(index, random.index(index + 1));
        }
        let range = |number: u64| {
            let at = usize::try_from(number * self.grain * SECTOR).expect("small");
            at..len.min(at + usize::try_from(self.grain * SECTOR).expect("small"))
        };
        if self.zeroed {
            for number in (0..self.grains()).filter(|number| !order.contains(number)).step_by(3) {
                entries[usize::try_from(number).expect("small")] = 1;
                disk[range(number)].fill(0);
            }
        }
        let mut out = Writer { bytes: vec![0; 512], metadata: Vec::new(), places: Vec::new() };
        if self.kind != Kind::Cowd {
            out.put(&self.descriptor());
            out.fill_to(5);
        }
        let table_sectors = (self.entries * 4).div_ceil(SECTOR);
        let set_sectors = 1 + self.tables() * table_sectors;
        // Second and first.
        let sets: &[usize] = if self.two_sets { &[0, 1] } else { &[1] };
        let front = matches!(self.kind, Kind::Hosted | Kind::Packed);
        let overhead = match front {
            true => (5 + sets.len() as u64 * set_sectors).next_multiple_of(self.grain) + self.grain,
            false if self.kind == Kind::Cowd => 5,
            false => 16,
        };
        out.fill_to(overhead);
        let mut cowd_tables = Vec::new();
        for number in order {
            let bytes = &own[range(number)];
            disk[range(number)].copy_from_slice(bytes);
            let table = number / self.entries;
            if self.kind == Kind::Cowd && !cowd_tables.iter().any(|(known, _)| *known == table) {
                let empty = vec![0; usize::try_from(self.entries).expect("small")];
                cowd_tables.push((table, out.put_entries(&empty)));
            }
            let mut grain = bytes.to_vec();
            grain.resize(usize::try_from(self.grain * SECTOR).expect("small"), 0);
            if !matches!(self.kind, Kind::Hosted | Kind::Cowd) {
                let mut packed = Vec::new();
                let encoder = anydisk_codec::zlib(6).expect("a level");
                assert!(encoder.encode(&grain, usize::MAX, &mut packed).expect("it packs"));
                let size = word(packed.len() as u64);
                grain = match self.kind {
                    Kind::Stream { markers: false, .. } => size.to_vec(),
                    _ => [&(number * self.grain).to_le_bytes()[..], &size].concat(),
                };
                grain.extend(packed);
            }
            entries[usize::try_from(number).expect("small")] = out.put(&grain);
        }
        let tables: Vec<_> =
            entries.chunks(usize::try_from(self.entries).expect("small")).collect();
        let mut directories = [0; 2];
        match self.kind {
            Kind::Cowd => {
                let mut directory = vec![0; tables.len()];
                for (number, sector) in cowd_tables {
                    let at = usize::try_from(sector * SECTOR).expect("small");
                    let number = usize::try_from(number).expect("small");
                    directory[number] = sector;
                    let bytes: Vec<u8> = tables[number].iter().flat_map(|it| word(*it)).collect();
                    out.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                let mut header = b"COWD".to_vec();
                let free = out.sector();
                let fields = [1, 3, self.sectors, self.grain, 4, self.tables(), free];
                header.extend(fields.map(word).concat());
                out.bytes[..header.len()].copy_from_slice(&header);
                let bytes: Vec<u8> = directory.iter().flat_map(|it| word(*it)).collect();
                out.bytes[2048..2048 + bytes.len()].copy_from_slice(&bytes);
                out.metadata.push((2048, bytes.len() as u64));
            }
            Kind::Hosted | Kind::Packed => {
                let grains =
                    out.bytes.split_off(usize::try_from(overhead * SECTOR).expect("small"));
                out.bytes.truncate(5 * 512);
                for set in sets.iter().copied() {
                    let first = out.sector() + 1;
                    let named: Vec<_> =
                        (0..self.tables()).map(|number| first + number * table_sectors).collect();
                    directories[set] = out.put_entries(&named);
                    for table in &tables {
                        out.put_entries(table);
                    }
                }
                out.fill_to(overhead);
                out.bytes.extend(grains);
                let header = self.header(directories, overhead);
                out.bytes[..512].copy_from_slice(&header);
            }
            Kind::Stream { footer, markers } => {
                for set in sets.iter().copied().rev() {
                    let named = tables.iter().map(|table| {
                        if table.iter().all(|entry| *entry == 0) {
                            return 0;
                        }
                        if markers {
                            out.mark(1, table_sectors);
                        }
                        out.put_entries(table)
                    });
                    let named: Vec<_> = named.collect();
                    if markers {
                        out.mark(2, 1);
                    }
                    directories[set] = out.put_entries(&named);
                }
                let header = match footer {
                    true => {
                        out.mark(3, 1);
                        out.put(&self.header(directories, overhead));
                        out.mark(0, 0);
                        let mut header = self.header(directories, overhead);
                        header[56..64].fill(0xFF);
                        header
                    }
                    false => self.header(directories, overhead),
                };
                out.bytes[..512].copy_from_slice(&header);
            }
        }
        let Writer { bytes: file, metadata, places } = out;
        let descriptor = (self.kind == Kind::Cowd).then(|| self.descriptor());
        let is_packed = !matches!(self.kind, Kind::Hosted | Kind::Cowd);
        Sound { name: self.name, descriptor, file, disk, below, is_packed, metadata, places }
    }
}

/// Bytes that tell their sector, none of them zero.
fn content(sectors: u64, first: u8) -> Vec<u8> {
    let sector = |number: u64| {
        let mut bytes = [first; 512];
        bytes[..8].copy_from_slice(&(number | 0x0101_0101_0101_0101 << 7).to_be_bytes());
        bytes
    };
    (0..sectors).flat_map(sector).collect()
}

/// A sector as it is read, if it can be.
type Sectors = Vec<Option<Vec<u8>>>;

impl Sound {
    fn request<T>(
        &self,
        file: &Arc<MemoryStorage>,
        access: Access,
        use_it: impl FnOnce(OpenRequest<'_>) -> T,
    ) -> T {
        let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
        let extent = OneFile(file.clone());
        let store: Arc<dyn Storage> = match &self.descriptor {
            Some(text) => Arc::new(MemoryStorage::new(text.clone())),
            None => file.clone(),
        };
        let request = OpenRequest::new(store, &here, &limits);
        use_it(OpenRequest { access, resolver: &extent, ..request })
    }

    fn read(&self, file: &Arc<MemoryStorage>) -> Sectors {
        let nothing = || vec![None; self.disk.len() / 512];
        let Ok(opened) = self.request(file, Access::Read, |request| VMDK.open(request)) else {
            return nothing();
        };
        let mut layers = vec![Layer::new(opened.image, "image")];
        let (here, limits) = (Location::Other("below".to_owned()), Limits::default());
        if let Some(below) = &self.below {
            let store = Arc::new(MemoryStorage::new(below.clone()));
            let below = RAW.open(OpenRequest::new(store, &here, &limits)).expect("it opens");
            layers.push(Layer::new(below.image, "below"));
        }
        let disk = Disk::from_layers(layers, &limits);
        if disk.size() != self.disk.len() as u64 {
            return nothing();
        }
        let mut sectors = Vec::new();
        read_halves(&disk, 0, self.disk.len() as u64 / SECTOR, &mut sectors);
        sectors
    }

    fn repair(&self, file: &Arc<MemoryStorage>) -> Vec<String> {
        self.request(file, Access::ReadWrite, |open| {
            let mut lines = Vec::new();
            let request = CheckRequest::new(open).repairing(Repair::All);
            let report = VMDK.check(&request, &mut |found| {
                let done = if found.repaired { " (mended)" } else { "" };
                lines.push(format!("{} at {}{done}: {}", found.kind, found.at, found.text));
            });
            lines.extend(report.err().map(|error| error.to_string()));
            lines
        })
    }

    /// Changes some words of the file, and may cut it; tells what was done.
    fn damage(&self, random: &mut Random) -> (Vec<u8>, Vec<String>) {
        let (mut file, mut done) = (self.file.clone(), Vec::new());
        for _ in 0..=random.below(4) {
            let at = match random.below(20) {
                0 => 48 + random.below(4) * 4,
                // Of plain grains, that would be another content.
                1 if self.is_packed => random.below(file.len() as u64 / 4 - 200) * 4 + 800,
                _ => {
                    // A directory as often as all tables together.
                    let is_small = |of: &&(u64, u64)| of.1 <= self.metadata[0].1.min(64);
                    let small: Vec<_> = self.metadata.iter().filter(is_small).collect();
                    let (at, len) = match small.len() {
                        0 => self.metadata[random.index(self.metadata.len())],
                        count if random.chance(1, 2) => *small[random.index(count)],
                        _ => self.metadata[random.index(self.metadata.len())],
                    };
                    at + random.below((len / 4).min(300)) * 4
                }
            };
            let at = usize::try_from(at).expect("small").min(file.len() - 4);
            let old = u32::from_le_bytes(*file[at..].first_chunk().expect("4 bytes"));
            let end = u32::try_from(file.len().div_ceil(512)).expect("small");
            let place = |random: &mut Random| {
                u32::try_from(self.places[random.index(self.places.len())]).expect("small")
            };
            let new = match random.below(12) {
                0 | 1 => 0,
                2 => 1,
                3 => u32::try_from(random.below(40)).expect("small"),
                4..=6 => place(random),
                7 => place(random) + 1,
                8 => end + u32::try_from(random.below(9)).expect("small"),
                9 => u32::try_from(random.below(u64::from(end))).expect("small"),
                _ => old ^ 1 << random.below(32),
            };
            done.push(format!("{at:#x}: {old:#x} -> {new:#x}"));
            file[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        if random.chance(1, 8) {
            // Inside a sector, a part of it would be shown when the rest is filled up.
            let len = random.index(file.len()).max(file.len() / 2) / 512 * 512;
            file.truncate(len);
            done.push(format!("cut at {len:#x}"));
        }
        (file, done)
    }

    /// What of a disk before and after a repair breaks the law.
    fn broken(&self, before: &Sectors, after: &Sectors) -> Option<String> {
        let disk = self.disk.chunks(512);
        for (number, ((right, before), after)) in disk.zip(before).zip(after).enumerate() {
            let is_right = |it: &Option<Vec<u8>>| it.as_deref() == Some(right);
            let is_zero = after.as_ref().is_some_and(|it| it.iter().all(|byte| *byte == 0));
            let is_kept = match before {
                Some(_) if is_right(before) => is_right(after),
                Some(_) => after.is_none() || is_right(after) || is_zero || before == after,
                None => after.is_none() || is_right(after) || is_zero,
            };
            if !is_kept {
                let words = [before, after].map(|it| match it {
                    None => "refused".to_owned(),
                    Some(_) if is_right(it) => "right".to_owned(),
                    Some(bytes) => format!("{:02x?}", &bytes[..9]),
                });
                return Some(format!("sector {number}: {} -> {}", words[0], words[1]));
            }
        }
        None
    }
}

fn read_halves(disk: &Disk, from: u64, to: u64, out: &mut Sectors) {
    let mut bytes = vec![0; usize::try_from((to - from) * SECTOR).expect("small")];
    match disk.read(GuestOffset(from * SECTOR), &mut bytes) {
        Ok(()) => out.extend(bytes.chunks(512).map(|sector| Some(sector.to_vec()))),
        Err(_) if to - from == 1 => out.push(None),
        Err(_) => {
            let half = u64::midpoint(from, to);
            read_halves(disk, from, half, out);
            read_halves(disk, half, to, out);
        }
    }
}

#[test]
fn whatever_is_damaged_a_repair_keeps_what_could_be_read_and_shows_it_nowhere_else() {
    let count = std::env::var(COUNT).ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let mut failures = Vec::new();
    for shape in SHAPES {
        let mut random = Random::new(11);
        let sound = shape.build(&mut random);
        let whole = Arc::new(MemoryStorage::new(sound.file.clone()));
        let read = sound.read(&whole);
        assert_eq!(sound.broken(&read, &read), None, "{}", sound.name);
        let is_whole =
            read.iter().zip(sound.disk.chunks(512)).all(|(it, right)| it.as_deref() == Some(right));
        assert!(is_whole, "{}", sound.name);
        assert_eq!(sound.repair(&whole), Vec::<String>::new(), "{}", sound.name);
        assert!(whole.to_vec() == sound.file, "{}", sound.name);
        for number in 0..count {
            let mut random = Random::new(number);
            let (bytes, done) = sound.damage(&mut random);
            let file = Arc::new(MemoryStorage::new(bytes));
            let before = sound.read(&file);
            let mut lines = Vec::new();
            for run in 1..=3 {
                lines.push(format!("run {run}"));
                lines.extend(sound.repair(&file));
                if let Some(broken) = sound.broken(&before, &sound.read(&file)) {
                    failures.push(format!(
                        "{}, seed {number}: {done:?}\n  {broken} in run {run}\n    {}",
                        sound.name,
                        lines.iter().take(20).cloned().collect::<Vec<_>>().join("\n    ")
                    ));
                    break;
                }
            }
        }
    }
    let shown = failures.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {count} each:\n{shown}", failures.len());
}

/// A packed grain says itself whether it is the one meant.
#[test]
fn a_packed_grain_is_read_through_the_second_table_wherever_the_first_leads() {
    let is_meant =
        |shape: &&Shape| shape.two_sets && !matches!(shape.kind, Kind::Hosted | Kind::Cowd);
    for shape in SHAPES.iter().filter(is_meant) {
        let sound = shape.build(&mut Random::new(3));
        let right = sound.read(&Arc::new(MemoryStorage::new(sound.file.clone())));
        let sectors = |at: usize| sound.file[at..].first_chunk().map(|it| u32::from_le_bytes(*it));
        let directory = usize::try_from(sectors(56).unwrap_or_default()).expect("small") * 512;
        let directory = match shape.kind {
            Kind::Stream { footer: true, .. } => {
                let footer = sound.file.len() - 1024;
                usize::try_from(sectors(footer + 56).unwrap_or_default()).expect("small") * 512
            }
            _ => directory,
        };
        let table = usize::try_from(sectors(directory).unwrap_or_default()).expect("small") * 512;
        let named = (0..8).map(|index| table + index * 4).filter(|at| sectors(*at) != Some(0));
        let named: Vec<_> = named.collect();
        assert!(named.len() > 2, "{}", sound.name);
        for (at, other) in named.iter().zip(named.iter().skip(1)) {
            for wrong in [0, 3, sectors(*other).unwrap_or_default(), u32::MAX] {
                let mut file = sound.file.clone();
                file[*at..at + 4].copy_from_slice(&wrong.to_le_bytes());
                let file = Arc::new(MemoryStorage::new(file));
                assert!(sound.read(&file) == right, "{}: {wrong:#x} at {at:#x}", sound.name);
                sound.repair(&file);
                assert!(sound.read(&file) == right, "{}: {wrong:#x} at {at:#x}", sound.name);
            }
        }
    }
}

/// A stream whose tables lie behind its grains, named by its header, was cut off.
#[test]
fn of_a_stream_without_its_directory_all_grains_before_the_cut_come_back() {
    let is_meant = |shape: &&Shape| shape.kind == Kind::Stream { footer: false, markers: true };
    for shape in SHAPES.iter().filter(is_meant) {
        let sound = shape.build(&mut Random::new(5));
        let first_table = sound.metadata.iter().map(|(at, _)| *at).min().expect("a table");
        for cut in [first_table, first_table + 40] {
            let mut bytes = sound.file.clone();
            bytes.truncate(usize::try_from(cut).expect("small"));
            let file = Arc::new(MemoryStorage::new(bytes));
            let lines = sound.repair(&file);
            assert!(lines[0].starts_with("footer-lost"), "{lines:?}");
            let read = sound.read(&file);
            let is_right = read.iter().zip(sound.disk.chunks(512));
            let is_right = is_right.filter(|(it, right)| it.as_deref() == Some(right)).count();
            assert_eq!(is_right, read.len(), "{}: {lines:?}", sound.name);
            assert_eq!(sound.repair(&file), Vec::<String>::new(), "{}", sound.name);
        }
    }
}
