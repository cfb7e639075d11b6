//! How often each host cluster is named, for a window of the file.
//!
//! Sixteen bits for each cluster, in pages that are made when something there is named, so memory
//! follows what is named and never exceeds what the window allows. Any number of threads count, each
//! for itself.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::guard::Clusters;

/// Binary logarithm of the clusters of a page.
const PAGE_BITS: u32 = 12;
/// Clusters of a page.
pub(super) const PAGE: u64 = 1 << PAGE_BITS;
/// Threads that count for themselves, at most: each takes memory.
pub(super) const THREADS: usize = 4;
/// Bytes of memory that a cluster of the window may take: what is shared, and what each thread
/// counts.
pub(super) const COST: usize = 3 + 2 * THREADS;

/// References to the clusters of a window.
pub(super) struct References {
    window: Range<u64>,
    pages: Box<[OnceLock<Box<Page>>]>,
    /// For counts that left their sixteen bits: how often they did.
    carries: Mutex<HashMap<u64, u64>>,
}

/// References to clusters of data that one thread counts for itself: as plain numbers, without
/// the cost of sharing them. Memory is taken where something is counted, a page of the system at a
/// time.
pub(super) struct Own {
    window: Range<u64>,
    counts: Vec<u16>,
    /// Clusters whose count left its sixteen bits, and how often it did.
    carries: HashMap<u64, u64>,
}

impl Own {
    /// `times` more references to each of the clusters.
    #[inline]
    pub(super) fn add(&mut self, run: Clusters, times: u64) {
        let place = |cluster: u64| usize::try_from(cluster - self.window.start).unwrap_or(0);
        let first = run.first.max(self.window.start);
        let end = run.end().min(self.window.end);
        if first >= end {
            return;
        }
        let low = low_half(times);
        let mut left = times >> 16 != 0;
        for count in &mut self.counts[place(first)..place(end)] {
            let (sum, over) = count.overflowing_add(low);
            *count = sum;
            left |= over;
        }
        if left {
            self.carry(first..end, times);
        }
    }

    /// Notes the counts that left their bits when `times` was added.
    #[cold]
    fn carry(&mut self, clusters: Range<u64>, times: u64) {
        let from = usize::try_from(clusters.start - self.window.start).unwrap_or(0);
        let low = low_half(times);
        for (cluster, count) in clusters.zip(&self.counts[from..]) {
            let carries = (times >> 16) + u64::from(*count < low);
            if carries > 0 {
                add_to(&mut self.carries, cluster, carries);
            }
        }
    }
}

fn low_half(times: u64) -> u16 {
    u16::try_from(times & 0xffff).unwrap_or(0)
}

fn add_to(carries: &mut HashMap<u64, u64>, cluster: u64, more: u64) {
    let count = carries.entry(cluster).or_default();
    *count = count.saturating_add(more);
}

/// What is known of the clusters of a page.
struct Page {
    counts: [AtomicU16; 1 << PAGE_BITS],
    metadata: Bits,
    overlaps: Bits,
    ones: Bits,
    seen: Bits,
    bad: Bits,
}

/// A bit for each cluster of a page.
struct Bits([AtomicU64; 1 << (PAGE_BITS - 6)]);

impl References {
    /// None yet, to the clusters of `window`, which begins with a page.
    pub(super) fn new(window: Range<u64>) -> Self {
        let pages = (window.end - window.start).div_ceil(PAGE);
        let pages = (0..pages).map(|_| OnceLock::new()).collect();
        Self { window, pages, carries: Mutex::default() }
    }

    /// The clusters that are counted.
    pub(super) fn window(&self) -> Range<u64> {
        self.window.clone()
    }

    /// The part of `run` that is counted.
    fn inside(&self, run: Clusters) -> Range<u64> {
        run.first.max(self.window.start)..run.end().min(self.window.end)
    }

