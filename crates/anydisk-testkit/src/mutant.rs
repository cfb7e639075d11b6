//! Images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, Disk, GuestOffset, GuestRange, Limits, Located, Location, Opener, Registry, Result,
};
use anydisk_storage::MemoryStorage;

use crate::golden::{Case, cases};
use crate::memory::Meter;
use crate::{MemoryFolder, Random};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Memory that one attempt may take, in KiB.
const MEMORY: u64 = 64 << 10;

/// Set where no other test runs in the process, whose memory is then that of the test: by a runner
/// that gives each its own, or by whoever runs them one by one.
const ALONE: [&str; 2] = ["NEXTEST", "ANYDISK_ALONE"];

/// Set to a number: so many mutants of each image, instead of the few that a test affords.
const COUNT: &str = "ANYDISK_MUTANTS";

/// How images are damaged, and which.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    /// Up to so many places of an image are changed.
    pub places: u64,
    /// The change is among the first so many bytes; each is as likely as the others, and as the
    /// whole image.
    pub areas: &'static [usize],
    /// What is written over whole words: numbers that overflow, point nowhere, or set one flag.
    pub nasty: Nasty,
    /// Mutants of each image.
    pub count: u32,
    /// Longer images are left out: they only cost time, their tables are no different. So are longer
    /// files beside an image, which is then one that misses a file.
    pub largest: u64,
}

