//! Which bitmaps record, and the question that every write asks before it changes anything.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anydisk_core::{BitmapInfo, Error, GuestRange, HostOffset, Result};

use super::bits::Bits;
use super::directory::FLAGS;
use super::{BitmapEntry, Directory, Place};

/// The bitmaps of one image that is open for writing.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Some bitmap records. Without one, a write asks no more than this.
    recording: AtomicBool,
    /// A write waits for a bitmap to be marked as in use.
    wanted: AtomicBool,
    /// Held shared by whoever sets bits. Changed while no write-back runs.
    state: RwLock<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) place: Option<Place>,
    /// The size of the disk changes: nothing is stored until the tables fit it.
    pub(super) suspended: bool,
    pub(super) bitmaps: Vec<Bitmap>,
}

/// One bitmap of the directory.
#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    /// As the directory has it, but for the mark that this image itself sets.
    pub(super) entry: BitmapEntry,
    /// This image has marked it as in use, on the medium.
    pub(super) marked: bool,
    /// Bits that are set in memory: of those that record, and those that are being merged into.
    pub(super) bits: Option<Arc<Bits>>,
}

impl Bitmap {
    pub(super) fn new(entry: BitmapEntry, size: u64) -> Self {
        let records = entry.is_enabled() && !entry.is_in_use();
        let bits = || Arc::new(Bits::new(entry.scale(size, 0).bits()));
        Self { bits: records.then(bits), marked: false, entry }
    }

    /// Another writer left it in use: it is kept, and nothing is done with it.
    pub(super) fn is_inconsistent(&self) -> bool {
        self.entry.is_in_use()
    }

    pub(super) fn records(&self) -> bool {
        self.entry.is_enabled() && !self.is_inconsistent()
    }

    /// Whether the bits of `range` are set, now or before. False if the bitmap must be marked first.
    fn note(&self, range: GuestRange) -> bool {
        let Some(bits) = &self.bits else { return true };
        let first = range.start().get() >> self.entry.granularity_bits;
        let end = range.end().get().div_ceil(1 << self.entry.granularity_bits);
        if !self.marked {
            // Bits are known to be set only if they are on the medium or on their way there.
            return bits.all_set(first, end);
        }
        bits.set(first, end);
        true
    }
}

impl Keeper {
    pub(crate) fn new(directory: Directory, size: u64) -> Self {
        let bitmaps = directory.entries.into_iter().map(|entry| Bitmap::new(entry, size));
        let place = directory.place;
        let state = State { place, suspended: false, bitmaps: bitmaps.collect() };
        let recording = AtomicBool::new(state.bitmaps.iter().any(Bitmap::records));
        Self { recording, wanted: AtomicBool::new(false), state: RwLock::new(state) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that `range` is about to change. False: nothing was recorded, a bitmap must be
    /// [marked](crate::WritableImage::mark_bitmaps) first.
    #[inline]
    #[must_use]
    pub(crate) fn note(&self, range: GuestRange) -> bool {
        !self.recording.load(SeqCst) || self.note_in_each(range)
    }

    #[cold]
    fn note_in_each(&self, range: GuestRange) -> bool {
        let state = self.read();
        let noted = state.bitmaps.iter().filter(|one| one.records()).all(|one| one.note(range));
        if !noted {
            self.wanted.store(true, SeqCst);
        }
        noted
    }

    /// Records `range` in this bitmap, whether or not it records writes. False as in
    /// [`note`](Self::note).
    pub(super) fn note_in(&self, name: &str, range: GuestRange) -> Result<bool> {
        let state = self.read();
        let bitmap = &state.bitmaps[state.usable(name)?];
        Ok(bitmap.bits.is_some() && bitmap.note(range))
    }

    /// Whether a write waits for a mark.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    pub(super) fn satisfied(&self) {
        self.wanted.store(false, SeqCst);
    }

    /// Directory and tables lie elsewhere now; nothing else has changed. Nobody records meanwhile.
    pub(crate) fn move_to(&self, directory: &Directory) {
        self.change(|state| {
            state.place = directory.place;
            for (bitmap, entry) in state.bitmaps.iter_mut().zip(&directory.entries) {
                bitmap.entry.table = entry.table;
            }
        });
    }

    /// All bitmaps, as they are now.
    pub(crate) fn list(&self) -> Vec<BitmapInfo> {
        self.read().bitmaps.iter().map(|bitmap| bitmap.entry.info()).collect()
    }

    /// Changes the bitmaps. The caller holds the image's round.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.write();
        let answer = change(&mut state);
        self.recording.store(state.bitmaps.iter().any(Bitmap::records), SeqCst);
        answer
    }
}

impl State {
    /// Index of the bitmap of this name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.bitmaps.iter().position(|bitmap| bitmap.entry.display_name() == name)
    }

    /// The same of a bitmap that can be relied on.
    pub(super) fn usable(&self, name: &str) -> Result<usize> {
        let found = self.find(name).ok_or_else(|| not_found(name))?;
        if self.bitmaps[found].is_inconsistent() { Err(inconsistent(name)) } else { Ok(found) }
    }

    /// Where the entry of bitmap number `index` is.
    pub(super) fn place_of(&self, index: usize) -> HostOffset {
        let before = self.bitmaps[..index].iter().map(|bitmap| bitmap.entry.len()).sum::<u64>();
        self.place.map_or(HostOffset::ZERO, |place| place.at.saturating_add(before))
    }

    /// Where the flags of bitmap number `index` are.
    pub(super) fn flags_of(&self, index: usize) -> HostOffset {
        self.place_of(index).saturating_add(FLAGS)
    }
}

pub(super) fn not_found(name: &str) -> Error {
    Error::NotFound { what: "bitmap", name: name.to_owned() }
}

pub(super) fn inconsistent(name: &str) -> Error {
    let why = "it was in use when its last writer ended without storing it";
    Error::Unusable { what: "bitmap", name: name.to_owned(), why: why.into() }
}
