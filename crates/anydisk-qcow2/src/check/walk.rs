//! A look at all L2 tables: what their entries name is counted, what is wrong with them is told.
//!
//! Each table is looked at once, however many L1 tables name it, and what it names counts as often
//! as that. Threads count; what they find wrong they only mark, and the marked tables are looked at
//! again, in order, to tell what it is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use anydisk_core::{HostOffset, Result};

use super::counts::Blocks;
use super::judge::{Named, Rules};
use super::progress::Progress;
use super::references::{Own, References, THREADS};
use super::roots::tell_unreadable;
use super::runs::{Run, Shape};
use super::subject::{PIECE, PastEnd, Subject};
use super::tables::{L2Table, Sums, covered, range};
use super::trouble::{Teller, Trouble, Troubles};
use super::windows::Touched;
use crate::entry::{L1Entry, L2Entry};
use crate::guard::Clusters;
use crate::layout::entry::{COPIED, OFFSET};

/// What a stream takes a whole number of.
const SECTOR: u64 = 512;

/// A look at all L2 tables, for one window of the file.
pub(super) struct Walk<'a> {
    pub(super) subject: &'a Subject,
    pub(super) tables: &'a [L2Table],
    pub(super) references: &'a References,
    pub(super) blocks: &'a Blocks,
    pub(super) rules: Rules,
    pub(super) shape: Shape,
    /// It is the first window, so what does not depend on the window is looked at too.
    pub(super) first: bool,
    /// Entries that a repair makes plain zeroes count as such.
    pub(super) mends_entries: bool,
    pub(super) touched: &'a Touched,
}

/// What one thread has counted.
struct Counted {
    sums: Sums,
    data: Own,
}

/// A table, and what it holds.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    number: usize,
    pub(super) table: &'a L2Table,
    /// `None`: it cannot be read.
    pub(super) bytes: Option<&'a [u8]>,
}

/// An entry and where it is.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) table: &'a L2Table,
    pub(super) index: usize,
    pub(super) entry: L2Entry,
}

