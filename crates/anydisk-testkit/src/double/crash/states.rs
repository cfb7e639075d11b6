//! Walking through the states that a power failure may leave.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use anydisk_storage::{HostOffset, MemoryStorage, Storage};

use super::change::Change;
use super::{Event, Log};
use crate::random::Random;

/// A state in which a power failure may leave the medium.
#[derive(Clone, Debug)]
pub struct CrashState {
    flushes: usize,
    marks: usize,
    stretch: Arc<Stretch>,
    /// For each piece of the stretch whether it reached the medium.
    kept: Vec<bool>,
}

impl CrashState {
    /// Flushes that the store had finished.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.flushes
    }

    /// Moments that the test had [marked](super::CrashStorage::mark).
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks
    }

    /// The medium in this state, as a new store.
    #[must_use]
    pub fn storage(&self) -> Arc<MemoryStorage> {
        let store = copy_of(&self.stretch.durable);
        for (piece, _) in self.stretch.pieces.iter().zip(&self.kept).filter(|(_, kept)| **kept) {
            let change = &self.stretch.changes[piece.change];
            change.apply_piece(&store, &piece.bytes).expect("it could be done before");
        }
        Arc::new(store)
    }
}

impl fmt::Display for CrashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flushes, stretch, kept, .. } = self;
        let count = kept.iter().filter(|kept| **kept).count();
        write!(f, "after flush {flushes}, {count} of {} later changes kept:", kept.len())?;
        for (piece, kept) in stretch.pieces.iter().zip(kept) {
            let word = if *kept { "kept" } else { "lost" };
            write!(f, "\n  {word}: {}", stretch.changes[piece.change])?;
            if matches!(stretch.changes[piece.change].as_ref(), Change::Write { data, .. } if piece.bytes.len() < data.len())
            {
                write!(f, " (its bytes {:#x?})", piece.bytes)?;
            }
        }
        Ok(())
    }
}

/// The changes between two flushes, and the medium at the first of the two.
#[derive(Debug)]
struct Stretch {
    durable: MemoryStorage,
    changes: Vec<Arc<Change>>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    change: usize,
    bytes: Range<usize>,
}

/// The states, stretch by stretch.
#[derive(Debug)]
pub struct CrashStates {
    events: VecDeque<Event>,
    limit: usize,
    torn: bool,
    random: Random,
    flushes: usize,
    marks: usize,
    /// Durable after `flushes` flushes.
    durable: MemoryStorage,
    medium: Option<u64>,
    /// Not durable after them: changes of other media than those that were flushed.
    pending: Vec<Arc<Change>>,
    stretch: Option<(Arc<Stretch>, VecDeque<Vec<bool>>)>,
}

impl CrashStates {
    pub(super) fn new(log: &Log, limit: usize, seed: u64, torn: bool) -> Self {
        let mut states = Self {
            events: log.events.iter().cloned().collect(),
            limit,
            torn,
            random: Random::new(seed),
            flushes: 0,
            marks: 0,
            durable: MemoryStorage::new(log.start.to_vec()),
            medium: log.medium,
            pending: Vec::new(),
            stretch: None,
        };
        states.enter_stretch();
        states
    }

    /// Takes the events up to the next flush.
    fn enter_stretch(&mut self) {
        let mut changes = std::mem::take(&mut self.pending);
        let flush = self.events.iter().position(|event| matches!(event, Event::Flush(_)));
        for event in self.events.drain(..flush.unwrap_or(self.events.len())) {
            match event {
                Event::Change(change) => changes.push(change),
                Event::Mark => self.marks += 1,
                Event::Flush(_) => {}
            }
        }
        let pieces = pieces_of(&changes, self.torn);
        let choices = choices(&pieces, changes.len(), self.limit, &mut self.random);
        let stretch = Stretch { durable: copy_of(&self.durable), changes, pieces };
        self.stretch = Some((Arc::new(stretch), choices.into()));
    }

