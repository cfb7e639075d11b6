//! A new state of the metadata beside the old one, and the one sector that tells which of them the
//! image has.
//!
//! A snapshot changes many refcounts, and with them the COPIED flag of every entry whose cluster
//! is shared now or no more. No order of writes could do that in place: between the first and the
//! last the flags would contradict the counts. So all of it is written to free clusters:
//!
//! ```text
//!   header --> refcount table --> refcount blocks      as they were, not touched
//!          --> L1 table --> L2 tables
//!
//!              refcount table'--> refcount blocks'     those whose counts change
//!              L1 table'      --> L2 tables'           those whose flags change
//!              snapshot table', the L1 table of a new snapshot
//! ```
//!
//! and then one write of the header, inside its first sector, names the new tables. Before it the
//! image is as it was, behind it as it is to be; the clusters of the other state are lost if the
//! power fails there, and nothing else. What goes wrong earlier is undone by forgetting it.

use std::collections::BTreeSet;

use anydisk_core::{Error, HostOffset, Inserted, Result, SliceMut, Storage, StorageExt, Updated};

use crate::alloc::{Allocator, RefcountTable, bytes_of, needs_repair, words_of};
use crate::alone::Alone;
use crate::guard::{Clusters, Metadata};
use crate::refcount::Width;
use crate::room::Room;
use crate::write::WritableImage;
use crate::{Header, NAME};

/// What the header is to name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    /// The active L1 table and its entries.
    pub(crate) l1: Option<(HostOffset, u32)>,
    /// The snapshot table and the number of snapshots.
    pub(crate) snapshots: Option<(HostOffset, u32)>,
    pub(crate) size: Option<u64>,
}

/// A new state in the making. Dropped before it is [named](Self::name), it leaves no trace but
/// clusters that are free again.
pub(crate) struct Beside<'a> {
    image: &'a WritableImage,
    room: Room,
    /// The refcount table of the old state.
    old: RefcountTable,
    /// Refcount blocks that have a new place.
    moved: BTreeSet<usize>,
    /// New places that were noted as metadata: first clusters.
    noted: Vec<u64>,
    /// What nothing refers to in the new state; one reference each is still counted.
    dropped: Vec<Clusters>,
    is_named: bool,
}

/// Why a count cannot change.
enum Wrong {
    Zero,
    TooLow(u64),
    Full,
}

impl WritableImage {
    /// The words of a table that the file has all of.
    pub(crate) fn read_words(&self, at: HostOffset, words: u64) -> Result<Vec<u64>> {
        let mut bytes = vec![0; usize::try_from(words * 8).unwrap_or(0)];
        self.shared.store.read_padded_at(at, &mut bytes)?;
        Ok(words_of(&bytes))
    }
}

impl<'a> Beside<'a> {
    /// Begins a new state in the room that was taken for it. The caller is alone.
    pub(crate) fn begin(image: &'a WritableImage, room: Room, _: &Alone<'_>) -> Self {
        let old = image.space.lock().table.clone();
        Self {
            image,
            room,
            old,
            moved: BTreeSet::new(),
            noted: Vec::new(),
            dropped: Vec::new(),
            is_named: false,
        }
    }

