//! Free space: which clusters are handed out next, and when freed ones come back.
//!
//! ```text
//!             hunt                                end          virgin
//!   0 ---------|-----------------------------------|-------------|------------>
//!     searched   free clusters may be found here     all free       never written:
//!                                                                   reads as zero
//! ```
//!
//! Space is sought by a cursor, `hunt`, which moves up and is set back when a lower cluster comes
//! free. It never delays a write for long: after a few slices of refcounts that had to be read in
//! vain, the clusters come from `end`, behind everything in use.
//!
//! A reference that is dropped lowers no refcount at once. It is [retired](Allocator::retire), and
//! when the tables without it are on the medium the refcount is [lowered](Allocator::lower). A
//! cluster whose count thereby falls to 0 stays under **embargo** until nobody can be using it
//! any more; see [`Quarantine`](anydisk_core::Quarantine).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    DirtySlice, Error, HostOffset, Inserted, Leases, Result, Storage, StorageExt, Supplied,
    TableCache, Ticket, Updated,
};
use byteorder::{BigEndian, ByteOrder};

use crate::NAME;
use crate::guard::{Clusters, Guard, Metadata, Overlap};
use crate::layout::entry::HOST_END;
use crate::live::LiveHeader;
use crate::refcount::Width;
pub(super) use crate::state::{RefcountTable, State};

/// Binary logarithm of the largest slice of refcounts in bytes.
const SLICE_BITS: u32 = 12;

/// The allocator of one image, for any number of threads.
#[derive(Debug)]
pub(crate) struct Allocator {
    pub(super) store: Arc<dyn Storage>,
    pub(super) live: Arc<LiveHeader>,
    pub(super) cluster_bits: u32,
    pub(super) width: Width,
    slice_bits: u32,
    /// Refcount blocks in slices. Changed under the lock of `state` only. Its changes may be
    /// written at any time: a count that is raised too early, or lowered late, is a leak at worst.
    pub(super) counts: TableCache,
    pub(super) guard: Guard,
    pub(super) leases: Leases,
    pub(super) state: Mutex<State>,
}

/// References that were dropped, one to each of the clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) clusters: Clusters,
    /// The guest gave the space back: so does the file.
    pub(crate) discard: bool,
}

/// How many clusters are wanted in one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl Wanted {
    pub(crate) const ONE: Self = Self { least: 1, most: 1 };

    pub(crate) const fn up_to(most: u64) -> Self {
        Self { least: 1, most }
    }

    pub(crate) const fn exactly(count: u64) -> Self {
        Self { least: count, most: count }
    }
}

/// The answer to a request for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken<T> {
    /// New space; its refcounts are raised.
    Space(T),
    /// The slice of refcounts at this place must be read first.
    Missing(HostOffset),
    /// Too many refcounts are changed and not written back.
    Full,
}

/// New clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) clusters: Clusters,
    /// They read as zero.
    pub(crate) zeroed: bool,
}

/// What one look at the refcounts found.
pub(super) enum Look {
    Free(Clusters),
    /// Nothing before this cluster.
    Next(u64),
    /// The cluster lies where no refcount block is yet: it is free, and cannot be counted.
    Uncounted(u64),
    Missing(HostOffset),
}

impl Allocator {
    /// The allocator of the image in `store`, which was opened for writing.
    ///
    /// # Errors
    /// Those of reading the refcount table.
    pub(crate) fn open(
        store: &Arc<dyn Storage>,
        live: &Arc<LiveHeader>,
        guard: Guard,
        leases: Leases,
        cache: usize,
    ) -> Result<Self> {
        let (table, cluster_bits, order) = live.with(|header| {
            let table = RefcountTable::read(&**store, header);
            (table, header.cluster_bits, header.refcount_order)
        });
        let slice_bits = cluster_bits.min(SLICE_BITS);
        let virgin = store.len()?.div_ceil(1 << cluster_bits);
        let allocator = Self {
            store: Arc::clone(store),
            live: Arc::clone(live),
            cluster_bits,
            width: Width::of_order(order),
            slice_bits,
            counts: TableCache::new(1 << (slice_bits - 3), cache),
            guard,
            leases,
            state: Mutex::new(State::new(table?, virgin)),
        };
        allocator.guard_blocks()?;
        allocator.find_end()?;
        Ok(allocator)
    }