    /// `times` more references to each of the clusters.
    pub(super) fn add(&self, run: Clusters, times: u64) {
        for cluster in self.inside(run) {
            self.add_one(cluster, times);
        }
    }

    /// `times` more references to a cluster of data.
    pub(super) fn add_data(&self, cluster: u64, times: u64) {
        if self.window.contains(&cluster) {
            let (page, index) = self.page(cluster);
            self.add_to(page, cluster, index, times);
            if page.metadata.get(index) {
                page.overlaps.set(index);
            }
        }
    }

    /// No references, to be counted by one thread and [taken](Self::take) then.
    pub(super) fn own(&self) -> Own {
        let len = usize::try_from(self.window.end - self.window.start).unwrap_or(0);
        Own { window: self.window.clone(), counts: vec![0; len], carries: HashMap::new() }
    }

    /// Adds what a thread has counted; not while another one adds too.
    pub(super) fn take(&self, own: Own) {
        let page = 1 << PAGE_BITS;
        for (first, counts) in (self.window.start..).step_by(page).zip(own.counts.chunks(page)) {
            if counts.iter().any(|count| *count > 0) {
                let (page, _) = self.page(first);
                page.take(counts, |index| self.carry(first + index, 1));
            }
        }
        for (cluster, carries) in own.carries {
            self.add_data(cluster, carries << 16);
        }
    }

    fn add_one(&self, cluster: u64, times: u64) {
        let (page, index) = self.page(cluster);
        self.add_to(page, cluster, index, times);
    }

    #[inline]
    fn add_to(&self, page: &Page, cluster: u64, index: usize, times: u64) {
        let low = low_half(times);
        let old = page.counts[index].fetch_add(low, Relaxed);
        let carries = (times >> 16) + u64::from(old.checked_add(low).is_none());
        if carries > 0 {
            self.carry(cluster, carries);
        }
    }

    #[cold]
    fn carry(&self, cluster: u64, carries: u64) {
        add_to(&mut self.carries(), cluster, carries);
    }

    /// References to a cluster of the window.
    pub(super) fn get(&self, cluster: u64) -> u64 {
        let Some((page, index)) = self.existing(cluster) else { return 0 };
        let low = u64::from(page.counts[index].load(Relaxed));
        let high = self.carries().get(&cluster).copied().unwrap_or(0);
        high.saturating_mul(1 << 16).saturating_add(low)
    }

