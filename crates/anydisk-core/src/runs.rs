//! Host space in runs of any length: freed space first, else the file grows.
//!
//! For formats with tables, clusters and packed units of different lengths in one file that says
//! nowhere what is free (qcow, QED). Formats with blocks of one size have
//! [`BlockSpace`](crate::BlockSpace). Where every sector has its own place (cow), only the end of the
//! file and the order of a write-back are of use.
//!
//! ```text
//!   0                                            end          virgin
//!   |  in use, with runs of free space between   |  free, but  | never written:
//!   |                                            |  used once  | reads as zero
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anydisk_storage::{HostOffset, Storage};

use crate::{DirtySlice, Leases, Quarantine, Result, Sealed, TableCache};

/// Free runs that are looked at for one request: among very many small ones a large one may be
/// missed, and the file grows instead.
const LOOKS: usize = 64;

/// How long whoever gives space back to the store waits for leases.
const PAUSE: Duration = Duration::from_secs(1);

/// Space of one store, in bytes, and the write-back after which freed space may be used again.
#[derive(Debug)]
pub struct RunSpace {
    leases: Leases,
    state: Mutex<State>,
    /// One write-back runs at a time.
    round: Mutex<()>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedRun {
    /// Bytes, at least 1.
    pub len: u64,
    /// Up to so many times `len` bytes in a row are taken if they are there; at least 1.
    pub most: u64,
    /// The first byte is a multiple of this, a power of two.
    pub align: u64,
}

/// Consecutive bytes that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenRun {
    /// Position of the first.
    pub at: HostOffset,
    /// Their number: a multiple of [`WantedRun::len`].
    pub len: u64,
    /// They read as zero; see [`Reserved::zeroed`](crate::Reserved::zeroed).
    pub zeroed: bool,
}

impl TakenRun {
    /// The first byte behind it.
    #[must_use]
    pub fn end(&self) -> HostOffset {
        self.at.saturating_add(self.len)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Nothing from here on is in use.
    end: u64,
    /// Nothing from here on was ever written.
    virgin: u64,
    /// Runs before `end`: first byte -> first byte behind.
    free: BTreeMap<u64, u64>,
    /// Runs before `end` that nobody gets: first byte behind -> first byte.
    gaps: BTreeMap<u64, u64>,
    quarantine: Quarantine<(HostOffset, u64)>,
}

impl RunSpace {
    /// Space in a store of which nothing from `end` on is in use or was ever written: neither the
    /// end of the file nor that of anything a table names lies behind it.
    #[must_use]
    pub fn new(end: HostOffset) -> Self {
        let (end, virgin) = (end.get(), end.get());
        Self {
            leases: Leases::new(),
            state: Mutex::new(State { end, virgin, ..State::default() }),
            round: Mutex::default(),
        }
    }

    /// The same in a file that reaches to `virgin`: what lies between is free, and may hold
    /// anything.
    #[must_use]
    pub fn with_old_bytes_to(self, virgin: HostOffset) -> Self {
        let mut state = self.lock();
        state.virgin = state.virgin.max(virgin.get());
        drop(state);
        self
    }

    /// The leases on the space. Take one **before** reading the entry that names a place.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Takes space: free, else new at the end. From memory alone.
    ///
    /// A lease keeps freed space from coming back, the caller's own included: let go of the one
    /// under which the table was looked at.
    #[must_use = "space that is forgotten is lost until the image is opened again"]
    pub fn take(&self, wanted: WantedRun) -> TakenRun {
        let mut state = self.lock();
        if let Some(taken) = state.take_free(wanted) {
            return taken;
        }
        state.take_back(&self.leases);
        state.take_free(wanted).unwrap_or_else(|| state.take_new(wanted))
    }

    /// Takes new space at the end, which reads as zero: for tables, of which only what was changed
    /// is written.
    #[must_use = "space that is forgotten is lost until the image is opened again"]
    pub fn take_zeroed(&self, len: u64, align: u64) -> TakenRun {
        let mut state = self.lock();
        let (end, virgin) = (state.end, state.virgin);
        state.end = virgin;
        let taken = state.take_new(WantedRun { len, most: 1, align });
        if end < virgin {
            state.put(end, virgin);
        }
        taken
    }

