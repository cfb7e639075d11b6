//! The L2 tables: which there are, and what their entries name.
//!
//! Each table is looked at once, however many L1 tables name it, and what it names counts as often
//! as that. Threads count; what they find wrong they only mark, and the marked tables are looked at
//! again, in order, to tell what it is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use anydisk_core::{Error, GuestOffset, GuestRange, HostOffset, Result};

use super::counts::Blocks;
use super::judge::{L1_RESERVED, Named, Rules};
use super::progress::Progress;
use super::references::{Own, References, THREADS};
use super::roots::{Roots, tell_unreadable};
use super::subject::{PIECE, PastEnd, Subject};
use super::trouble::{Teller, Trouble, Troubles};
use super::windows::Touched;
use crate::NAME;
use crate::entry::{L1Entry, L2Entry};
use crate::guard::Clusters;
use crate::layout::entry::{COPIED, OFFSET};

/// An L2 table.
#[derive(Clone, Copy, Debug)]
pub(super) struct L2Table {
    pub(super) at: u64,
    /// L1 entries that name it.
    pub(super) times: u64,
    /// The first entry of the active L1 table that does.
    pub(super) active: Option<u32>,
}

/// Sums over the entries of the active disk, and the end of what is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) allocated: u64,
    pub(super) fragmented: u64,
    pub(super) compressed: u64,
}

impl Sums {
    pub(super) fn add(&mut self, other: Self) {
        self.allocated += other.allocated;
        self.fragmented += other.fragmented;
        self.compressed += other.compressed;
    }
}

/// Finds all L2 tables, in the order of the file, and tells what is wrong with L1 entries.
///
/// # Errors
/// [`Error::Limit`] if there are more than `limit`.
pub(super) fn gather(
    subject: &Subject,
    roots: &Roots,
    limit: usize,
    teller: &mut Teller<'_>,
) -> Result<Vec<L2Table>> {
    let mut tables = Vec::new();
    let active = subject.header.l1_table_offset.get();
    let entries = u64::from(subject.header.l1_size);
    for segment in &roots.l1 {
        let mut lost = Vec::new();
        let visit = |number: u64, word: u64| {
            let place = segment.start + number * 8;
            let index = place.checked_sub(active).map(|bytes| bytes / 8);
            let index = index.filter(|index| *index < entries);
            let named = L1Named { place: HostOffset(place), word, times: segment.times, index };
            tables.extend(look_at_l1(subject, &named, teller));
            if tables.len() >= limit { merge(&mut tables, limit) } else { Ok(()) }
        };
        let len = segment.end - segment.start;
        subject.words(segment.start, len, visit, |at, error| lost.push((at, error)))?;
        lost.iter().for_each(|(at, error)| tell_unreadable(teller, HostOffset(*at), error));
    }
    merge(&mut tables, limit)?;
    Ok(tables)
}

struct L1Named {
    place: HostOffset,
    word: u64,
    times: u64,
    index: Option<u64>,
}

/// The table that an L1 entry names, if it lies in the file.
fn look_at_l1(subject: &Subject, named: &L1Named, teller: &mut Teller<'_>) -> Option<L2Table> {
    let guest = named.index.map(|index| covered(subject, index));
    let word = named.word;
    if word & L1_RESERVED != 0 {
        teller.tell_costing(Trouble::ReservedBits, named.place, guest, || {
            format!("L1 entry {word:#x} has reserved bits set")
        });
    }
    let at = word & OFFSET;
    if at == 0 {
        return None;
    }
    if !HostOffset(at).is_aligned(subject.cluster_size()) {
        teller.tell_costing(Trouble::TableUnaligned, named.place, guest, || {
            format!("L1 entry {word:#x}, expected an L2 table at a multiple of the cluster size")
        });
    }
    if let Err(PastEnd) = subject.region(at, subject.cluster_size()) {
        teller.tell_costing(Trouble::PastEnd, named.place, guest, || {
            format!("L1 entry {word:#x} names an L2 table past the end of the file")
        });
        return None;
    }
    let active = named.index.and_then(|index| u32::try_from(index).ok());
    Some(L2Table { at, times: named.times, active })
}