    /// Passes the flush behind the stretch, if there is one.
    fn leave_stretch(&mut self) {
        let Some((stretch, _)) = self.stretch.take() else { return };
        if let Some(Event::Flush(flushed)) = self.events.pop_front() {
            for change in &stretch.changes {
                let medium = self.medium.zip(change.place()).map(|(len, at)| at / len);
                if flushed.is_none() || medium.is_none() || medium == flushed {
                    change.apply(&self.durable).expect("it could be done before");
                } else {
                    self.pending.push(Arc::clone(change));
                }
            }
            self.flushes += 1;
            self.enter_stretch();
        }
    }
}

impl Iterator for CrashStates {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        loop {
            let (stretch, choices) = self.stretch.as_mut()?;
            if let Some(kept) = choices.pop_front() {
                let stretch = Arc::clone(stretch);
                return Some(CrashState {
                    flushes: self.flushes,
                    marks: self.marks,
                    stretch,
                    kept,
                });
            }
            self.leave_stretch();
        }
    }
}

fn pieces_of(changes: &[Arc<Change>], torn: bool) -> Vec<Piece> {
    let of = |(change, made): (usize, &Arc<Change>)| {
        made.pieces(torn).into_iter().map(move |bytes| Piece { change, bytes })
    };
    changes.iter().enumerate().flat_map(of).collect()
}

/// Which pieces are kept: all subsets, or the nastiest and then random ones.
fn choices(pieces: &[Piece], changes: usize, limit: usize, random: &mut Random) -> Vec<Vec<bool>> {
    let subsets = u32::try_from(pieces.len()).ok().and_then(|bits| 1_usize.checked_shl(bits));
    if let Some(subsets) = subsets.filter(|subsets| *subsets > 0 && *subsets <= limit) {
        let bits = |subset: usize| (0..pieces.len()).map(move |bit| subset >> bit & 1 == 1);
        return (0..subsets).map(|subset| bits(subset).collect()).collect();
    }
    let mut all = extremes(pieces, changes);
    all.truncate(limit);
    while all.len() < limit {
        all.push(random_choice(pieces, changes, random));
    }
    all
}

/// Nothing, everything, one change alone, all but one: where most bugs are.
fn extremes(pieces: &[Piece], changes: usize) -> Vec<Vec<bool>> {
    let whole = |keep: &dyn Fn(usize) -> bool| pieces.iter().map(|p| keep(p.change)).collect();
    let mut all = vec![whole(&|_| false), whole(&|_| true)];
    for one in (0..changes).rev() {
        all.push(whole(&|change| change == one));
        all.push(whole(&|change| change != one));
    }
    all
}

/// Each change is lost, kept, or (if it has several pieces) kept in part.
fn random_choice(pieces: &[Piece], changes: usize, random: &mut Random) -> Vec<bool> {
    let likely = 1 + random.below(7);
    let fates: Vec<(bool, bool)> =
        (0..changes).map(|_| (random.chance(likely, 8), random.chance(1, 3))).collect();
    let fate = |piece: &Piece| match fates[piece.change] {
        (kept, false) => kept,
        (_, true) => random.chance(likely, 8),
    };
    pieces.iter().map(fate).collect()
}

/// A store with the same bytes that takes no more memory than its data.
fn copy_of(store: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::default();
    let len = store.len().expect("memory has a length");
    let holes = store.holes().expect("memory knows its holes");
    copy.set_len(len).expect("memory takes any length");
    let mut at = 0;
    while at < len {
        let run = holes.run_at(HostOffset(at), (len - at).min(1 << 20)).expect("inside");
        if !run.hole {
            let mut bytes = vec![0; usize::try_from(run.len).expect("at most 1 MiB")];
            store.read_at(HostOffset(at), &mut bytes).expect("memory can be read");
            copy.write_at(HostOffset(at), &bytes).expect("memory can be written");
        }
        at += run.len;
    }
    copy
}