    /// The references to all clusters of the page that begins at `first`; `None`: not one.
    pub(super) fn page_counts<'a>(&self, first: u64, into: &'a mut Vec<u64>) -> Option<&'a [u64]> {
        let (page, _) = self.existing(first)?;
        into.clear();
        into.extend(page.counts.iter().map(|count| u64::from(count.load(Relaxed))));
        let carries = self.carries();
        if !carries.is_empty() {
            for (cluster, count) in (first..).zip(into.iter_mut()) {
                let high = carries.get(&cluster).copied().unwrap_or(0);
                *count = high.saturating_mul(1 << 16).saturating_add(*count);
            }
        }
        Some(into)
    }

    /// Notes that the clusters hold metadata, which is to be said once of each structure.
    pub(super) fn claim(&self, run: Clusters) {
        for cluster in self.inside(run) {
            let (page, index) = self.page(cluster);
            if page.metadata.set(index) {
                page.overlaps.set(index);
            }
        }
    }

    /// Whether metadata lies in the cluster, and something else too.
    pub(super) fn overlaps(&self, cluster: u64) -> bool {
        self.existing(cluster).is_some_and(|(page, index)| page.overlaps.get(index))
    }

    /// Notes which refcounts are exactly one in the file: those of the clusters from `first` on, at
    /// most a page of them that begins at a multiple of 64.
    pub(super) fn note_ones(&self, first: u64, counts: &[u64]) {
        for (cluster, counts) in (first..).step_by(64).zip(counts.chunks(64)) {
            let bits =
                counts.iter().rev().fold(0, |bits, count| bits << 1 | u64::from(*count == 1));
            if bits != 0 && self.window.contains(&cluster) {
                let (page, index) = self.page(cluster);
                page.ones.0[index / 64].fetch_or(bits, Relaxed);
            }
        }
    }

    /// Whether metadata lies somewhere in the page that begins at `first`, and something else too.
    pub(super) fn page_overlaps(&self, first: u64) -> bool {
        let page = self.existing(first);
        page.is_some_and(|(page, _)| page.overlaps.0.iter().any(|bits| bits.load(Relaxed) != 0))
    }

    /// Whether the refcounts of all the clusters that lie in the window are exactly one in the file
    /// (`one`), or all another number.
    #[inline]
    pub(super) fn are_ones(&self, run: Clusters, one: bool) -> bool {
        let Range { mut start, end } = self.inside(run);
        let wanted = if one { u64::MAX } else { 0 };
        while start < end {
            let len = (64 - start % 64).min(end - start);
            let mask = u64::MAX >> (64 - len) << (start % 64);
            let found = self.existing(start).map_or(0, |(page, index)| page.ones.word(index));
            if (found ^ wanted) & mask != 0 {
                return false;
            }
            start += len;
        }
        true
    }

    /// Clusters that are named.
    pub(super) fn named(&self) -> u64 {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        let named = |count: &&AtomicU16| count.load(Relaxed) != 0;
        pages.map(|page| page.counts.iter().filter(named).count() as u64).sum()
    }

    /// Whether a cluster lies in the window and was not asked for before.
    pub(super) fn see(&self, cluster: u64) -> bool {
        self.window.contains(&cluster) && {
            let (page, index) = self.page(cluster);
            !page.seen.set(index)
        }
    }

    /// Notes that something which begins in the cluster cannot be read.
    pub(super) fn mark_bad(&self, cluster: u64) {
        if self.window.contains(&cluster) {
            let (page, index) = self.page(cluster);
            page.bad.set(index);
        }
    }

    /// Whether something that begins in the cluster cannot be read.
    pub(super) fn is_bad(&self, cluster: u64) -> bool {
        self.existing(cluster).is_some_and(|(page, index)| page.bad.get(index))
    }

    /// Whether the refcount of a cluster of the window is exactly one in the file; `None` for other
    /// clusters.
    #[inline]
    pub(super) fn is_one(&self, cluster: u64) -> Option<bool> {
        if !self.window.contains(&cluster) {
            return None;
        }
        Some(self.existing(cluster).is_some_and(|(page, index)| page.ones.get(index)))
    }

    #[inline]
    fn page(&self, cluster: u64) -> (&Page, usize) {
        let (page, index) = self.place(cluster);
        (self.pages[page].get_or_init(Page::new), index)
    }

    #[inline]
    fn existing(&self, cluster: u64) -> Option<(&Page, usize)> {
        if !self.window.contains(&cluster) {
            return None;
        }
        let (page, index) = self.place(cluster);
        Some((self.pages[page].get()?, index))
    }

    #[inline]
    fn place(&self, cluster: u64) -> (usize, usize) {
        let number = usize::try_from(cluster - self.window.start).unwrap_or(usize::MAX);
        (number >> PAGE_BITS, number & ((1 << PAGE_BITS) - 1))
    }

    fn carries(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.carries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self {
            counts: [const { AtomicU16::new(0) }; 1 << PAGE_BITS],
            metadata: Bits::new(),
            overlaps: Bits::new(),
            ones: Bits::new(),
            seen: Bits::new(),
            bad: Bits::new(),
        })
    }

    /// Adds counts of all its clusters; those that leave their bits are shown to `carry`.
    fn take(&self, counts: &[u16], carry: impl Fn(u64)) {
        for ((index, count), more) in (0..).zip(&self.counts).zip(counts) {
            let (sum, over) = count.load(Relaxed).overflowing_add(*more);
            count.store(sum, Relaxed);
            if over {
                carry(index);
            }
        }
        let words = self.metadata.0.iter().zip(&self.overlaps.0).zip(counts.chunks(64));
        for ((metadata, overlaps), counts) in words {
            let metadata = metadata.load(Relaxed);
            if metadata != 0 {
                let named =
                    counts.iter().rev().fold(0, |bits, count| bits << 1 | u64::from(*count > 0));
                overlaps.fetch_or(metadata & named, Relaxed);
            }
        }
    }
}