/// The part of the disk that an L1 entry maps.
fn covered(subject: &Subject, index: u64) -> GuestRange {
    let len = 1_u64 << subject.geometry.l2_coverage_bits();
    range(index.saturating_mul(len), len)
}

fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::between(GuestOffset(start), GuestOffset(start.saturating_add(len)))
}

/// Puts the tables in order, each once.
fn merge(tables: &mut Vec<L2Table>, limit: usize) -> Result<()> {
    tables.sort_unstable_by_key(|table| (table.at, table.active.unwrap_or(u32::MAX)));
    tables.dedup_by(|next, kept| {
        let same = next.at == kept.at;
        if same {
            kept.times = kept.times.saturating_add(next.times);
        }
        same
    });
    // Room must be gained, or each entry would sort all of them again.
    if tables.len() < limit - limit / 4 {
        return Ok(());
    }
    let (found, limit) = (tables.len() as u64, (limit - limit / 4) as u64);
    Err(Error::Limit { format: NAME, what: "number of L2 tables".into(), found, limit })
}

/// A look at all L2 tables, for one window of the file.
pub(super) struct Walk<'a> {
    pub(super) subject: &'a Subject,
    pub(super) tables: &'a [L2Table],
    pub(super) references: &'a References,
    pub(super) blocks: &'a Blocks,
    pub(super) rules: Rules,
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