    /// Takes the space of data that has a place of its own, free or not. Whether it reads as zero.
    #[must_use = "what is not known to be zero must be written"]
    pub fn take_at(&self, at: HostOffset, len: u64) -> bool {
        let mut state = self.lock();
        let zeroed = at.get() >= state.virgin;
        state.end = state.end.max(at.saturating_add(len).get());
        state.virgin = state.virgin.max(state.end);
        zeroed
    }

    /// Takes space back that nobody wrote to.
    pub fn untake(&self, taken: TakenRun) {
        let mut state = self.lock();
        if taken.zeroed && state.virgin == taken.end().get() {
            state.virgin = taken.at.get();
        }
        state.put(taken.at.get(), taken.end().get());
    }

    /// Takes space back that no table ever named, and that may have been written to: its
    /// reservation was abandoned.
    pub fn give_back(&self, at: HostOffset, len: u64) {
        self.lock().put(at.get(), at.get().saturating_add(len));
    }

    /// Space that is free and given to nobody, as no block has room in it: where all behind it is
    /// free, it is behind the end as well.
    pub fn keep_for_end(&self, at: HostOffset, len: u64) {
        let mut state = self.lock();
        state.gaps.insert(at.saturating_add(len).get(), at.get());
        state.draw_back();
    }

    /// Takes space back that a table named. Call it **after** the entry was changed; the space is
    /// used again when that is durable and nobody reads there any more.
    pub fn retire(&self, at: HostOffset, len: u64) {
        self.lock().quarantine.retire((at, len));
    }

    /// Behind the last byte in use.
    #[must_use]
    pub fn end(&self) -> HostOffset {
        HostOffset(self.lock().end)
    }

    /// Forgets what is free: everything before `end` is in use, and nothing behind it. The caller has
    /// made sure that nothing is reserved, and that no write-back is on its way.
    pub fn reset(&self, end: HostOffset) {
        let mut state = self.lock();
        let virgin = state.virgin.max(state.end).max(end.get());
        *state = State { end: end.get(), virgin, ..State::default() };
    }

    /// Everything but these pieces, which begin in rising order, is free from now on: used again
    /// when nobody reads there any more. The caller has made sure that no table on the medium or in
    /// memory names it, that nothing is reserved, and that no write-back is on its way.
    pub fn keep_only(&self, pieces: &[(HostOffset, u64)]) {
        let mut state = self.lock();
        let end = state.end;
        let mut retired = Quarantine::default();
        let mut before = 0;
        for (at, len) in pieces.iter().copied().chain([(HostOffset(end), 0)]) {
            if before < at.get() {
                retired.retire((HostOffset(before), at.get() - before));
            }
            before = before.max(at.saturating_add(len).get());
        }
        let sealed = retired.seal();
        retired.durable(&self.leases, sealed);
        (state.free, state.gaps) = (BTreeMap::new(), BTreeMap::new());
        state.quarantine = retired;
        state.end = end.max(before);
    }

    /// Gives what is free back to whom the store has it from, where it can: the end is cut off, the
    /// rest become holes. While somebody reads there, for longer than a pause, nothing is. Durable
    /// when it returns. The caller has made sure that no table on the medium names what is free, and
    /// that nobody takes space meanwhile.
    ///
    /// # Errors
    /// Those of the store.
    pub fn trim(&self, store: &dyn Storage) -> Result<()> {
        if !self.leases.wait_for_all(PAUSE) {
            return Ok(());
        }
        let mut state = self.lock();
        state.take_back(&self.leases);
        if let Some(space) = store.space() {
            for (at, end) in &state.free {
                supported(space.zero(HostOffset(*at), end - at, true))?;
            }
        }
        let is_cut = store.len()? <= state.end || supported(store.set_len(state.end))?;
        store.flush()?;
        if is_cut {
            state.virgin = state.end;
        }
        Ok(())
    }

