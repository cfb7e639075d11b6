//! What a repair may not do: lose what is right, or show data of one place in another.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, Layer, Limits, Location, OpenRequest, Repair,
    Storage,
};
use anydisk_storage::MemoryStorage;

use crate::double::CrashStorage;
use crate::mutant;
use crate::{PlainImage, Random};

/// Units of a disk that are looked at.
const MOST: u64 = 4096;

/// States of the medium that are looked at.
const STATES: usize = 80;

/// Repairs `damaged`, an image of one file, and looks at its disk in units of `unit` bytes, in the end and
/// in the states that a power failure during the repair may leave: what could be read is the same, and what
/// could not be read is zero or still refused. Returns how many corruptions are left.
///
/// # Panics
/// If it is not so, or if the image does not open.
pub fn shows_nothing_elsewhere(format: &dyn Format, damaged: &[u8], unit: u64) -> u64 {
    let before = units(format, Arc::new(MemoryStorage::new(damaged.to_vec())), unit);
    let before = before.expect("the damaged image opens for reading");
    assert!(before.iter().any(Option::is_some), "nothing of the disk can be read");
    let crash = CrashStorage::over(damaged.to_vec());
    let left = repair(format, Arc::new(crash.clone()));
    assert_eq!(crash.unflushed(), 0, "a repair that is done is on the medium");
    for state in crash.torn_states(STATES, 1) {
        let store = state.storage();
        compare(&before, units(format, store.clone(), unit), &format!("{state}"));
        // What the next repair makes of it.
        repair(format, store.clone());
        compare(&before, units(format, store, unit), &format!("repaired {state}"));
    }
    repair(format, Arc::new(crash.clone()));
    compare(&before, units(format, Arc::new(crash), unit), "repaired twice");
    left
}

type Units = Vec<Option<Vec<u8>>>;

/// Where the image opens at all, each unit is as it was, or was not to be read and is zero.
fn compare(before: &Units, after: Option<Units>, state: &str) {
    let Some(after) = after else { return };
    for (number, pair) in before.iter().zip(&after).enumerate() {
        match pair {
            (Some(old), new) => {
                assert!(new.as_ref() == Some(old), "unit {number} is lost: {state}")
            }
            (None, Some(new)) => {
                assert!(
                    new.iter().all(|byte| *byte == 0),
                    "unit {number} shows something: {state}"
                );
            }
            (None, None) => {}
        }
    }
}

/// Damage at random to the tables of a sound image of one file, each with the repair of it.
#[derive(Clone, Copy)]
pub struct Trials<'a> {
    /// What the image is.
    pub format: &'a dyn Format,
    /// Its bytes.
    pub sound: &'a [u8],
    /// Bytes of the disk that are right or not together.
    pub unit: u64,
    /// Where the tables are, and fields that may be damaged, in whole words.
    pub areas: &'a [Range<usize>],
    /// How a word lies in the file.
    pub word: Word,
    /// What is put there, beside other words of the same areas and the old one with one bit changed.
    pub nasty: &'a [u64],
    /// Trials of a usual run; see [`mutant::Damage::count`].
    pub count: u32,
}

/// Width and order of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// 32 bits, little-endian.
    Little32,
    /// 32 bits, big-endian.
    Big32,
    /// 64 bits, little-endian.
    Little64,
    /// 64 bits, big-endian.
    Big64,
}