/// An entry and where it is.
#[derive(Clone, Copy)]
struct Slot<'a> {
    table: &'a L2Table,
    index: usize,
    entry: L2Entry,
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
        let faulty: Vec<AtomicBool> = self.tables.iter().map(|_| AtomicBool::new(false)).collect();
        let (next, sums) = (AtomicUsize::new(0), Mutex::new(Sums::default()));
        let work = || {
            let mut own = Counted { sums: Sums::default(), data: self.references.own() };
            let result = self.work(&next, &faulty, progress, &mut own);
            sums.lock().unwrap_or_else(PoisonError::into_inner).add(own.sums);
            self.references.take(own.data);
            result
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(THREADS)).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(other);
            }
            result
        })?;
        let marked = faulty.iter().zip(self.tables).filter(|(faulty, _)| faulty.load(Relaxed));
        for (_, table) in marked {
            self.tell(table, teller);
            progress.step(0)?;
        }
        Ok(sums.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes batches of tables until there are none.
    fn work(
        &self,
        next: &AtomicUsize,
        faulty: &[AtomicBool],
        progress: &Progress<'_>,
        own: &mut Counted,
    ) -> Result<()> {
        let cluster = self.subject.cluster_size();
        let batch = usize::try_from(PIECE / cluster).unwrap_or(0).max(1);
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
                self.count_run(&self.tables[at..at + run], &faulty[at..], &mut buffer, own);
                at += run;
            }
            progress.step((end - first) as u64 * cluster)?;
        }
    }

    /// Counts what tables name that follow each other in the file.
    fn count_run(
        &self,
        tables: &[L2Table],
        faulty: &[AtomicBool],
        buffer: &mut Vec<u8>,
        own: &mut Counted,
    ) {
        let cluster = usize::try_from(self.subject.cluster_size()).unwrap_or(usize::MAX);
        let (at, len) = (tables[0].at, tables.len() * cluster);
        if !self.is_walked(&tables[0]) || self.subject.is_hole(at, len as u64) {
            return;
        }
        buffer.resize(len, 0);
        let read = self.subject.read(at, buffer);
        for ((table, bytes), faulty) in tables.iter().zip(buffer.chunks(cluster)).zip(faulty) {
            let wrong = read.is_err() || self.count(table, bytes, own);
            if wrong {
                faulty.store(true, Relaxed);
            }
        }
    }

    /// A table that does not begin with a cluster is none: what it would name is not looked at.
    fn is_walked(&self, table: &L2Table) -> bool {
        HostOffset(table.at).is_aligned(self.subject.cluster_size())
    }

    /// Counts what a table names. Whether something is wrong with it.
    fn count(&self, table: &L2Table, bytes: &[u8], own: &mut Counted) -> bool {
        let (mut wrong, mut next) = (false, 0);
        let sums = self.first && table.active.is_some();
        self.entries(table, bytes, |slot| {
            let (named, troubles) = self.look(slot, Some(&mut own.data));
            wrong |= !troubles.is_empty();
            if sums {
                self.sum(named, &mut next, &mut own.sums);
            }
        });
        wrong
    }

    /// Shows all entries that are not zero.
    fn entries<'t>(&self, table: &'t L2Table, bytes: &[u8], mut visit: impl FnMut(Slot<'t>)) {
        let words = bytes.as_chunks::<8>().0;
        if self.subject.geometry.is_extended() {
            for (index, pair) in words.as_chunks::<2>().0.iter().enumerate() {
                let [word, bitmap] = pair.map(u64::from_be_bytes);
                if word | bitmap != 0 {
                    visit(Slot { table, index, entry: L2Entry { word, bitmap } });
                }
            }
            return;
        }
        for (index, word) in words.iter().enumerate() {
            let word = u64::from_be_bytes(*word);
            if word != 0 {
                visit(Slot { table, index, entry: L2Entry { word, bitmap: 0 } });
            }
        }
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
            (Ok(run), Some(own)) => self.add(own, run, slot.table.times),
            (Ok(_), None) => {}
            (Err(PastEnd), _) => troubles.add_if(self.first, Trouble::PastEnd),
        }
        if let Named::Cluster(at) = named
            && slot.table.active.is_some()
            && self.copied_is_wrong(at, slot.entry.is_copied())
        {
            troubles.add(Trouble::Copied);
        }
        (named, troubles)
    }

    #[inline]
    fn add(&self, own: &mut Own, run: Clusters, times: u64) {
        for cluster in run.first..run.end() {
            own.add(cluster, times);
            if self.first {
                self.touched.note(cluster);
            }
        }
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

    /// Tells what is wrong with a table.
    fn tell(&self, table: &L2Table, teller: &mut Teller<'_>) {
        let mut bytes = vec![0; usize::try_from(self.subject.cluster_size()).unwrap_or(0)];
        if let Err(error) = self.subject.read(table.at, &mut bytes) {
            return tell_unreadable(teller, HostOffset(table.at), &error);
        }
        self.entries(table, &bytes, |slot| {
            let (_, troubles) = self.look(slot, None);
            if !troubles.is_empty() {
                self.tell_entry(slot, troubles, teller);
            }
        });
    }

    fn tell_entry(&self, slot: Slot<'_>, troubles: Troubles, teller: &mut Teller<'_>) {
        let words = self.subject.geometry.entry_words() as u64;
        let place = HostOffset(slot.table.at).saturating_add(slot.index as u64 * words * 8);
        let guest = self.guest(slot).map(|at| range(at, self.subject.cluster_size()));
        let L2Entry { word, bitmap } = slot.entry;
        for (trouble, expected) in TOLD {
            if troubles.holds(*trouble) {
                teller.tell_costing(*trouble, place, guest, || match bitmap {
                    0 => format!("L2 entry {word:#x}, expected {expected}"),
                    _ => format!("L2 entry {word:#x} with {bitmap:#x}, expected {expected}"),
                });
            }
        }
    }

    /// Where the cluster is on the disk, if it is on the active one.
    fn guest(&self, slot: Slot<'_>) -> Option<u64> {
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
    (Trouble::Copied, "a COPIED flag (bit 63) that agrees with the refcount of the cluster"),
];
