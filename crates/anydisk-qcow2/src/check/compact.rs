//! Making the file of an image that nobody else uses as short as what it holds.
//!
//! Clusters at the end of the file move into free ones, as many at a time as fit in memory:
//!
//! ```text
//!   refcounts of the new places raised      flush
//!   clusters copied                         flush
//!   L2 entries that name data               flush
//!   L1 entries that name L2 tables, entries of the refcount table      flush
//!   refcounts of the old places lowered     flush
//! ```
//!
//! So after a power failure each cluster is named where it is whole, and at worst space is lost.
//! Tables of several clusters (refcount table, L1 tables, snapshot table) move as a whole into a gap
//! that is large enough, packed data stream by stream. Bitmaps and crypto headers stay where they
//! are; the file ends behind the last of them that is in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Limits, Repair, Result, Storage, StorageExt};

use super::judge::{Named as Names, Rules};
use super::mend::write_changed;
use super::progress::Progress;
use super::references::References;
use super::repair::repair;
use super::subject::Subject;
use super::{Named, Settings, bitmaps, refuse_damage, snapshot_table};
use crate::NAME;
use crate::alloc::words_of;
use crate::entry::L2Entry;
use crate::guard::Clusters;
use crate::layout::entry::OFFSET;
use crate::live::LiveHeader;

/// Clusters that move at a time.
const MOVES: usize = 1 << 14;

/// Makes the file as short as what it holds, and returns the bytes by which it became shorter.
/// `progress` is told bytes done and bytes in all, now and then, and answers whether to go on.
///
/// Nobody else may use the image meanwhile; one that is open is compacted by its
/// [`compactor`](anydisk_core::Image::compactor). What the disk and its snapshots hold stays as it
/// is, also after a power failure on the way. Data that is encrypted by its place (LUKS) does not
/// move.
///
/// # Errors
/// [`Error::NeedsRepair`] for an image that is not in order (lost space is given back);
/// [`Error::Limit`] for one with more clusters than may be counted at once; [`Error::Cancelled`];
/// those of the store.
pub fn compact(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    progress: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<u64> {
    compact_by(store, limits, &Progress::new(Some(progress)), &|_| Ok(()))
}

/// As [`compact`], of an image that others read. `between` is told the bytes that have moved so far,
/// before anything is written to a place that was free or has become free: when it returns, nobody
/// reads there.
pub(crate) fn compact_between(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    between: &dyn Fn(u64) -> Result<()>,
) -> Result<u64> {
    compact_by(store, limits, &Progress::new(None), between)
}

fn compact_by(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    progress: &Progress<'_>,
    between: &dyn Fn(u64) -> Result<()>,
) -> Result<u64> {
    let settings = Settings { threads: 1, memory: limits.table_cache, ..Settings::default() };
    let (before, mut moved) = (store.len()?, 0);
    give_back(store, limits, settings, progress)?;
    refuse_damage(store, limits)?;
    loop {
        between(moved)?;
        let subject = Subject::open(store, limits)?;
        let image = Named::find_surely(&subject, settings)?;
        let round = Round::new(&image, settings, progress)?;
        let moves = round.plan()?;
        moved += (moves.len() as u64) << subject.bits();
        if !moves.is_empty() {
            round.perform(&moves)?;
        } else if !round.move_tables()? && !round.move_streams()? {
            round.cut()?;
            return Ok(before.saturating_sub(store.len()?));
        }
        give_back(store, limits, settings, progress)?;
    }
}

/// Lowers the refcounts of what is not named any more.
pub(super) fn give_back(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    settings: Settings,
    progress: &Progress<'_>,
) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    repair(&subject, Repair::Leaks, settings, progress, &mut |_| {}).map(drop)
}

/// Tables of several clusters that move at a time.
const TABLES: usize = 64;

/// A table that takes clusters in one piece.
#[derive(Clone, Copy, Debug)]
struct Large {
    run: Clusters,
    kind: Kind,
}

/// What a large table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Refcounts,
    L1,
    Snapshots,
    /// The L1 table of a snapshot, whose entry is here.
    OfSnapshot(HostOffset),
}

/// One round: everything is counted, and some clusters move.
pub(super) struct Round<'a> {
    pub(super) image: &'a Named<'a>,
    pub(super) subject: &'a Subject,
    pub(super) references: References,
    pub(super) rules: Rules,
    tables: BTreeSet<u64>,
    blocks: BTreeMap<u64, usize>,
}

impl<'a> Round<'a> {
    fn new(image: &'a Named<'a>, settings: Settings, progress: &Progress<'_>) -> Result<Self> {
        let subject = image.subject;
        let window = image.window(0, settings);
        let counted = window.references.window().end;
        if counted < subject.end() {
            let what = "clusters in the file, for the memory that compacting may take".into();
            let found = subject.end();
            return Err(Error::Limit { format: NAME, what, found, limit: counted });
        }
        window.count_surely(settings.threads, progress)?;
        let bits = subject.bits();
        let round = Self {
            image,
            subject,
            references: window.references,
            rules: Rules::new(&subject.header),
            tables: image.tables.iter().map(|table| table.at >> bits).collect(),
            blocks: image.blocks.placed().map(|(number, at)| (at >> bits, number)).collect(),
        };
        round.mark_fixed()?;
        Ok(round)
    }