    pub(crate) fn image(&self) -> &'a WritableImage {
        self.image
    }

    fn space(&self) -> &'a Allocator {
        &self.image.space
    }

    /// The room that was taken.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Counts one reference more to each of `clusters`, which rise; some may be the same.
    ///
    /// # Errors
    /// [`Error::Limit`] where a count would not fit; [`Error::NeedsRepair`] where a cluster that is
    /// in use has none.
    pub(crate) fn add(&mut self, clusters: &[u64]) -> Result<()> {
        let max = self.space().width.max();
        self.change(clusters, |count, times| match count {
            0 => Err(Wrong::Zero),
            _ if max - count < times => Err(Wrong::Full),
            _ => Ok((count + times, false)),
        })
    }

    /// That [`add`](Self::add) would find room in the counts as they are now.
    ///
    /// # Errors
    /// [`Error::Limit`] where a count would not fit.
    pub(crate) fn check_add(&self, clusters: &[u64]) -> Result<()> {
        let max = self.space().width.max();
        let (mut last, mut times) = (None, 0);
        for (cluster, count) in clusters.iter().zip(self.counts(clusters)?) {
            times = if last == Some(cluster) { times + 1 } else { 1 };
            last = Some(cluster);
            if max.saturating_sub(count) < times {
                return Err(self.wrong(*cluster, Wrong::Full));
            }
        }
        Ok(())
    }

    /// Counts one reference less to each of `clusters`, which rise; some may be the same.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] where a count is too low already.
    pub(crate) fn remove(&mut self, clusters: &[u64]) -> Result<()> {
        self.change(clusters, |count, times| match count.checked_sub(times) {
            None => Err(Wrong::TooLow(count)),
            // Its place may be used again only when the new state is on the medium.
            Some(0) => Ok((1, true)),
            Some(count) => Ok((count, false)),
        })
    }

    /// A run of clusters is not referred to in the new state.
    pub(crate) fn drop_run(&mut self, run: Clusters) {
        self.dropped.extend((run.count > 0).then_some(run));
    }

    fn change(
        &mut self,
        clusters: &[u64],
        rule: impl Fn(u64, u64) -> Result<(u64, bool), Wrong>,
    ) -> Result<()> {
        let per_slice = self.space().per_slice();
        for chunk in clusters.chunk_by(|a, b| a / per_slice == b / per_slice) {
            let Some(slice) = chunk.first().map(|first| self.own_slice(*first)).transpose()? else {
                continue;
            };
            let width = self.space().width;
            let changed =
                self.update(slice, |words| change_slice(width, words, per_slice, chunk, &rule))?;
            let dropped = changed.map_err(|(cluster, wrong)| self.wrong(cluster, wrong))?;
            self.dropped.extend(dropped.into_iter().map(|cluster| Clusters::new(cluster, 1)));
        }
        Ok(())
    }

    /// Changes a slice of refcounts, reading it as needed.
    fn update<R>(&self, slice: HostOffset, change: impl Fn(&mut SliceMut<'_>) -> R) -> Result<R> {
        loop {
            match self.space().counts.update(slice, &change) {
                Updated::Done(answer) => return Ok(answer),
                Updated::Missing => self.space().load(slice)?,
                Updated::Full => self.space().write_counts()?,
            }
        }
    }

    fn wrong(&self, cluster: u64, wrong: Wrong) -> Error {
        let at = self.space().offset(cluster);
        match wrong {
            Wrong::Zero => {
                needs_repair(format!("the refcount of the cluster at {at}, which is in use, is 0"))
            }
            Wrong::TooLow(count) => {
                needs_repair(format!("the refcount of the cluster at {at}, {count}, is too low"))
            }
            Wrong::Full => {
                let limit = self.space().width.max();
                let what = format!("refcount of the cluster at {at}").into();
                Error::Limit { format: NAME, what, found: limit.saturating_add(1), limit }
            }
        }
    }

    /// The refcounts of `clusters`, which rise, in the new state as it is so far.
    pub(crate) fn counts(&self, clusters: &[u64]) -> Result<Vec<u64>> {
        let per_slice = self.space().per_slice();
        let mut counts = Vec::with_capacity(clusters.len());
        for chunk in clusters.chunk_by(|a, b| a / per_slice == b / per_slice) {
            let Some(first) = chunk.first() else { continue };
            let slot = self.space().slot(&self.space().lock(), *first);
            let Some((slice, _)) = slot else {
                counts.extend(chunk.iter().map(|_| 0));
                continue;
            };
            let width = self.space().width;
            let look = |words: anydisk_core::Slice<'_>| -> Vec<u64> {
                let index = |cluster: &u64| usize::try_from(cluster % per_slice).unwrap_or(0);
                chunk.iter().map(|cluster| width.get(&words, index(cluster))).collect()
            };
            let found = loop {
                match self.space().counts.read(slice, look) {
                    Some(found) => break found,
                    None => self.space().load(slice)?,
                }
            };
            counts.extend(found);
        }
        Ok(counts)
    }

    /// The slice that counts a cluster, in a block of the new state.
    fn own_slice(&mut self, cluster: u64) -> Result<HostOffset> {
        let number = usize::try_from(cluster / self.space().per_block()).unwrap_or(usize::MAX);
        if !self.moved.contains(&number) {
            self.move_block(number, cluster)?;
        }
        let slot = self.space().slot(&self.space().lock(), cluster);
        slot.map(|(slice, _)| slice).ok_or_else(|| self.wrong(cluster, Wrong::Zero))
    }

    /// Gives a refcount block a new place, which holds the same so far.
    fn move_block(&mut self, number: usize, cluster: u64) -> Result<()> {
        let space = self.space();
        let from = space.lock().table.blocks.get(number).copied().filter(|block| *block != 0);
        let from = HostOffset(from.ok_or_else(|| self.wrong(cluster, Wrong::Zero))?);
        let new = self.room.next()?;
        self.note(Clusters::new(new, 1), Metadata::RefcountBlock)?;
        let to = space.offset(new);
        for inside in (0..1_u64 << space.cluster_bits).step_by(space.slice_len()) {
            let (old, new) = (from.saturating_add(inside), to.saturating_add(inside));
            let whole = |words: anydisk_core::Slice<'_>| -> Vec<u64> {
                (0..words.len()).map(|index| words.get(index)).collect()
            };
            let words = match space.counts.read(old, whole) {
                Some(words) => words,
                None => space.read_slice(old)?,
            };
            while space.counts.create(new, words.iter().copied()) == Inserted::Full {
                space.write_counts()?;
            }
            space.counts.remove(old);
        }
        space.lock().table.blocks[number] = to.get();
        self.moved.insert(number);
        self.dropped.push(Clusters::new(from.get() >> space.cluster_bits, 1));
        Ok(())
    }

    /// Notes what new clusters hold.
    pub(crate) fn note(&mut self, run: Clusters, holds: Metadata) -> Result<()> {
        self.space().note(run, holds)?;
        self.noted.push(run.first);
        Ok(())
    }

    /// Notes that a cluster is an L2 table of the active disk now.
    pub(crate) fn guard_table(&self, cluster: u64) -> Result<()> {
        self.space().note(Clusters::new(cluster, 1), Metadata::L2Table)
    }

    /// Writes an L2 table of the new state; the number of its cluster, which one reference counts.
    pub(crate) fn write_table(&mut self, words: &[u64]) -> Result<u64> {
        let cluster = self.room.next()?;
        self.note(Clusters::new(cluster, 1), Metadata::L2Table)?;
        let at = self.space().offset(cluster);
        self.image.forget_slices(at);
        self.image.shared.store.write_at(at, &bytes_of(words))?;
        Ok(cluster)
    }

    /// Writes a table into its room.
    pub(crate) fn write_run(
        &mut self,
        run: Option<Clusters>,
        bytes: &[u8],
        holds: Metadata,
    ) -> Result<HostOffset> {
        let Some(run) = run else { return Ok(HostOffset::ZERO) };
        self.note(run, holds)?;
        let at = self.space().offset(run.first);
        self.image.shared.store.write_at(at, bytes)?;
        Ok(at)
    }

    /// Makes the new state the one that the image has, on the medium and in memory.
    pub(crate) fn name(mut self, named: Named) -> Result<()> {
        let space = self.space();
        space.write_counts()?;
        let table = self.write_refcount_table()?;
        space.extend_file()?;
        let before = self.image.live.with(Clone::clone);
        let is_on_medium = self.image.live.set_tables(|header| apply(header, named, table));
        if let Err((error, is_old)) = is_on_medium {
            if !is_old {
                // The medium may have either state, so what either names must stay.
                self.is_named = true;
                space.lock().damage(format!("its header could not be written: {error}"));
            }
            return Err(error);
        }
        self.is_named = true;
        self.take_effect(&before, named, table);
        Ok(())
    }

    /// Writes the refcount table, if blocks have new places: where it is, and its clusters.
    fn write_refcount_table(&mut self) -> Result<Option<Clusters>> {
        if self.moved.is_empty() {
            return Ok(None);
        }
        let blocks = bytes_of(&self.space().lock().table.blocks);
        let run = self.room.refcount_table;
        self.write_run(run, &blocks, Metadata::RefcountTable)?;
        Ok(run)
    }

    /// Memory follows the medium, and what only the old state had is given back.
    fn take_effect(&mut self, before: &Header, named: Named, table: Option<Clusters>) {
        let (space, shared) = (self.space(), &self.image.shared);
        let mut gone = std::mem::take(&mut self.dropped);
        let bits = space.cluster_bits;
        if let Some(run) = table {
            let mut state = space.lock();
            gone.push(Clusters::new(state.table.at.get() >> bits, state.table.clusters));
            state.table.at = space.offset(run.first);
            self.room.refcount_table = None;
        }
        if let Some((at, entries)) = named.l1 {
            let old = u64::from(before.l1_size);
            gone.push(Clusters::touched(before.l1_table_offset.get(), old * 8, bits));
            shared.move_l1(at, u64::from(entries), old);
            self.room.l1 = None;
        }
        if named.size.is_some() {
            shared.set_size(self.image.live.with(Header::disk_size));
        }
        if named.snapshots.is_some() {
            self.room.snapshots = None;
            self.room.snapshot_l1 = None;
        }
        let rest = std::mem::take(&mut self.room).into_all();
        space.give_back(gone.into_iter().chain(rest).filter(|run| run.count > 0));
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        let space = self.space();
        space.lock().table = self.old.clone();
        for cluster in &self.noted {
            match space.guard().remove(*cluster) {
                Some(Metadata::RefcountBlock) => {
                    let slices = (0..1_u64 << space.cluster_bits).step_by(space.slice_len());
                    let block = space.offset(*cluster);
                    slices.for_each(|inside| space.counts.remove(block.saturating_add(inside)));
                }
                Some(Metadata::L2Table) => {}
                _ => continue, // A run, which is in the room still.
            }
            self.room.single.push(Clusters::new(*cluster, 1));
        }
        space.give_back(std::mem::take(&mut self.room).into_all());
    }
}