impl Walk<'_> {
    /// Counts the tables themselves.
    pub(super) fn count_tables(&self) {
        for table in self.tables {
            let run = Clusters::touched(table.at, self.subject.cluster_size(), self.subject.bits());
            self.references.claim(run);
            self.references.add(run, table.times);
        }
    }

    /// Counts what the tables name, on several threads, and then tells what is wrong with them.
    pub(super) fn run(
        &self,
        threads: usize,
        progress: &Progress<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<Sums> {
        let flags =
            || -> Vec<AtomicBool> { self.tables.iter().map(|_| AtomicBool::new(false)).collect() };
        let (faulty, unread) = (flags(), flags());
        let begin = || Counted { sums: Sums::default(), data: self.references.own() };
        let counted = self.on_threads(threads, progress, begin, |own, shown| {
            unread[shown.number].store(shown.bytes.is_none(), Relaxed);
            if shown.bytes.is_none_or(|bytes| self.count(shown.table, bytes, own)) {
                faulty[shown.number].store(true, Relaxed);
            }
            progress.step(self.subject.cluster_size())
        })?;
        let mut sums = Sums::default();
        for Counted { sums: more, data } in counted {
            sums.add(more);
            self.references.take(data);
        }
        let marked = faulty.iter().zip(&unread).zip(self.tables);
        for ((_, unread), table) in marked.filter(|((faulty, _), _)| faulty.load(Relaxed)) {
            self.tell(table, unread.load(Relaxed), teller);
            progress.step(0)?;
        }
        Ok(sums)
    }

    /// Shows all tables that are not empty, each to one of several threads. What the threads came
    /// to, each from what `begin` gave it.
    pub(super) fn on_threads<T: Send>(
        &self,
        threads: usize,
        progress: &Progress<'_>,
        begin: impl Fn() -> T + Sync,
        show: impl Fn(&mut T, Shown<'_>) -> Result<()> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = begin();
            let shown = self.work(&next, progress, &mut |shown| show(&mut own, shown));
            shown.map(|()| own)
        };
        // A thread costs more than it gains where there is little to do.
        let useful = threads.min(THREADS).min(self.tables.len().div_ceil(self.batch()));
        std::thread::scope(|scope| {
            // As many as the system gives.
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..useful).map_while(spawn).collect();
            let first = work();
            let others = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            // All of them end before the first error is told.
            std::iter::once(first).chain(others).collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// Tables that a thread takes at a time.
    fn batch(&self) -> usize {
        usize::try_from(PIECE / self.subject.cluster_size()).unwrap_or(0).max(1)
    }

    /// Takes batches of tables until there are none.
    fn work(
        &self,
        next: &AtomicUsize,
        progress: &Progress<'_>,
        show: &mut impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<()> {
        let (cluster, batch) = (self.subject.cluster_size(), self.batch());
        let mut buffer = Vec::new();
        loop {
            let first = next.fetch_add(batch, Relaxed);
            let end = (first + batch).min(self.tables.len());
            if first >= end {
                return Ok(());
            }
            let mut at = first;
            while at < end {
                let together = self.tables[at..end].chunk_by(|a, b| a.at + cluster == b.at);
                let run = together.into_iter().next().map_or(1, <[L2Table]>::len);
                self.show_run(at..at + run, &mut buffer, show)?;
                at += run;
            }
            progress.step(0)?;
        }
    }

    /// Shows tables that follow each other in the file.
    fn show_run(
        &self,
        numbers: Range<usize>,
        buffer: &mut Vec<u8>,
        show: &mut impl FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<()> {
        let cluster = usize::try_from(self.subject.cluster_size()).unwrap_or(usize::MAX);
        let tables = &self.tables[numbers.clone()];
        let (at, len) = (tables[0].at, tables.len() * cluster);
        if !self.is_walked(&tables[0]) || self.subject.is_hole(at, len as u64) {
            return Ok(());
        }
        buffer.resize(len, 0);
        let read = self.subject.read(at, buffer);
        if read.is_err() && tables.len() > 1 {
            // The others are none the worse for the one that cannot be read.
            return numbers
                .into_iter()
                .try_for_each(|one| self.show_run(one..one + 1, buffer, show));
        }
        for ((number, table), bytes) in numbers.zip(tables).zip(buffer.chunks(cluster)) {
            show(Shown { number, table, bytes: read.is_ok().then_some(bytes) })?;
        }
        Ok(())
    }

    /// A table that does not begin with a cluster is none: what it would name is not looked at.
    pub(super) fn is_walked(&self, table: &L2Table) -> bool {
        HostOffset(table.at).is_aligned(self.subject.cluster_size())
    }

    /// Counts what a table names. Whether something may be wrong with it.
    fn count(&self, table: &L2Table, bytes: &[u8], own: &mut Counted) -> bool {
        let (mut wrong, mut next) = (false, 0);
        let sums = self.first && table.active.is_some();
        for run in self.shape.runs(bytes) {
            let slot = Slot { table, index: run.index, entry: run.entry };
            let (named, more) = match run.plain.checked_sub(1) {
                Some(more) => {
                    wrong |= self.count_plain(table, &run, &mut own.data);
                    (Named::Cluster(run.entry.word & OFFSET), more as u64)
                }
                None => {
                    let (named, troubles) = self.look(slot, Some(&mut own.data));
                    wrong |= !troubles.is_empty();
                    (named, 0)
                }
            };
            if sums {
                self.sum(named, &mut next, &mut own.sums);
                own.sums.allocated += more;
                next = next.saturating_add(more << self.subject.bits());
            }
        }
        wrong
    }

    /// Counts what a run of plain entries names. Whether something may be wrong with them.
    #[inline]
    fn count_plain(&self, table: &L2Table, run: &Run, own: &mut Own) -> bool {
        let word = run.entry.word;
        let named = Clusters::new((word & OFFSET) >> self.subject.bits(), run.plain as u64);
        let there = named.end().min(self.subject.end() - 1).saturating_sub(named.first);
        let inside = Clusters::new(named.first, there);
        own.add(inside, table.times);
        if self.first {
            self.touched.note_run(inside);
        }
        let copied = word & COPIED != 0;
        let agree = table.active.is_none() || self.references.are_ones(named, copied);
        // The file may end inside the last cluster that is there.
        let is_whole = self
            .subject
            .missing(inside.first << self.subject.bits(), inside.count << self.subject.bits())
            == 0;
        self.first && (there < named.count || !is_whole) || !agree
    }

    /// What an entry names, and what is wrong with it in this window. Counts it if asked to.
    #[inline]
    fn look(&self, slot: Slot<'_>, counts: Option<&mut Own>) -> (Named, Troubles) {
        let guest = if self.subject.header.has_data_file() { self.guest(slot) } else { None };
        let (named, of_entry) = self.rules.judge(slot.entry, guest);
        let mut troubles = if self.first { of_entry } else { Troubles::default() };
        let (at, len) = match named {
            Named::Nothing | Named::Elsewhere(_) => return (named, troubles),
            Named::Cluster(_) if self.mends_entries && of_entry.holds(Trouble::ZeroUnaligned) => {
                return (Named::Nothing, troubles);
            }
            Named::Cluster(at) => (at, self.subject.cluster_size()),
            Named::Stream { at, len } => (at, len),
        };
        match (self.subject.region(at, len), counts) {
            (Ok(run), Some(own)) => {
                own.add(run, slot.table.times);
                if self.first {
                    self.touched.note_run(run);
                }
            }
            (Ok(_), None) => {}
            (Err(PastEnd), _) => troubles.add_if(self.first, Trouble::PastEnd),
        }
        if self.first && self.subject.missing(at, len) > 0 {
            troubles.add_if(
                !troubles.holds(Trouble::PastEnd) && self.is_cut(slot, named),
                Trouble::CutInside,
            );
        }
        if let Named::Cluster(at) = named
            && slot.table.active.is_some()
            && self.copied_is_wrong(at, slot.entry.is_copied())
        {
            troubles.add(Trouble::Copied);
        }
        (named, troubles)
    }

    /// Whether something is missing, behind the end of the file, of what an entry names and the disk
    /// shows. Every known writer leaves whole clusters, if not of what the disk or its last
    /// subclusters do not have, and some of each sector that a stream declares.
    #[cold]
    fn is_cut(&self, slot: Slot<'_>, named: Named) -> bool {
        match named {
            Named::Stream { at, len } => self.subject.missing(at, len) >= SECTOR,
            Named::Cluster(at) => self.subject.missing(at, self.shown_of(slot)) > 0,
            Named::Nothing | Named::Elsewhere(_) => false,
        }
    }

    /// Bytes of a cluster of the active disk up to the last that the disk shows.
    fn shown_of(&self, slot: Slot<'_>) -> u64 {
        let Some(guest) = self.guest(slot).filter(|_| !self.rules.is_zero(slot.entry)) else {
            return 0;
        };
        let on_disk = self.subject.header.disk_size().saturating_sub(guest);
        self.rules.stored(slot.entry).min(on_disk)
    }

    /// Whether the flag of an entry disagrees with the refcount in the file.
    #[inline]
    pub(super) fn copied_is_wrong(&self, at: u64, copied: bool) -> bool {
        let cluster = at >> self.subject.bits();
        let one = match self.references.is_one(cluster) {
            // What lies past the end of the file has no refcount that counts.
            None if self.first && cluster >= self.subject.end() => false,
            None => return false,
            Some(one) => one,
        };
        one != copied && !self.blocks.is_unknown(self.subject, cluster)
    }

    fn sum(&self, named: Named, next: &mut u64, sums: &mut Sums) {
        match named {
            Named::Nothing => {}
            Named::Stream { .. } => {
                sums.allocated += 1;
                sums.compressed += 1;
                sums.fragmented += 1;
            }
            Named::Cluster(at) | Named::Elsewhere(at) => {
                sums.allocated += 1;
                sums.fragmented += u64::from(*next != 0 && at != *next);
                *next = at.saturating_add(self.subject.cluster_size());
            }
        }
    }

    /// Tells what is wrong with a table, also with one that was not counted because it could not be
    /// read then.
    fn tell(&self, table: &L2Table, unread: bool, teller: &mut Teller<'_>) {
        let mut bytes = vec![0; usize::try_from(self.subject.cluster_size()).unwrap_or(0)];
        if let Err(error) = self.subject.read(table.at, &mut bytes) {
            return tell_unreadable(teller, HostOffset(table.at), &error);
        }
        if unread {
            let text = || "the L2 table could be read the second time only".to_owned();
            return teller.tell(Trouble::Unreadable, HostOffset(table.at), text);
        }
        for run in self.shape.runs(&bytes) {
            for number in 0..run.plain.max(1) {
                let index = run.index + number;
                let slot = Slot { table, index, entry: self.shape.entry(&bytes, index) };
                let (_, troubles) = self.look(slot, None);
                if !troubles.is_empty() {
                    self.tell_entry(slot, troubles, teller);
                }
            }
        }
    }

    fn tell_entry(&self, slot: Slot<'_>, troubles: Troubles, teller: &mut Teller<'_>) {
        let place = self.place(slot);
        let guest = self.guest(slot).map(|at| range(at, self.subject.cluster_size()));
        let L2Entry { word, bitmap } = slot.entry;
        for (trouble, expected) in TOLD {
            if troubles.holds(*trouble) {
                // Snapshots share the table, and none of them vouches for its flags.
                let times = match trouble {
                    Trouble::Copied | Trouble::CutInside => slot.table.times_active.into(),
                    _ => slot.table.times,
                };
                teller.tell_times(*trouble, place, (guest, times), || match bitmap {
                    0 => format!("L2 entry {word:#x}, expected {expected}"),
                    _ => format!("L2 entry {word:#x} with {bitmap:#x}, expected {expected}"),
                });
            }
        }
    }

    /// Where the entry is in the file.
    pub(super) fn place(&self, slot: Slot<'_>) -> HostOffset {
        let words = self.subject.geometry.entry_words() as u64;
        HostOffset(slot.table.at).saturating_add(slot.index as u64 * words * 8)
    }

    /// Where the cluster is on the disk, if it is on the active one.
    pub(super) fn guest(&self, slot: Slot<'_>) -> Option<u64> {
        let index = u64::from(slot.table.active?);
        let start = index.checked_shl(self.subject.geometry.l2_coverage_bits())?;
        start.checked_add((slot.index as u64) << self.subject.bits())
    }

    /// Looks at the flags of the active L1 table.
    pub(super) fn check_l1_flags(&self, teller: &mut Teller<'_>) -> Result<()> {
        if self.subject.header.has_data_file() && self.tables.is_empty() {
            return Ok(());
        }
        let start = self.subject.header.l1_table_offset.get();
        let len = u64::from(self.subject.header.l1_size) * 8;
        let visit = |number: u64, word: u64| {
            let Some(at) = L1Entry(word).table() else { return Ok(()) };
            if self.copied_is_wrong(at.get(), word & COPIED != 0) {
                let (place, guest) =
                    (HostOffset(start + number * 8), covered(self.subject, number));
                teller.tell_costing(Trouble::Copied, place, Some(guest), || {
                    format!("L1 entry {word:#x}: its COPIED flag (bit 63) and the refcount of the table disagree")
                });
            }
            Ok(())
        };
        // What cannot be read was told when the tables were found.
        self.subject.words(start, len, visit, |_, _| {})
    }
}

/// What is expected of an L2 entry, by what is wrong with it.
const TOLD: &[(Trouble, &str)] = &[
    (Trouble::ReservedBits, "no reserved bits"),
    (Trouble::ZeroFlag, "no zero flag (bit 0) in a version 2 image"),
    (Trouble::SubclusterBoth, "no subcluster both allocated and zero"),
    (Trouble::SubclusterNoHost, "no allocated subcluster without a host cluster"),
    (Trouble::CompressedInDataFile, "no compressed cluster beside an external data file"),
    (Trouble::CompressedCopied, "no COPIED flag (bit 63) with compressed data"),
    (Trouble::CompressedBitmap, "no subclusters with compressed data"),
    (Trouble::StreamOutOfReach, "compressed data below 2^56"),
    (Trouble::DataUnaligned, "a multiple of the cluster size"),
    (Trouble::ZeroUnaligned, "a multiple of the cluster size"),
    (Trouble::DataFileMismatch, "the place of the guest cluster in the data file"),
    (Trouble::PastEnd, "a place that ends before the end of the file"),
    (Trouble::CutInside, "all that the disk shows of it before the end of the file"),
    (Trouble::Copied, "a COPIED flag (bit 63) that agrees with the refcount of the cluster"),
];