    /// Notes where the refcount blocks are.
    pub(super) fn guard_blocks(&self) -> Result<()> {
        let state = self.lock();
        for block in state.table.blocks.iter().filter(|block| **block != 0) {
            if !HostOffset(*block).is_aligned(1 << self.cluster_bits) {
                let why = format!("refcount table entry {block:#x} is not a cluster's place");
                return Err(needs_repair(why));
            }
            let clusters = Clusters::new(block >> self.cluster_bits, 1);
            self.guard.add(clusters, Metadata::RefcountBlock).map_err(overlapping)?;
        }
        Ok(())
    }

    /// Sets `end` behind the last cluster in use, which the last block tells.
    pub(super) fn find_end(&self) -> Result<()> {
        let mut state = self.lock();
        let Some(last) = state.table.blocks.iter().rposition(|block| *block != 0) else {
            return Ok(());
        };
        state.end = match self.last_counted(&state, last, None)? {
            Some(used) => used + 1,
            None => (last as u64 * self.per_block()).max(1),
        };
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the metadata is.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Place of a cluster in the file.
    pub(crate) fn offset(&self, cluster: u64) -> HostOffset {
        HostOffset(cluster << self.cluster_bits)
    }

    /// Clusters that one refcount block counts.
    pub(super) fn per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.width.bits().trailing_zeros())
    }

    /// Clusters that one slice of a block counts.
    pub(super) fn per_slice(&self) -> u64 {
        1 << (self.slice_bits + 3 - self.width.bits().trailing_zeros())
    }

    /// The slice that counts a cluster and the index there; `None` if there is no block for it.
    pub(super) fn slot(&self, state: &State, cluster: u64) -> Option<(HostOffset, usize)> {
        let block = usize::try_from(cluster / self.per_block()).ok()?;
        let block = state.table.blocks.get(block).copied().filter(|block| *block != 0)?;
        let slice = cluster % self.per_block() / self.per_slice();
        let index = usize::try_from(cluster % self.per_slice()).ok()?;
        Some((HostOffset(block).saturating_add(slice << self.slice_bits), index))
    }

    /// Takes clusters in one piece. For metadata, `holds` says of which kind.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] if the refcounts call a cluster free that holds metadata;
    /// [`Error::Limit`] if the file is full.
    pub(crate) fn take(&self, wanted: Wanted, holds: Option<Metadata>) -> Result<Taken<Fresh>> {
        let mut state = self.lock();
        state.check()?;
        loop {
            let from = state.position();
            match self.look(&state, from, wanted.most) {
                Look::Missing(slice) => {
                    state.patience += 1;
                    return Ok(Taken::Missing(slice));
                }
                Look::Next(next) => state.pass(from, next),
                Look::Free(run) if run.count < wanted.least => state.pass(from, run.end()),
                Look::Uncounted(cluster) => self.add_block(&mut state, cluster)?,
                Look::Free(run) => {
                    let taken = self.hand_out(&mut state, run, holds)?;
                    if let Taken::Space(_) = taken {
                        state.pass(from, run.end());
                        state.patience = 0;
                    }
                    return Ok(taken);
                }
            }
        }
    }

    /// Looks for up to `most` free clusters from cluster `from` on, in one slice.
    fn look(&self, state: &State, from: u64, most: u64) -> Look {
        if from < state.frozen {
            return Look::Next(state.frozen);
        }
        let Some((slice, index)) = self.slot(state, from) else { return Look::Uncounted(from) };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let base = from - index as u64;
        match self.counts.read(slice, |words| self.width.free_run(&words, index, most)) {
            None => Look::Missing(slice),
            Some(None) => Look::Next(base + self.per_slice()),
            Some(Some(run)) => {
                state.allowed(Clusters::new(base + run.first as u64, run.len as u64))
            }
        }
    }

    /// Raises the refcounts of free clusters, which lie in one slice, to 1.
    fn hand_out(
        &self,
        state: &mut State,
        run: Clusters,
        holds: Option<Metadata>,
    ) -> Result<Taken<Fresh>> {
        self.check_free(state, run)?;
        let Some((slice, first)) = self.slot(state, run.first) else {
            return Ok(Taken::Missing(HostOffset::ZERO));
        };
        let count = usize::try_from(run.count).unwrap_or(0);
        let raised = self.counts.update(slice, |words| {
            (first..first + count).for_each(|index| self.width.set(words, index, 1));
        });
        match raised {
            Updated::Done(()) => {}
            Updated::Missing => return Ok(Taken::Missing(slice)),
            Updated::Full => return Ok(Taken::Full),
        }
        if let Some(holds) = holds {
            self.guard.add(run, holds).map_err(overlapping)?;
        }
        Ok(Taken::Space(Fresh { clusters: run, zeroed: state.enter(run) }))
    }

    /// A cluster that is free by its refcount holds no metadata, and an entry can name it.
    pub(super) fn check_free(&self, state: &mut State, run: Clusters) -> Result<()> {
        if let Some(Overlap { cluster, holds }) = self.guard.find(run) {
            let at = self.offset(cluster);
            state.damage(format!("the refcount of {holds} at {at} is 0"));
        }
        let limit = HOST_END >> self.cluster_bits;
        if run.end() > limit {
            let what = "clusters in the file".into();
            return Err(Error::Limit { format: NAME, what, found: run.end(), limit });
        }
        state.check()
    }

    /// Reads a slice of refcounts into the cache.
    pub(crate) fn load(&self, slice: HostOffset) -> Result<()> {
        loop {
            let ticket = self.counts.ticket(slice);
            let words = self.read_slice(slice)?;
            match self.counts.insert(slice, ticket, words) {
                Inserted::Yes => return Ok(()),
                Inserted::Stale => {}
                Inserted::Full => self.write_counts()?,
            }
        }
    }

    /// The state of the cache before a slice is read.
    pub(crate) fn counts_ticket(&self, slice: HostOffset) -> Ticket {
        self.counts.ticket(slice)
    }

    /// Takes a slice of refcounts that was read.
    pub(crate) fn supply(&self, slice: HostOffset, ticket: Ticket, bytes: &[u8]) -> Supplied {
        self.counts.insert(slice, ticket, words_of(bytes)).into()
    }

    /// Pictures of all changed refcounts.
    pub(crate) fn dirty_counts(&self) -> Vec<DirtySlice> {
        self.counts.dirty()
    }

    /// The pictures are on the medium.
    pub(crate) fn settle_counts(&self, pictures: &[DirtySlice]) {
        pictures.iter().for_each(|picture| self.counts.settle(picture));
    }

    /// Makes the file as long as the clusters that were handed out: nothing may refer to a cluster
    /// behind its end, also if nobody wrote there because it is zero anyway.
    pub(crate) fn extend_file(&self) -> Result<()> {
        // Under the lock nobody is given clusters behind this end, so nobody writes there.
        let state = self.lock();
        let len = self.offset(state.virgin).get();
        if self.store.len()? < len {
            self.store.set_len(len)?;
        }
        Ok(())
    }

    pub(super) fn read_slice(&self, slice: HostOffset) -> Result<Vec<u64>> {
        let mut bytes = vec![0; self.slice_len()];
        self.store.read_padded_at(slice, &mut bytes)?;
        Ok(words_of(&bytes))
    }

    /// Bytes in a slice of refcounts.
    pub(crate) fn slice_len(&self) -> usize {
        1 << self.slice_bits
    }

    /// Writes all changed refcounts, in no particular order and without making them durable.
    pub(crate) fn write_counts(&self) -> Result<()> {
        for picture in self.counts.dirty() {
            self.store.write_at(picture.at, &bytes_of(&picture.entries))?;
            self.counts.settle(&picture);
        }
        Ok(())
    }
}

/// The words of a table as it is in the file.
pub(crate) fn words_of(bytes: &[u8]) -> Vec<u64> {
    let whole = bytes.as_chunks::<8>().0;
    let mut words = vec![0; whole.len()];
    BigEndian::read_u64_into(whole.as_flattened(), &mut words);
    words
}

/// The bytes of words of a table.
pub(crate) fn bytes_of(words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(words)];
    BigEndian::write_u64_into(words, &mut bytes);
    bytes
}

#[cold]
pub(crate) fn needs_repair(why: impl Into<String>) -> Error {
    Error::NeedsRepair { format: NAME, why: why.into().into() }
}

#[cold]
pub(crate) fn overlapping(overlap: Overlap) -> Error {
    let Overlap { cluster, holds } = overlap;
    needs_repair(format!("{holds} and other metadata both claim host cluster {cluster}"))
}