    /// Makes holes of what was freed and is used by nobody any more, where the store can, and cuts the store
    /// off behind what is in use: what nothing names is not told from lost data otherwise, when the image is opened again. Right behind a
    /// write-back, since what is taken again meanwhile is left as it is. Waits for nobody.
    ///
    /// # Errors
    /// Those of the store.
    pub fn punch_freed(&self, store: &dyn Storage) -> Result<()> {
        let Some(space) = store.space() else { return Ok(()) };
        // Nobody can take it until it is put back.
        let mut freed = self.lock().quarantine.release(&self.leases);
        freed.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (at, len) in freed {
            let (at, end) = (at.get(), at.get().saturating_add(len));
            match runs.last_mut() {
                Some(last) if last.1 == at => last.1 = end,
                _ => runs.push((at, end)),
            }
        }
        let punch = |(at, end): &(u64, u64)| supported(space.zero(HostOffset(*at), end - at, true));
        let punched = runs.iter().try_for_each(|run| punch(run).map(drop));
        let mut state = self.lock();
        let end = state.end;
        runs.into_iter().for_each(|(at, end)| state.put(at, end));
        // Under the lock nobody is given space behind `end`.
        if state.end < end && supported(store.set_len(state.end))? {
            state.virgin = state.end;
        }
        punched
    }

    /// A flush of an image: data before the tables that name it, each table before the one that
    /// names it, freed space into use only when the tables are durable. The order is that of
    /// [`TableCache`].
    ///
    /// `tables`: the caches, those that refer before those that are referred to (L1, then L2).
    /// `write` puts one picture of the cache of that index where it belongs in the file.
    ///
    /// # Errors
    /// Those of the store and of `write`; what was changed stays changed, to be written the next
    /// time.
    pub fn write_back(
        &self,
        store: &dyn Storage,
        tables: &[&TableCache],
        write: impl FnMut(usize, &DirtySlice) -> Result<()>,
    ) -> Result<()> {
        self.write_back_after(store, tables, |_| Ok(()), write)
    }

    /// As [`write_back`](Self::write_back). `before` writes what must be durable before the tables
    /// are, beside the data: it is given the [end](Self::end), for headers that keep it.
    ///
    /// # Errors
    /// As [`write_back`](Self::write_back), and those of `before`.
    pub fn write_back_after(
        &self,
        store: &dyn Storage,
        tables: &[&TableCache],
        before: impl FnOnce(HostOffset) -> Result<()>,
        write: impl FnMut(usize, &DirtySlice) -> Result<()>,
    ) -> Result<()> {
        let _round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.seal();
        let result = self.write_round(store, tables, before, write);
        self.settle(sealed, result.is_ok());
        result
    }

    /// What was retired so far. For a format that writes back in an order of its own, because its
    /// tables have second copies or lie in several files: seal **before** the pictures of the tables
    /// are taken, [settle](Self::settle) in the end. Such write-backs run one at a time.
    #[must_use = "what is sealed and not settled is lost until the image is opened again"]
    pub fn seal(&self) -> Sealed<(HostOffset, u64)> {
        self.lock().quarantine.seal()
    }

    /// The tables that name the sealed space no more are on the medium (`durable`), or could not be
    /// written.
    pub fn settle(&self, sealed: Sealed<(HostOffset, u64)>, durable: bool) {
        let mut state = self.lock();
        match durable {
            true => state.quarantine.durable(&self.leases, sealed),
            false => state.quarantine.unseal(sealed),
        }
    }

    fn write_round(
        &self,
        store: &dyn Storage,
        tables: &[&TableCache],
        before: impl FnOnce(HostOffset) -> Result<()>,
        mut write: impl FnMut(usize, &DirtySlice) -> Result<()>,
    ) -> Result<()> {
        let pictures: Vec<_> = tables.iter().map(|cache| cache.dirty()).collect();
        // What the pictures name lies before this end: it cannot have become free since.
        before(self.cover(store)?)?;
        store.flush()?;
        for (index, stage) in pictures.iter().enumerate().rev() {
            if !stage.is_empty() {
                stage.iter().try_for_each(|picture| write(index, picture))?;
                store.flush()?;
            }
        }
        for (cache, stage) in tables.iter().zip(&pictures) {
            stage.iter().for_each(|picture| cache.settle(picture));
        }
        Ok(())
    }

