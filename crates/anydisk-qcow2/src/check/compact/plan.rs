//! Where everything at the end of the file goes. Pure.
//!
//! From the last cluster down, each thing gets the first gap before it that is large enough; at the
//! first thing that gets none, or stays, the file will end.

use std::collections::{BTreeMap, HashMap};

use anydisk_core::HostOffset;

use super::atlas::{Atlas, Large, Stream, What};
use crate::Geometry;
use crate::guard::Clusters;

/// Streams begin where a sector does, so that none declares more sectors than before.
const SECTOR: u64 = 512;
/// Lengths of gaps that are sought, each of which costs a look at the whole file.
const LENGTHS: usize = 64;

/// What moves.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Clusters, from and to, both rising.
    pub(super) alone: Vec<(u64, u64)>,
    /// Tables of several clusters, each with its new first one.
    pub(super) large: Vec<(Large, u64)>,
    /// Streams, each with its new place and its new entry.
    pub(super) streams: Vec<(Stream, HostOffset, u64)>,
    /// Refcounts of the clusters in which streams are to lie.
    pub(super) stream_counts: BTreeMap<u64, u64>,
}

impl Plan {
    /// Plans for an image of this geometry, whose refcounts go up to `most`.
    pub(super) fn new(atlas: &mut Atlas, geometry: &Geometry, most: u64) -> Self {
        let (larges, streams) =
            (std::mem::take(&mut atlas.larges), std::mem::take(&mut atlas.streams));
        let known_from = atlas.known_from;
        let gaps = Gaps { atlas, hunt: 1, hunts: HashMap::new() };
        let packer = Packer { next: 0, end: 0, most, geometry };
        let mut planner =
            Planner { plan: Self::default(), gaps, packer, larges, streams, known_from };
        planner.run();
        let mut plan = planner.plan;
        // The same clusters, in the order of the file.
        let (mut from, mut to): (Vec<u64>, Vec<u64>) = plan.alone.into_iter().unzip();
        from.sort_unstable();
        to.sort_unstable();
        plan.alone = from.into_iter().zip(to).collect();
        plan
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.large.is_empty() && self.streams.is_empty()
    }

    /// Where a cluster goes, if it does.
    pub(super) fn moved(&self, cluster: u64) -> Option<u64> {
        let found = self.alone.binary_search_by_key(&cluster, |(from, _)| *from).ok()?;
        self.alone.get(found).map(|(_, to)| *to)
    }

    /// Bytes that move.
    pub(super) fn len(&self, cluster_bits: u32) -> u64 {
        let large = self.large.iter().map(|(large, _)| large.run.count).sum::<u64>();
        let streams = self.streams.iter().map(|(stream, ..)| stream.len).sum::<u64>();
        ((self.alone.len() as u64 + large) << cluster_bits) + streams
    }
}

struct Planner<'a> {
    plan: Plan,
    gaps: Gaps<'a>,
    packer: Packer<'a>,
    larges: Vec<Large>,
    streams: Vec<Stream>,
    known_from: u64,
}

impl Planner<'_> {
    fn run(&mut self) {
        let mut cluster = self.gaps.atlas.end();
        while cluster > 1 {
            cluster -= 1;
            let moved = match self.gaps.get(cluster) {
                What::Nothing | What::Free => continue,
                What::Fixed | What::Taken | What::Unknown => None,
                What::Large => self.move_large(cluster),
                What::Streams => self.move_streams(cluster),
                What::Data | What::L2Table | What::RefcountBlock | What::Bits => {
                    self.move_alone(cluster)
                }
            };
            let Some(first) = moved else { return };
            cluster = first;
        }
    }

    /// Moves it; the first cluster that has been seen to then.
    fn move_alone(&mut self, cluster: u64) -> Option<u64> {
        let to = self.gaps.first(cluster)?;
        self.plan.alone.push((cluster, to));
        Some(cluster)
    }

    fn move_large(&mut self, last: u64) -> Option<u64> {
        while self.larges.last().is_some_and(|large| large.run.end() - 1 > last) {
            self.larges.pop();
        }
        let large = *self.larges.last().filter(|large| large.run.end() - 1 == last)?;
        let is_whole =
            (large.run.first..=last).all(|cluster| self.gaps.get(cluster) == What::Large);
        let to = self.gaps.run(large.run.count, large.run.first).filter(|_| is_whole)?;
        self.plan.large.push((large, to));
        self.larges.pop();
        Some(large.run.first)
    }

    /// Moves all streams that reach into the cluster.
    fn move_streams(&mut self, cluster: u64) -> Option<u64> {
        if cluster < self.known_from {
            return None;
        }
        let bits = self.packer.geometry.cluster_bits();
        while let Some(stream) = self.streams.last()
            && (stream.at + stream.len - 1) >> bits >= cluster
        {
            let (to, word) =
                self.packer.place(stream, &mut self.gaps, &mut self.plan.stream_counts)?;
            self.plan.streams.push((*stream, to, word));
            self.streams.pop();
        }
        Some(cluster)
    }
}