/// Words of the format's own width and byte order.
#[derive(Clone, Copy, Debug)]
pub enum Nasty {
    /// 32 bits, little-endian.
    Little32(&'static [u32]),
    /// 32 bits, big-endian.
    Big32(&'static [u32]),
    /// 64 bits, little-endian.
    Little64(&'static [u64]),
    /// 64 bits, big-endian.
    Big64(&'static [u64]),
}

/// A damaged image, and the folder with the files that belong to it, which may be damaged too.
#[derive(Debug)]
pub struct Mutant<'a> {
    /// The golden image it was.
    pub case: &'a Case,
    /// Its bytes now.
    pub bytes: Vec<u8>,
    /// The other files of the case.
    pub files: &'a MemoryFolder,
    /// How it is to be used: every second one is written.
    pub access: Access,
}

/// How the attempts ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Attempts that went through.
    pub good: u32,
    /// Attempts that ended in an error.
    pub refused: u32,
    /// What the longest attempt took.
    pub longest: Duration,
    /// What the attempt with the most memory took of it, in KiB, where that is measured.
    pub most: u64,
}

impl Tally {
    /// Neither all harmless nor all fatal: else the damage would show nothing.
    ///
    /// # Panics
    /// If fewer than `least` went either way.
    pub fn assert_mixed(self, least: u32) {
        assert!(self.good > least && self.refused > least, "{self:?}");
    }

    fn count(&mut self, outcome: &Result<()>) {
        *if outcome.is_ok() { &mut self.good } else { &mut self.refused } += 1;
    }
}

/// So many, unless the environment asks for another number.
pub(crate) fn count_or(usual: u32) -> u32 {
    std::env::var(COUNT).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

impl Damage {
    /// Tries mutants of all golden images of `format`.
    ///
    /// # Panics
    /// If an attempt takes too long, or too much memory.
    pub fn on_golden(
        &self,
        format: &str,
        random: &mut Random,
        mut attempt: impl FnMut(Mutant<'_>, &mut Random) -> Result<()>,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut images = 0;
        let fits = |case: &&Case| {
            case.files.iter().all(|file| file.name != case.open || file.size <= self.largest)
        };
        for case in cases(format).iter().filter(fits) {
            images += 1;
            let (names, originals) = self.files_of(case);
            let name = case.to_string();
            tally.add(self.on_files(&originals, &name, random, |mut files, access, random| {
                let folder = MemoryFolder::default().with_nameless(case.parent.as_deref());
                let bytes = files.remove(0);
                names.iter().zip(files).for_each(|(name, bytes)| folder.put(name, bytes));
                attempt(Mutant { case, bytes, files: &folder, access }, random)
            }));
        }
        eprintln!("mutants of {images} images of {format}: {tally:?}");
        tally
    }

    /// Tries mutants of one image.
    ///
    /// # Panics
    /// If an attempt takes too long, or too much memory where that can be measured: in a process of
    /// its own.
    pub fn on(
        &self,
        original: &[u8],
        name: &str,
        random: &mut Random,
        mut attempt: impl FnMut(Vec<u8>, Access, &mut Random) -> Result<()>,
    ) -> Tally {
        self.on_files(&[original.to_vec()], name, random, |mut files, access, random| {
            attempt(files.remove(0), access, random)
        })
    }

    /// As [`on`](Self::on), for an image of several files, the first of which is opened.
    fn on_files(
        &self,
        originals: &[Vec<u8>],
        name: &str,
        random: &mut Random,
        mut attempt: impl FnMut(Vec<Vec<u8>>, Access, &mut Random) -> Result<()>,
    ) -> Tally {
        let mut tally = Tally::default();
        let is_alone = ALONE.iter().any(|name| std::env::var_os(name).is_some());
        for number in 0..count_or(self.count) {
            let mut files = originals.to_vec();
            self.damage(&mut files, random);
            let access = if number % 2 == 0 { Access::Read } else { Access::ReadWrite };
            let meter = if is_alone { Meter::start() } else { None };
            let start = Instant::now();
            tally.count(&attempt(files, access, random));
            let taken = start.elapsed();
            let memory = meter.map_or(0, |meter| meter.taken());
            assert!(taken < PATIENCE, "{name}, mutant {number}: took {taken:?}");
            assert!(memory < MEMORY, "{name}, mutant {number}: took {memory} KiB");
            tally.longest = tally.longest.max(taken);
            tally.most = tally.most.max(memory);
        }
        tally
    }

    /// The files of a case: names of those beside the one to open, and the bytes of that and of them.
    fn files_of(&self, case: &Case) -> (Vec<String>, Vec<Vec<u8>>) {
        let unpacked = case.unpack();
        let others = case.files.iter().filter(|file| file.name != case.open);
        let others = others.filter(|file| file.size <= self.largest);
        let names: Vec<String> = others.map(|file| file.name.clone()).collect();
        let paths = names.iter().map(|name| unpacked.file(name));
        let read = |path| std::fs::read(path).expect("it was unpacked");
        let files = std::iter::once(unpacked.path.clone()).chain(paths).map(read).collect();
        (names, files)
    }

    fn damage(&self, files: &mut [Vec<u8>], random: &mut Random) {
        for _ in 0..=random.below(self.places) {
            // Half of the damage is to the others, where there are any.
            let file = match files.len() {
                1 => 0,
                count if random.chance(1, 2) => 1 + random.index(count - 1),
                _ => 0,
            };
            let bytes = &mut files[file];
            let choice = random.index(self.areas.len() + 1);
            let area = self.areas.get(choice).copied().unwrap_or(usize::MAX).min(bytes.len());
            let at = random.index(area.max(1));
            if random.chance(1, 2) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            } else {
                self.nasty.write(bytes, at, random);
            }
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.refused += other.refused;
        self.longest = self.longest.max(other.longest);
        self.most = self.most.max(other.most);
    }
}

impl Nasty {
    /// Puts one of the words over the one that holds byte `at`, if it is a whole one.
    fn write(self, bytes: &mut [u8], at: usize, random: &mut Random) {
        fn put<const N: usize>(bytes: &mut [u8], at: usize, word: [u8; N]) {
            if let Some(place) = bytes.get_mut(at / N * N..).and_then(|rest| rest.first_chunk_mut())
            {
                *place = word;
            }
        }
        match self {
            Self::Little32(words) => put(bytes, at, words[random.index(words.len())].to_le_bytes()),
            Self::Little64(words) => put(bytes, at, words[random.index(words.len())].to_le_bytes()),
            Self::Big32(words) => put(bytes, at, words[random.index(words.len())].to_be_bytes()),
            Self::Big64(words) => put(bytes, at, words[random.index(words.len())].to_be_bytes()),
        }
    }
}

impl Mutant<'_> {
    /// Opens the image as `format` of `registry`, without what lies below it if that does not open.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(self, registry: &Registry, format: &str, limits: Limits) -> Result<Disk> {
        let opener = Opener::new(registry, self.files).with_limits(limits);
        let store = Arc::new(MemoryStorage::new(self.bytes));
        let file = Located { store, location: Location::Other("mutant".to_owned()) };
        if let Ok(chain) = opener.open(file.clone(), Some(format), self.access) {
            return Ok(chain);
        }
        Ok(Disk::new(opener.open_one(file, Some(format), self.access)?.image))
    }
}

/// Maps and reads the beginning of the disk and some places on it; writes a few, if it can.
///
/// # Panics
/// If an extent is empty or longer than asked for. Errors are expected here.
pub fn wander(disk: &Disk, random: &mut Random) {
    let mut buffer = vec![0; 70_000];
    let mut at = 0;
    for step in 0..60 {
        if at >= disk.size() {
            break;
        }
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(disk.size()));
        let skip = match disk.map(rest) {
            Ok(found) => {
                assert!(found.extent.len > 0 && found.extent.len <= rest.len());
                found.extent.len
            }
            Err(_) => 65536,
        };
        let len = usize::try_from(rest.len().min(70_000)).expect("small");
        let _ = disk.read(rest.start(), &mut buffer[..len]);
        // Far away in memory, a write would need all the memory before it.
        if disk.is_writable() && step % 8 == 0 && at < 1 << 22 {
            let _ = disk.write(rest.start(), &buffer[..len.min(1000)]);
            let _ = disk.discard(rest.first(8192));
        }
        at = if step < 30 { at.saturating_add(skip) } else { random.below(disk.size()) };
    }
    let _ = disk.flush();
}