impl Bits {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 1 << (PAGE_BITS - 6)])
    }

    #[inline]
    fn get(&self, index: usize) -> bool {
        self.0[index / 64].load(Relaxed) >> (index % 64) & 1 != 0
    }

    /// The bits of 64 clusters, that of `index` among them.
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.0[index / 64].load(Relaxed)
    }

    /// Sets the bit; whether it was set.
    fn set(&self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        self.0[index / 64].fetch_or(bit, Relaxed) & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_count_that_leaves_sixteen_bits_is_not_lost() {
        let references = References::new(0..PAGE);
        references.add(Clusters::new(3, 2), 65_535);
        references.add_data(3, 65_537);
        let mut own = references.own();
        own.add(Clusters::new(4, 1), 65_535);
        own.add(Clusters::new(4, 1), 2);
        references.take(own);
        assert_eq!(
            (references.get(3), references.get(4), references.get(5)),
            (131_072, 131_072, 0)
        );
        let mut page = Vec::new();
        assert_eq!(references.page_counts(0, &mut page).map(|all| all[3]), Some(131_072));
    }

    #[test]
    fn metadata_that_is_claimed_twice_or_named_as_data_overlaps() {
        let references = References::new(0..PAGE);
        references.claim(Clusters::new(1, 3));
        references.claim(Clusters::new(3, 1));
        references.add_data(1, 1);
        references.add_data(9, 1);
        let overlaps: Vec<u64> = (0..12).filter(|cluster| references.overlaps(*cluster)).collect();
        assert_eq!(overlaps, [1, 3]);
    }

    #[test]
    fn the_refcounts_of_a_run_are_all_one_or_not() {
        let references = References::new(PAGE..3 * PAGE);
        let mut counts = vec![1; 200];
        counts[150] = 2;
        references.note_ones(2 * PAGE - 128, &counts[..128]);
        references.note_ones(2 * PAGE, &counts[128..]);
        let of = |first, count, one| references.are_ones(Clusters::new(first, count), one);
        let start = 2 * PAGE - 128;
        assert!(of(start, 150, true) && of(start + 127, 2, true) && of(start + 150, 1, false));
        assert!(!of(start, 151, true) && !of(start + 149, 2, false) && !of(start - 1, 2, true));
        assert!(of(start - 70, 70, false), "pages in which nothing was noted");
        assert!(of(0, PAGE, true) && of(0, PAGE, false), "outside the window nothing is known");
    }

    proptest! {
        #[test]
        fn only_the_window_is_counted_and_what_threads_count_adds_up(
            runs in proptest::collection::vec((0_u64..3 * PAGE, 1_u64..9, 1_u64..70_000, 0_usize..3), 0..40),
        ) {
            let references = References::new(PAGE..2 * PAGE);
            let mut owns = [references.own(), references.own()];
            let mut model = vec![0_u64; 4 << PAGE_BITS];
            for (first, count, times, who) in runs {
                match owns.get_mut(who) {
                    Some(own) => own.add(Clusters::new(first, count), times),
                    None => references.add(Clusters::new(first, count), times),
                }
                for cluster in first..first + count {
                    model[usize::try_from(cluster).expect("small")] += times;
                }
            }
            owns.into_iter().for_each(|own| references.take(own));
            for cluster in 0..3 * PAGE {
                let expected = model[usize::try_from(cluster).expect("small")];
                let inside = references.window().contains(&cluster);
                prop_assert_eq!(references.get(cluster), if inside { expected } else { 0 });
            }
        }
    }
}