/// Free clusters, given away once.
struct Gaps<'a> {
    atlas: &'a mut Atlas,
    /// No cluster before it is free.
    hunt: u64,
    /// The same for runs, by their length.
    hunts: HashMap<u64, u64>,
}

impl Gaps<'_> {
    fn get(&self, cluster: u64) -> What {
        self.atlas.what(cluster)
    }

    /// Takes a cluster, if it is free.
    fn take(&mut self, cluster: u64) -> bool {
        let free = self.get(cluster) == What::Free;
        if free {
            self.atlas.take(cluster);
        }
        free
    }

    /// The first free cluster before `below`, taken.
    fn first(&mut self, below: u64) -> Option<u64> {
        while let Some(found) = self.atlas.free.next(self.hunt, below) {
            self.hunt = found + 1;
            if self.take(found) {
                return Some(found);
            }
        }
        None
    }

    /// The first of the first `count` free clusters in a row before `below`, taken.
    fn run(&mut self, count: u64, below: u64) -> Option<u64> {
        if self.hunts.len() >= LENGTHS && !self.hunts.contains_key(&count) {
            return None;
        }
        let mut first = self.hunts.get(&count).copied().unwrap_or(1);
        let mut len = 0;
        while let Some(free) = self.atlas.free.next(first + len, below) {
            if len == 0 || free > first + len {
                (first, len) = (free, 0);
            }
            len = if self.get(free) == What::Free { len + 1 } else { 0 };
            if len == 0 {
                first = free + 1;
            } else if len == count {
                break;
            }
        }
        self.hunts.insert(count, first);
        if len < count {
            return None;
        }
        (first..first + count).for_each(|cluster| {
            self.take(cluster);
        });
        Some(first)
    }
}

/// Streams side by side in gaps.
struct Packer<'a> {
    /// Where the next stream goes, and the end of the clusters taken for it, in bytes.
    next: u64,
    end: u64,
    /// The largest refcount.
    most: u64,
    geometry: &'a Geometry,
}

