//! Packed data moved into gaps, stream by stream, since several lie in one cluster and some in two.
//!
//! As with clusters: refcounts of the new places are raised, bytes copied, entries changed, a flush
//! between any two; the old places are given back afterwards.

use std::collections::BTreeMap;

use anydisk_core::{HostOffset, Result, Storage, StorageExt};

use super::compact::Round;
use super::judge::Named as Names;
use super::mend::write_changed;
use crate::entry::L2Entry;
use crate::guard::Clusters;

/// Streams that move at a time.
const STREAMS: usize = 1 << 13;
/// Streams begin where a sector does, so that none declares more sectors than before.
const SECTOR: u64 = 512;

/// A stream.
#[derive(Clone, Copy, Debug)]
struct Stream {
    at: u64,
    len: u64,
    /// Entries that name it.
    times: u64,
}

/// Streams on their way.
#[derive(Default)]
struct Moves {
    /// Entries, the old and the new.
    entries: BTreeMap<u64, u64>,
    copies: Vec<(Stream, HostOffset)>,
    /// Refcounts of the new places.
    counts: BTreeMap<u64, u64>,
}

impl Round<'_> {
    /// Moves the last streams into the first gaps; whether there was one to move.
    pub(super) fn move_streams(&self) -> Result<bool> {
        let moves = self.plan_streams(&self.last_streams()?);
        if moves.entries.is_empty() {
            return Ok(false);
        }
        self.image.blocks.set(self.subject, &moves.counts)?;
        self.subject.store.flush()?;
        let mut bytes = Vec::new();
        for (stream, to) in &moves.copies {
            bytes.resize(usize::try_from(stream.len).unwrap_or(0), 0);
            self.subject.store.read_padded_at(HostOffset(stream.at), &mut bytes)?;
            self.subject.store.write_at(*to, &bytes)?;
        }
        self.subject.store.flush()?;
        let step = self.subject.geometry.entry_words();
        self.for_each_table(|at, old| {
            let mut new = old.to_vec();
            for word in new.iter_mut().step_by(step) {
                *word = moves.entries.get(word).copied().unwrap_or(*word);
            }
            write_changed(self.subject, at, old, &new)
        })?;
        self.subject.store.flush()?;
        Ok(true)
    }

    /// The last streams of the file, by their entries, a bounded number of them.
    fn last_streams(&self) -> Result<BTreeMap<(u64, u64), Stream>> {
        let mut last = BTreeMap::new();
        let times: BTreeMap<u64, u64> =
            self.image.tables.iter().map(|table| (table.at, table.times)).collect();
        self.for_each_table(|table, words| {
            let times = times.get(&table).copied().unwrap_or(1);
            for entry in self.entries(words) {
                let Names::Stream { at, len } = self.rules.judge(entry, None).0 else { continue };
                let new = Stream { at, len, times: 0 };
                last.entry((at, entry.word)).or_insert(new).times += times;
                // One that went and comes again is the first again, and goes again.
                if last.len() > STREAMS {
                    last.pop_first();
                }
            }
            Ok(())
        })?;
        Ok(last)
    }

    /// Places for streams, the last one first, before where they are.
    fn plan_streams(&self, streams: &BTreeMap<(u64, u64), Stream>) -> Moves {
        let mut moves = Moves::default();
        let mut gaps = self.gaps();
        let Some(mut gap) = gaps.next() else { return moves };
        let mut next = self.subject.offset(gap.first).get();
        for ((_, word), stream) in streams.iter().rev() {
            let to = loop {
                let place = Clusters::touched(next, stream.len, self.subject.bits());
                if place.end() > gap.end() {
                    let Some(another) = gaps.next() else { return moves };
                    (gap, next) = (another, self.subject.offset(another.first).get());
                } else if moves.fits(place, stream.times, self.subject.width.max()) {
                    break next;
                } else {
                    // Its last cluster cannot be counted more often.
                    next = self.subject.offset(place.end()).get();
                }
            };
            let place = Clusters::touched(to, stream.len, self.subject.bits());
            let entry = self.subject.geometry.compressed_entry(HostOffset(to), stream.len);
            let (Some(L2Entry { word: new, .. }), true) =
                (entry, place.end() <= stream.at >> self.subject.bits())
            else {
                return moves;
            };
            moves.take(*word, new, *stream, (to, place));
            next = (to + stream.len).next_multiple_of(SECTOR);
        }
        moves
    }

    /// Free clusters in runs, the first ones first.
    fn gaps(&self) -> impl Iterator<Item = Clusters> + '_ {
        let is_free = |cluster: u64| {
            self.references.get(cluster) == 0 && self.image.blocks.is_counted(self.subject, cluster)
        };
        let mut at = 1;
        std::iter::from_fn(move || {
            let end = self.subject.end();
            let first = (at..end).find(|cluster| is_free(*cluster))?;
            at = (first..end).find(|cluster| !is_free(*cluster)).unwrap_or(end);
            Some(Clusters::new(first, at - first))
        })
    }
}

impl Moves {
    /// Whether so many references more can be counted.
    fn fits(&self, place: Clusters, times: u64, most: u64) -> bool {
        let mut counts = self.counts.range(place.first..place.end());
        times > most || counts.all(|(_, count)| count.saturating_add(times) <= most)
    }

    fn take(&mut self, old: u64, new: u64, stream: Stream, (to, place): (u64, Clusters)) {
        self.entries.insert(old, new);
        self.copies.push((stream, HostOffset(to)));
        for cluster in place.first..place.end() {
            *self.counts.entry(cluster).or_default() += stream.times;
        }
    }
}