impl Trials<'_> {
    /// Damages, repairs once and again, and looks: what was right is right; what was not is right, or
    /// zero, or refused, or as it was. Of an image over another one, nothing is uncovered that it hid.
    ///
    /// # Panics
    /// If it is not so.
    pub fn run(&self, random: &mut Random) {
        let truth =
            units(self.format, Arc::new(MemoryStorage::new(self.sound.to_vec())), self.unit);
        let truth = truth.expect("the sound image opens");
        assert!(truth.iter().all(Option::is_some), "the sound image can be read");
        let (mut repaired, mut left) = (0, 0);
        for _ in 0..mutant::count_or(self.count) {
            let (bytes, what) = self.damage(random);
            match self.try_one(&truth, bytes, &what) {
                Some(0) => repaired += 1,
                _ => left += 1,
            }
        }
        eprintln!("{repaired} images are good in the end, {left} have damage left");
        assert!(repaired > 0 && left > 0, "all the same: {repaired}, {left}");
    }

    /// What is left in the end, if it can be checked at all.
    fn try_one(&self, truth: &Units, bytes: Vec<u8>, what: &str) -> Option<u64> {
        let before = units(self.format, Arc::new(MemoryStorage::new(bytes.clone())), self.unit);
        let before = before.unwrap_or_default();
        let store = Arc::new(MemoryStorage::new(bytes));
        let mut left = None;
        for round in 1..=2 {
            left = try_repair(self.format, store.clone());
            let after = units(self.format, store.clone(), self.unit).unwrap_or_default();
            for (number, truth) in truth.iter().enumerate() {
                let get = |units: &Units| units.get(number).cloned().flatten();
                let (before, after) = (get(&before), get(&after));
                let may_be = after == *truth
                    || before != *truth && (after == before || shows_nothing_else(&after, truth));
                assert!(
                    may_be,
                    "unit {number} after repair {round}, {}: {what}",
                    tell(truth, &before, &after)
                );
            }
        }
        left
    }

    fn damage(&self, random: &mut Random) -> (Vec<u8>, String) {
        let (mut bytes, mut what) = (self.sound.to_vec(), String::new());
        if random.chance(1, 8) {
            let least = self.areas.iter().map(|area| area.end).max().unwrap_or(0);
            bytes.truncate(least + random.index(bytes.len() - least + 1));
            let _ = write!(what, "cut to {:#x}", bytes.len());
            return (bytes, what);
        }
        for _ in 0..=random.below(3) {
            let (at, other) = (self.place(random), self.place(random));
            let old = self.word.get(&bytes, at);
            let new = match random.below(4) {
                0 => old ^ (1 << random.below(8 * self.word.len() as u64)),
                1 => self.word.get(&bytes, other),
                _ => self.nasty[random.index(self.nasty.len())],
            };
            self.word.put(&mut bytes, at, new);
            let _ = write!(what, "{at:#x}: {old:#x} -> {new:#x}; ");
        }
        (bytes, what)
    }

    fn place(&self, random: &mut Random) -> usize {
        let area = &self.areas[random.index(self.areas.len())];
        area.start + random.index(area.len() / self.word.len()) * self.word.len()
    }
}

/// Whether all bytes that can be read are right, or zero.
fn shows_nothing_else(after: &Option<Vec<u8>>, truth: &Option<Vec<u8>>) -> bool {
    let (Some(after), Some(truth)) = (after, truth) else { return true };
    after.iter().zip(truth).all(|(after, truth)| [0, *truth].contains(after))
}

fn tell(truth: &Option<Vec<u8>>, before: &Option<Vec<u8>>, after: &Option<Vec<u8>>) -> String {
    let first = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => format!("{:02x?}", &bytes[..bytes.len().min(4)]),
        None => "not to be read".to_owned(),
    };
    format!("it should be {}, was {}, is {}", first(truth), first(before), first(after))
}

impl Word {
    fn len(self) -> usize {
        match self {
            Self::Little32 | Self::Big32 => 4,
            Self::Little64 | Self::Big64 => 8,
        }
    }

    fn get(self, bytes: &[u8], at: usize) -> u64 {
        let bytes = bytes[at..at + self.len()].iter();
        let join = |sum, byte: &u8| sum << 8 | u64::from(*byte);
        match self {
            Self::Little32 | Self::Little64 => bytes.rev().fold(0, join),
            Self::Big32 | Self::Big64 => bytes.fold(0, join),
        }
    }

    fn put(self, bytes: &mut [u8], at: usize, word: u64) {
        let place = &mut bytes[at..at + self.len()];
        match self {
            Self::Little32 | Self::Little64 => {
                place.copy_from_slice(&word.to_le_bytes()[..self.len()]);
            }
            Self::Big32 | Self::Big64 => {
                place.copy_from_slice(&word.to_be_bytes()[8 - self.len()..]);
            }
        }
    }
}

fn units(format: &dyn Format, store: Arc<dyn Storage>, unit: u64) -> Option<Units> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let opened = format.open(OpenRequest::new(store, &here, &limits)).ok()?;
    // What a damaged image no longer hides is seen.
    let mut layers = vec![Layer::new(opened.image, "image")];
    if opened.backing.is_some() {
        let old = vec![0xEE; usize::try_from(MOST * unit).expect("small")];
        let below = PlainImage::new(Arc::new(MemoryStorage::new(old))).expect("memory");
        layers.push(Layer::new(Arc::new(below), "below"));
    }
    let disk = Disk::from_layers(layers, &limits);
    let read = |number: u64| {
        let at = number * unit;
        let mut bytes = vec![0; usize::try_from(unit.min(disk.size() - at)).expect("small")];
        disk.read(GuestOffset(at), &mut bytes).ok().map(|()| bytes)
    };
    // A size that is damaged may be anything.
    Some((0..disk.size().div_ceil(unit).min(MOST)).map(read).collect())
}

fn repair(format: &dyn Format, store: Arc<dyn Storage>) -> u64 {
    try_repair(format, store).expect("it can be checked")
}

/// Corruptions that are left, if the image can be checked.
fn try_repair(format: &dyn Format, store: Arc<dyn Storage>) -> Option<u64> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let mut open = OpenRequest::new(store, &here, &limits);
    open.access = Access::ReadWrite;
    let request = CheckRequest::new(open).repairing(Repair::All);
    Some(format.check(&request, &mut |_| {}).ok()?.corruptions)
}