impl Packer<'_> {
    /// A place for a stream before where it is, and the entry that names it.
    fn place(
        &mut self,
        stream: &Stream,
        gaps: &mut Gaps<'_>,
        counts: &mut BTreeMap<u64, u64>,
    ) -> Option<(HostOffset, u64)> {
        let bits = self.geometry.cluster_bits();
        let below = stream.at >> bits;
        if !self.fits_here(stream, below, gaps, counts) {
            let count = stream.len.div_ceil(1 << bits);
            let first = gaps.run(count, below)?;
            (self.next, self.end) = (first << bits, (first + count) << bits);
        }
        let (to, run) = (self.next, Clusters::touched(self.next, stream.len, bits));
        let word = self.geometry.compressed_entry(HostOffset(to), stream.len)?.word;
        if stream.times > self.most || run.end() > below {
            return None;
        }
        for cluster in run.first..run.end() {
            *counts.entry(cluster).or_default() += stream.times;
        }
        self.next = (to + stream.len).next_multiple_of(SECTOR);
        Some((HostOffset(to), word))
    }

    /// Whether a stream can go on where the last one ended; takes clusters that it needs.
    fn fits_here(
        &mut self,
        stream: &Stream,
        below: u64,
        gaps: &mut Gaps<'_>,
        counts: &BTreeMap<u64, u64>,
    ) -> bool {
        let bits = self.geometry.cluster_bits();
        let run = Clusters::touched(self.next, stream.len, bits);
        let mut in_use = counts.range(run.first..run.end());
        let countable = in_use.all(|(_, count)| count.saturating_add(stream.times) <= self.most);
        if self.end == 0 || run.end() > below || !countable {
            return false;
        }
        while self.end < run.end() << bits {
            if !gaps.take(self.end >> bits) {
                return false;
            }
            self.end += 1 << bits;
        }
        true
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::super::atlas::Kind;
    use super::super::free::Free;
    use super::*;
    use crate::Header;
    use crate::header::tests::header;
    use proptest::prelude::*;

    const CLUSTER: u64 = 512;

    fn geometry() -> Geometry {
        Geometry::new(&Header { cluster_bits: 9, ..header() })
    }

    /// Pieces of a file, one behind the other: what, and how long.
    fn atlas(pieces: &[(u8, u64)]) -> Atlas {
        let mut atlas = Atlas {
            first: 0,
            what: vec![What::Fixed],
            free: Free::default(),
            larges: vec![],
            streams: vec![],
            known_from: 0,
        };
        for (kind, len) in pieces {
            let first = atlas.what.len() as u64;
            let mut put = |what, count| (0..count).for_each(|_| atlas.what.push(what));
            match kind {
                0..=2 => put(What::Free, *len),
                3..=5 => put(What::Data, *len),
                6 => put(What::Nothing, 1),
                7 => put(What::Fixed, 1),
                8 => {
                    put(What::Large, *len);
                    let run = Clusters::new(first, *len);
                    atlas.larges.push(Large { run, kind: Kind::L1 });
                }
                _ => {
                    put(What::Streams, 2);
                    let times = *len % 3 + 1;
                    for (number, len) in [(0, *len * 70), (1, 100)] {
                        let at = first * CLUSTER + number * 500;
                        let word = geometry().compressed_entry(HostOffset(at), len);
                        let word = word.expect("in reach").word;
                        atlas.streams.push(Stream { at, len, word, times });
                    }
                }
            }
        }
        let last = |stream: &Stream| (stream.at + stream.len - 1) / CLUSTER;
        atlas.streams.sort_by_key(last);
        let is_free = |(_, what): &(u64, &What)| **what == What::Free;
        let free = (0..).zip(&atlas.what).filter(is_free).map(|(cluster, _)| cluster);
        atlas.free = Free::of_clusters(free, atlas.end());
        atlas
    }

    proptest! {
        #[test]
        fn everything_moves_down_into_gaps_of_its_own_and_only_from_the_end(
            pieces in proptest::collection::vec((0_u8..11, 1_u64..7), 0..60),
        ) {
            let mut atlas = atlas(&pieces);
            let before = atlas.what.clone();
            let most = 3;
            let plan = Plan::new(&mut atlas, &geometry(), most);
            let mut taken = std::collections::BTreeSet::new();
            let mut lowest_moved = u64::MAX;
            let free = |cluster: u64| before[usize::try_from(cluster).expect("small")] == What::Free;
            for (from, to) in &plan.alone {
                prop_assert!(to < from && free(*to) && taken.insert(*to));
                prop_assert_eq!(plan.moved(*from), Some(*to));
                lowest_moved = lowest_moved.min(*from);
            }
            for (large, to) in &plan.large {
                prop_assert!(to + large.run.count <= large.run.first);
                for cluster in *to..to + large.run.count {
                    prop_assert!(free(cluster) && taken.insert(cluster));
                }
                lowest_moved = lowest_moved.min(large.run.first);
            }
            let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
            let mut bytes: Vec<(u64, u64)> = Vec::new();
            for (stream, to, word) in &plan.streams {
                let entry = geometry().compressed_entry(*to, stream.len).expect("in reach");
                prop_assert_eq!(entry.word, *word);
                let run = Clusters::touched(to.get(), stream.len, 9);
                prop_assert!(run.end() * CLUSTER <= stream.at / CLUSTER * CLUSTER);
                for cluster in run.first..run.end() {
                    prop_assert!(free(cluster) && !taken.contains(&cluster));
                    *counts.entry(cluster).or_default() += stream.times;
                }
                bytes.push((to.get(), to.get() + stream.len));
            }
            bytes.sort_unstable();
            prop_assert!(bytes.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            prop_assert!(counts.values().all(|count| *count <= most));
            prop_assert_eq!(&counts, &plan.stream_counts);
            // Behind the lowest that moved nothing stays, but in clusters of streams, some of which
            // found no place.
            let stays = |what: &What| matches!(what, What::Fixed | What::Data | What::Large);
            let moved = |cluster: u64| {
                let large = |large: &Large| (large.run.first..large.run.end()).contains(&cluster);
                plan.moved(cluster).is_some() || plan.large.iter().any(|(one, _)| large(one))
            };
            for (cluster, what) in (0..).zip(&before) {
                prop_assert!(cluster < lowest_moved || lowest_moved == u64::MAX
                    || !stays(what) || moved(cluster));
            }
        }
    }
}