fn apply(header: &mut Header, named: Named, refcount_table: Option<Clusters>) {
    if let Some((at, entries)) = named.l1 {
        (header.l1_table_offset, header.l1_size) = (at, entries);
    }
    if let Some((at, count)) = named.snapshots {
        (header.snapshots_offset, header.nb_snapshots) = (at, count);
    }
    if let Some(size) = named.size {
        header.size = size;
    }
    if let Some(run) = refcount_table {
        header.refcount_table_offset = HostOffset(run.first << header.cluster_bits);
        header.refcount_table_clusters = u32::try_from(run.count).expect("at most 8 MiB of table");
    }
}

/// Changes the counts of clusters of one slice by a rule, which is told the count and how often the
/// cluster is meant. Answers the clusters of which the rule says so, or the first it refuses.
fn change_slice(
    width: Width,
    words: &mut SliceMut<'_>,
    per_slice: u64,
    clusters: &[u64],
    rule: &impl Fn(u64, u64) -> Result<(u64, bool), Wrong>,
) -> Result<Vec<u64>, (u64, Wrong)> {
    let mut told = Vec::new();
    for same in clusters.chunk_by(|a, b| a == b) {
        let Some(cluster) = same.first().copied() else { continue };
        let index = usize::try_from(cluster % per_slice).unwrap_or(0);
        let count = width.get_mut(words, index);
        let (count, tell) = rule(count, same.len() as u64).map_err(|wrong| (cluster, wrong))?;
        width.set(words, index, count);
        told.extend(tell.then_some(cluster));
    }
    Ok(told)
}
