//! The L2 tables: which there are.

use anydisk_core::{Error, GuestOffset, GuestRange, HostOffset, Result};

use super::judge::L1_RESERVED;
use super::roots::{Roots, tell_unreadable};
use super::subject::{PastEnd, Subject};
use super::trouble::{Teller, Trouble};
use crate::NAME;
use crate::layout::entry::OFFSET;

/// An L2 table.
#[derive(Clone, Copy, Debug)]
pub(super) struct L2Table {
    pub(super) at: u64,
    /// L1 entries that name it.
    pub(super) times: u64,
    /// Those of the active L1 table among them.
    pub(super) times_active: u32,
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
    let told = (named.index.map(|index| covered(subject, index)), named.times);
    let word = named.word;
    if word & L1_RESERVED != 0 {
        teller.tell_times(Trouble::ReservedBits, named.place, told, || {
            format!("L1 entry {word:#x} has reserved bits set")
        });
    }
    let at = word & OFFSET;
    if at == 0 {
        return None;
    }
    if !HostOffset(at).is_aligned(subject.cluster_size()) {
        teller.tell_times(Trouble::TableUnaligned, named.place, told, || {
            format!("L1 entry {word:#x}, expected an L2 table at a multiple of the cluster size")
        });
    }
    if let Err(PastEnd) = subject.region(at, subject.cluster_size()) {
        teller.tell_times(Trouble::PastEnd, named.place, told, || {
            format!("L1 entry {word:#x} names an L2 table past the end of the file")
        });
        return None;
    }
    let missing = subject.missing(at, subject.cluster_size());
    if missing > 0 {
        teller.tell_times(Trouble::CutInside, named.place, told, || {
            format!("L1 entry {word:#x} names an L2 table whose last {missing} bytes lie behind the end of the file")
        });
    }
    let active = named.index.and_then(|index| u32::try_from(index).ok());
    Some(L2Table { at, times: named.times, times_active: active.is_some().into(), active })
}

/// The part of the disk that an L1 entry maps.
pub(super) fn covered(subject: &Subject, index: u64) -> GuestRange {
    let len = 1_u64 << subject.geometry.l2_coverage_bits();
    range(index.saturating_mul(len), len)
}

pub(super) fn range(start: u64, len: u64) -> GuestRange {
    GuestRange::between(GuestOffset(start), GuestOffset(start.saturating_add(len)))
}

/// Puts the tables in order, each once.
fn merge(tables: &mut Vec<L2Table>, limit: usize) -> Result<()> {
    tables.sort_unstable_by_key(|table| (table.at, table.active.unwrap_or(u32::MAX)));
    tables.dedup_by(|next, kept| {
        let same = next.at == kept.at;
        if same {
            kept.times = kept.times.saturating_add(next.times);
            kept.times_active = kept.times_active.saturating_add(next.times_active);
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