    /// Marks what cannot move as a cluster as metadata: packed data, and what bitmaps name.
    fn mark_fixed(&self) -> Result<()> {
        bitmaps::claim(self.subject, &self.image.roots, &self.references)?;
        // Data that is encrypted by its place would read as something else elsewhere.
        let by_place = self.subject.header.crypt_method == 2;
        self.for_each_table(|_, words| {
            for entry in self.entries(words) {
                let (at, len) = match self.rules.judge(entry, None).0 {
                    Names::Stream { at, len } => (at, len),
                    Names::Cluster(at) if by_place => (at, self.subject.cluster_size()),
                    _ => continue,
                };
                if let Ok(run) = self.subject.region(at, len) {
                    self.references.claim(run);
                }
            }
            Ok(())
        })
    }

    pub(super) fn entries<'w>(&self, words: &'w [u64]) -> impl Iterator<Item = L2Entry> + 'w {
        let entry =
            |words: &[u64]| L2Entry { word: words[0], bitmap: words.get(1).copied().unwrap_or(0) };
        words.chunks(self.subject.geometry.entry_words()).map(entry)
    }

    /// Shows the words of all L2 tables, each with its place.
    pub(super) fn for_each_table(
        &self,
        mut visit: impl FnMut(u64, &[u64]) -> Result<()>,
    ) -> Result<()> {
        let len = self.subject.cluster_size();
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for table in &self.image.tables {
            if !self.subject.is_hole(table.at, len) {
                self.subject.read(table.at, &mut bytes)?;
                visit(table.at, &words_of(&bytes))?;
            }
        }
        Ok(())
    }

    fn can_move(&self, cluster: u64) -> bool {
        let known = self.tables.contains(&cluster) || self.blocks.contains_key(&cluster);
        !self.references.overlaps(cluster) && (known || !self.references.is_metadata(cluster))
    }

    /// The last clusters that can move, each with the first free place.
    fn plan(&self) -> Result<BTreeMap<u64, u64>> {
        let mut moves = BTreeMap::new();
        let mut free = (1..self.subject.end()).filter(|cluster| {
            self.references.get(*cluster) == 0
                && self.image.blocks.is_counted(self.subject, *cluster)
        });
        for from in (1..self.subject.end()).rev() {
            if self.references.get(from) == 0 {
                continue;
            }
            if !self.can_move(from) || moves.len() >= MOVES {
                break;
            }
            match free.next() {
                Some(to) if to < from => moves.insert(from, to),
                _ => break,
            };
        }
        Ok(moves)
    }

    fn perform(&self, moves: &BTreeMap<u64, u64>) -> Result<()> {
        let raised = moves.iter().map(|(from, to)| (*to, self.references.get(*from)));
        self.image.blocks.set(self.subject, &raised.collect())?;
        self.subject.store.flush()?;
        self.copy(moves, |cluster| !self.is_structure(cluster))?;
        self.relink_data(moves)?;
        // Only now do the tables and blocks hold what they are to hold.
        self.copy(moves, |cluster| self.is_structure(cluster))?;
        self.relink_tables(moves)?;
        self.image.blocks.relink(self.subject, |cluster| moves.get(&cluster).copied())?;
        Ok(self.subject.store.flush()?)
    }

    fn is_structure(&self, cluster: u64) -> bool {
        self.tables.contains(&cluster) || self.blocks.contains_key(&cluster)
    }

    /// Copies clusters; durable when it returns.
    fn copy(&self, moves: &BTreeMap<u64, u64>, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let store = &self.subject.store;
        let mut bytes = vec![0; usize::try_from(self.subject.cluster_size()).unwrap_or(0)];
        for (from, to) in moves.iter().filter(|(from, _)| wanted(**from)) {
            store.read_padded_at(self.subject.offset(*from), &mut bytes)?;
            store.write_at(self.subject.offset(*to), &bytes)?;
        }
        Ok(store.flush()?)
    }

    fn relink_data(&self, moves: &BTreeMap<u64, u64>) -> Result<()> {
        let step = self.subject.geometry.entry_words();
        self.for_each_table(|at, old| {
            let mut new = old.to_vec();
            for words in new.chunks_mut(step) {
                let entry = L2Entry { word: words[0], bitmap: words.get(1).copied().unwrap_or(0) };
                if let (Names::Cluster(_), _) = self.rules.judge(entry, None) {
                    words[0] = self.moved(words[0], moves);
                }
            }
            write_changed(self.subject, at, old, &new)
        })?;
        Ok(self.subject.store.flush()?)
    }

    fn relink_tables(&self, moves: &BTreeMap<u64, u64>) -> Result<()> {
        let mut changed = Vec::new();
        for segment in &self.image.roots.l1 {
            let visit = |number: u64, word: u64| {
                let new = self.moved(word, moves);
                changed.extend((new != word).then_some((segment.start + number * 8, new)));
                Ok(())
            };
            let mut lost = None;
            let len = segment.end - segment.start;
            self.subject.words(segment.start, len, visit, |_, error| lost = Some(error))?;
            lost.map_or(Ok(()), Err)?;
        }
        for (at, word) in changed {
            self.subject.store.write_at(HostOffset(at), &word.to_be_bytes())?;
        }
        Ok(self.subject.store.flush()?)
    }

    /// An entry that names the new place.
    fn moved(&self, word: u64, moves: &BTreeMap<u64, u64>) -> u64 {
        match moves.get(&((word & OFFSET) >> self.subject.bits())) {
            Some(to) => word & !OFFSET | self.subject.offset(*to).get(),
            None => word,
        }
    }

    /// Moves tables into gaps before them; whether there was one to move.
    fn move_tables(&self) -> Result<bool> {
        let mut moves = Vec::new();
        for table in self.large_tables()? {
            if let Some(to) = self.gap(table.run) {
                self.references.add(Clusters::new(to, table.run.count), 1);
                moves.push((table, to));
            }
        }
        // The entries of snapshots are changed where they are; their table moves another time.
        if moves.iter().any(|(table, _)| matches!(table.kind, Kind::OfSnapshot(_))) {
            moves.retain(|(table, _)| table.kind != Kind::Snapshots);
        }
        let new = |(table, to): &(Large, u64)| {
            let (to, count) = (*to, table.run.count);
            (to..to + count).map(|cluster| (cluster, 1))
        };
        self.image.blocks.set(self.subject, &moves.iter().flat_map(new).collect())?;
        self.subject.store.flush()?;
        let pairs = |(table, to): &(Large, u64)| {
            let run = table.run;
            (run.first..run.end()).zip(*to..)
        };
        self.copy(&moves.iter().flat_map(pairs).collect(), |_| true)?;
        let header = LiveHeader::to_repair(&self.subject.store, self.subject.header.clone());
        for (table, to) in &moves {
            self.name(&header, table, self.subject.offset(*to))?;
        }
        Ok(!moves.is_empty())
    }

    /// Names the new place of a table; durable when it returns.
    fn name(&self, live: &LiveHeader, table: &Large, at: HostOffset) -> Result<()> {
        let header = &self.subject.header;
        match table.kind {
            Kind::Refcounts => live.set_refcount_table(at, header.refcount_table_clusters),
            Kind::L1 => live.set_l1(at, header.l1_size),
            Kind::Snapshots => live.set_snapshots(at, header.nb_snapshots),
            Kind::OfSnapshot(entry) => {
                self.subject.store.write_at(entry, &at.get().to_be_bytes())?;
                Ok(self.subject.store.flush()?)
            }
        }
    }

    /// The tables that take clusters in one piece, a bounded number of them, the last ones first.
    fn large_tables(&self) -> Result<Vec<Large>> {
        let header = &self.subject.header;
        let mut tables = Vec::new();
        let mut note = |at: u64, len: u64, kind| {
            let run = Clusters::touched(at, len, self.subject.bits());
            tables.extend((run.count > 0).then_some(Large { run, kind }));
        };
        let refcounts = u64::from(header.refcount_table_clusters) << self.subject.bits();
        note(header.refcount_table_offset.get(), refcounts, Kind::Refcounts);
        note(header.l1_table_offset.get(), u64::from(header.l1_size) * 8, Kind::L1);
        let start = header.snapshots_offset.get();
        let end = snapshot_table::walk(self.subject, |at, entry| {
            let len = u64::from(entry.l1_size.get()) * 8;
            note(entry.l1_table_offset.get(), len, Kind::OfSnapshot(at));
        })?;
        note(start, end - start, Kind::Snapshots);
        tables.sort_by_key(|table| std::cmp::Reverse(table.run.first));
        tables.truncate(TABLES);
        Ok(tables)
    }

    /// The first free clusters, as many as `run` has, that lie before it.
    fn gap(&self, run: Clusters) -> Option<u64> {
        let mut len = 0;
        for cluster in 1..run.first {
            let free = self.references.get(cluster) == 0
                && self.image.blocks.is_counted(self.subject, cluster);
            len = if free { len + 1 } else { 0 };
            if len == run.count {
                return Some(cluster + 1 - len);
            }
        }
        None
    }

    /// Cuts the file behind the last cluster that is named.
    fn cut(&self) -> Result<()> {
        let last = (0..self.subject.end()).rev().find(|at| self.references.get(*at) != 0);
        let end = self.subject.offset(last.map_or(1, |last| last + 1)).get();
        if end < self.subject.file_len {
            self.subject.store.flush()?;
            self.subject.store.set_len(end)?;
        }
        Ok(self.subject.store.flush()?)
    }
}