    /// Makes the file reach the end of what is in use. Zeroes need not be written to new space, so
    /// the file may end before it; opened again, it would have the space handed out twice. Tells
    /// where it ends. A part of each write-back, before the flush of the data.
    ///
    /// # Errors
    /// Those of the store.
    pub fn cover(&self, store: &dyn Storage) -> Result<HostOffset> {
        // Under the lock nobody is given space behind `end`, so this cuts off nobody's data.
        let state = self.lock();
        if store.len()? < state.end {
            store.set_len(state.end)?;
        }
        Ok(HostOffset(state.end))
    }

    /// What `work` does while nobody is given space behind the [end](Self::end), which it is told: for
    /// what has to end the file (the footer of a VHD). It may write there and cut the file off; what
    /// it writes must be taken for old bytes by whoever is given that space next. Freed space that
    /// may be used again has come back before.
    pub fn at_end<R>(&self, work: impl FnOnce(HostOffset) -> R) -> R {
        let mut state = self.lock();
        for (at, len) in state.quarantine.release(&self.leases) {
            state.put(at.get(), at.get().saturating_add(len));
        }
        work(HostOffset(state.end))
    }

    /// Cuts the store off behind what is in use, where it can be cut: for files that end with it. What
    /// was freed counts once it may be used again. Not durable until the next flush.
    ///
    /// # Errors
    /// Those of the store.
    pub fn shorten(&self, store: &dyn Storage) -> Result<()> {
        self.at_end(|end| {
            if store.len()? > end.get() {
                supported(store.set_len(end.get()))?;
            }
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the store could.
fn supported(result: anydisk_storage::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(anydisk_storage::Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl State {
    /// What waited and is used by nobody any more is free.
    fn take_back(&mut self, leases: &Leases) {
        for (at, len) in self.quarantine.release(leases) {
            self.put(at.get(), at.get().saturating_add(len));
        }
    }

    /// Takes from the first free run that has room, at its start.
    fn take_free(&mut self, wanted: WantedRun) -> Option<TakenRun> {
        let room = |(at, end): (&u64, &u64)| {
            let start = at.checked_next_multiple_of(wanted.align)?;
            let fits = end.checked_sub(start)? / wanted.len;
            (fits > 0).then_some((*at, start, *end, fits.min(wanted.most) * wanted.len))
        };
        let (at, start, end, len) = self.free.iter().take(LOOKS).find_map(room)?;
        self.free.remove(&at);
        for (from, to) in [(at, start), (start + len, end)] {
            if from < to {
                self.free.insert(from, to);
            }
        }
        Some(TakenRun { at: HostOffset(start), len, zeroed: false })
    }

    fn take_new(&mut self, wanted: WantedRun) -> TakenRun {
        let before = self.end;
        // No store is that long: writing to the space fails before a sum is out of range.
        let start = before.checked_next_multiple_of(wanted.align).unwrap_or(before);
        let len = wanted.len.saturating_mul(wanted.most);
        self.end = start.saturating_add(len);
        let zeroed = start >= self.virgin;
        self.virgin = self.virgin.max(self.end);
        if before < start {
            self.put(before, start);
        }
        TakenRun { at: HostOffset(start), len, zeroed }
    }

    /// Brings the end back over what is free before it.
    fn draw_back(&mut self) {
        loop {
            let before = self.free.range(..self.end).next_back().map(|(at, end)| (*at, *end));
            if let Some(at) = self.gaps.remove(&self.end) {
                self.end = at;
            } else if let Some((at, _)) = before.filter(|(_, end)| *end == self.end) {
                self.free.remove(&at);
                self.end = at;
            } else {
                return;
            }
        }
    }

    /// Adds a free run, joined with its neighbours.
    fn put(&mut self, mut at: u64, mut end: u64) {
        if let Some((&before, &its_end)) = self.free.range(..at).next_back()
            && its_end == at
        {
            self.free.remove(&before);
            at = before;
        }
        if let Some(behind) = self.free.remove(&end) {
            end = behind;
        }
        if end == self.end {
            self.end = at;
            self.draw_back();
        } else {
            self.free.insert(at, end);
        }
    }
}
