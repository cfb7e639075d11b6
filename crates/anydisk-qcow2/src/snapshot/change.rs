//! Creating, applying, deleting and renaming snapshots (qcow2, "Snapshots").
//!
//! Each makes a new state [beside](crate::beside) the old one. Tables are walked one by one, so
//! that memory does not grow with the disk.

use anydisk_core::{Error, HostOffset, NewSnapshot, Result, SnapshotInfo, SnapshotRef, StorageExt};

use super::table::{self, Entry};
use super::view::check_l1;
use crate::alloc::{bytes_of, words_of};
use crate::alone::Frozen;
use crate::beside::{Beside, Named};
use crate::entry::{Fault, L1Entry, L2Entry, Rule};
use crate::guard::{Clusters, Metadata};
use crate::layout::entry::COPIED;
use crate::room::{Plan, Room};
use crate::table::Geometry;
use crate::write::WritableImage;
use crate::{Header, NAME, limits};

/// Refcounts of so many bits may be full in an image that is in use.
const NARROW: u32 = 8;

impl WritableImage {
    /// See [`Snapshots::create`](anydisk_core::Snapshots::create).
    pub(crate) fn create_snapshot(&self, new: &NewSnapshot) -> Result<SnapshotInfo> {
        let _turn = self.turns.take();
        let frozen = self.freeze();
        let header = self.header_for_snapshots()?;
        let mut entries = table::read_whole(&*self.shared.store, &header)?;
        let info = describe(new, &entries, header.size)?;
        // With its L1 table still unknown, it is as long as it will be.
        entries.push(Entry::new(&info, HostOffset::ZERO, header.l1_size)?);
        let snapshots = table::to_bytes(&entries)?.len() as u64;
        self.check_counts_fit(&frozen, &header)?;
        let l1 = u64::from(header.l1_size) * 8;
        let (alone, room) = self.room_for(&frozen, || {
            let tables = self.count_tables(header.l1_table_offset, header.l1_size)?;
            Ok(Plan { tables, l1, snapshot_l1: l1, snapshots })
        })?;
        let mut beside = Beside::begin(self, room, &alone);
        let mut shared = self.read_words(header.l1_table_offset, header.l1_size.into())?;
        for entry in &mut shared {
            *entry = beside.share_table(L1Entry(*entry))?.0;
        }
        let l1 = bytes_of(&shared);
        let active = beside.write_run(beside.room().l1, &l1, Metadata::L1Table)?;
        let kept = beside.room().snapshot_l1;
        let kept = beside.write_run(kept, &l1, Metadata::SnapshotL1Table)?;
        entries.pop();
        entries.push(Entry::new(&info, kept, header.l1_size)?);
        let snapshots = beside.write_snapshots(&header, &entries)?;
        let named = Named {
            l1: (header.l1_size > 0).then_some((active, header.l1_size)),
            snapshots: Some(snapshots),
            size: None,
        };
        beside.name(named)?;
        drop(alone);
        self.write_back()?;
        Ok(info)
    }

    /// That what the active disk refers to can be referred to once more. A wide count is not looked
    /// at: it is full after thousands of snapshots, and then what was taken is given back.
    fn check_counts_fit(&self, frozen: &Frozen<'_>, header: &Header) -> Result<()> {
        if self.space.width.bits() > NARROW {
            return Ok(());
        }
        let alone = self.alone_in(frozen)?;
        let look = Beside::begin(self, Room::default(), &alone);
        for word in self.read_words(header.l1_table_offset, header.l1_size.into())? {
            if let Some(table) = look.read_table(L1Entry(word))? {
                look.check_add(&table.references)?;
                look.check_add(&[table.cluster])?;
            }
        }
        Ok(())
    }

    /// See [`Snapshots::apply`](anydisk_core::Snapshots::apply).
    pub(crate) fn apply_snapshot(&self, which: &SnapshotRef) -> Result<()> {
        let _turn = self.turns.take();
        let header = self.header_for_snapshots()?;
        let entries = table::read_whole(&*self.shared.store, &header)?;
        let entry = self.find(&entries, which)?;
        let size = entry.size().unwrap_or(header.size);
        let resized = whole_sectors(size) != self.shared.size()
            && self.suspend_bitmaps(whole_sectors(size))?;
        let applied = self.become_snapshot(entry, size);
        let resumed = if resized { self.resume_bitmaps() } else { Ok(()) };
        applied.and(resumed)
    }

    /// Makes the disk, which has `size` bytes then, what a snapshot is. The caller has the turn.
    fn become_snapshot(&self, entry: &Entry, size: u64) -> Result<()> {
        let frozen = self.freeze();
        let header = self.live.with(Clone::clone);
        let at = check_l1(&header, entry)?;
        let needed = u32::try_from(self.l1_entries(size)).unwrap_or(u32::MAX);
        let l1_size = header.l1_size.max(needed);
        self.note_other_state(whole_sectors(size))?;
        let (alone, room) = self.room_for(&frozen, || {
            let tables = self.count_tables(at, needed)?;
            Ok(Plan { tables, l1: u64::from(l1_size) * 8, ..Plan::default() })
        })?;
        let mut beside = Beside::begin(self, room, &alone);
        let mut old = self.read_words(header.l1_table_offset, header.l1_size.into())?;
        // What lies behind the disk is the state of the machine, which is no part of the disk.
        let mut new = self.read_words(at, needed.into())?;
        old.resize(usize::try_from(l1_size).unwrap_or(0), 0);
        new.resize(old.len(), 0);
        // First all that is added, so that no count passes through 0.
        for (entry, old) in new.iter_mut().zip(&old) {
            let taken = beside.take_table(L1Entry(*entry), L1Entry(*old))?;
            *entry = taken.0;
        }
        for (old, new) in old.iter().zip(&new) {
            if L1Entry(*old).table() != L1Entry(*new).table() {
                beside.leave_table(L1Entry(*old))?;
            }
        }
        let active = beside.write_run(beside.room().l1, &bytes_of(&new), Metadata::L1Table)?;
        let l1 = (l1_size > 0).then_some((active, l1_size));
        beside.name(Named { l1, snapshots: None, size: Some(size) })?;
        drop(alone);
        self.write_back()
    }

    /// See [`Snapshots::delete`](anydisk_core::Snapshots::delete).
    pub(crate) fn delete_snapshot(&self, which: &SnapshotRef) -> Result<()> {
        let _turn = self.turns.take();
        let frozen = self.freeze();
        let header = self.header_for_snapshots()?;
        let mut entries = table::read_whole(&*self.shared.store, &header)?;
        let entry = self.find(&entries, which)?.clone();
        self.check_unused(&entry)?;
        entries.retain(|other| other.at != entry.at);
        let at = HostOffset(entry.raw.l1_table_offset.get());
        let l1_size = checked_l1_size(&entry)?;
        let snapshots = table::to_bytes(&entries)?.len() as u64;
        let (alone, room) = self.room_for(&frozen, || {
            let tables = self.count_tables(header.l1_table_offset, header.l1_size)?;
            Ok(Plan { tables, l1: u64::from(header.l1_size) * 8, snapshot_l1: 0, snapshots })
        })?;
        let mut beside = Beside::begin(self, room, &alone);
        for word in self.read_words(at, l1_size.into())? {
            beside.leave_table(L1Entry(word))?;
        }
        let bits = header.cluster_bits;
        beside.drop_run(Clusters::touched(at.get(), u64::from(l1_size) * 8, bits));
        let mut active = self.read_words(header.l1_table_offset, header.l1_size.into())?;
        for word in &mut active {
            *word = beside.mark_own(L1Entry(*word))?.0;
        }
        let l1 = beside.write_run(beside.room().l1, &bytes_of(&active), Metadata::L1Table)?;
        let snapshots = beside.write_snapshots(&header, &entries)?;
        let named = Named {
            l1: (header.l1_size > 0).then_some((l1, header.l1_size)),
            snapshots: Some(snapshots),
            size: None,
        };
        beside.name(named)?;
        drop(alone);
        self.write_back()
    }

    /// See [`Snapshots::rename`](anydisk_core::Snapshots::rename).
    pub(crate) fn rename_snapshot(&self, which: &SnapshotRef, name: &str) -> Result<()> {
        let _turn = self.turns.take();
        let frozen = self.freeze();
        let header = self.header_for_snapshots()?;
        let mut entries = table::read_whole(&*self.shared.store, &header)?;
        let found = self.find(&entries, which)?.clone();
        self.check_unused(&found)?;
        for entry in entries.iter_mut().filter(|entry| entry.at == found.at) {
            entry.rename(name)?;
        }
        let snapshots = table::to_bytes(&entries)?.len() as u64;
        let plan = || Ok(Plan { snapshots, ..Plan::default() });
        let (alone, room) = self.room_for(&frozen, plan)?;
        let mut beside = Beside::begin(self, room, &alone);
        let snapshots = beside.write_snapshots(&header, &entries)?;
        beside.name(Named { snapshots: Some(snapshots), ..Named::default() })?;
        drop(alone);
        self.write_back()
    }

    /// The header now, of an image that can have snapshots.
    fn header_for_snapshots(&self) -> Result<Header> {
        let header = self.live.with(Clone::clone);
        if header.has_data_file() {
            let feature = "snapshots with an external data file".into();
            return Err(Error::Unsupported { format: NAME, feature });
        }
        Ok(header)
    }

    /// The entry that is meant.
    pub(crate) fn find<'e>(&self, entries: &'e [Entry], which: &SnapshotRef) -> Result<&'e Entry> {
        super::find(entries, which, self.shared.size())
    }

    /// L2 tables that an L1 table of `entries` entries names.
    fn count_tables(&self, at: HostOffset, entries: u32) -> Result<u64> {
        let mut bytes = vec![0; usize::try_from(u64::from(entries) * 8).unwrap_or(0)];
        self.shared.store.read_padded_at(at, &mut bytes)?;
        let tables = words_of(&bytes).into_iter().filter(|word| L1Entry(*word).table().is_some());
        Ok(tables.count() as u64)
    }
}

/// The bytes of a disk that a header of this size has.
const fn whole_sectors(size: u64) -> u64 {
    size & !511
}

/// What a new snapshot is called: its ID is the next number (qemu's rule).
fn describe(new: &NewSnapshot, entries: &[Entry], size: u64) -> Result<SnapshotInfo> {
    if entries.len() as u64 >= u64::from(limits::SNAPSHOTS) {
        let (what, limit) = ("number of snapshots".into(), limits::SNAPSHOTS.into());
        return Err(Error::Limit { format: NAME, what, found: limit + 1, limit });
    }
    let number = |entry: &Entry| {
        let digits: String =
            String::from_utf8_lossy(&entry.id).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(0)
    };
    let last = entries.iter().map(number).max().unwrap_or(0);
    let mut info = SnapshotInfo::default();
    info.id = last.saturating_add(1).to_string();
    info.name.clone_from(&new.name);
    info.size = size;
    info.date = new.date;
    info.icount = Some(0); // As qemu-img writes it.
    Ok(info)
}

fn checked_l1_size(entry: &Entry) -> Result<u32> {
    let l1_size = entry.raw.l1_size.get();
    if l1_size > limits::L1_ENTRIES {
        let what = "L1 table of a snapshot, in entries".into();
        let (found, limit) = (l1_size.into(), limits::L1_ENTRIES.into());
        return Err(Error::Limit { format: NAME, what, found, limit });
    }
    Ok(l1_size)
}

/// An L2 table, and what it refers to.
struct Table {
    /// Number of its cluster.
    cluster: u64,
    words: Vec<u64>,
    /// Every reference, rising.
    references: Vec<u64>,
}

impl Table {
    /// Makes no entry say that its cluster is its own. Whether one did.
    fn clear_flags(&mut self, geometry: &Geometry) -> bool {
        self.set_flags(geometry, |_| false)
    }

    /// Makes the entries whose cluster `is_own` say so, and no others. Whether that changed any.
    fn set_flags(&mut self, geometry: &Geometry, is_own: impl Fn(u64) -> bool) -> bool {
        let mut changed = false;
        for word in self.words.iter_mut().step_by(geometry.entry_words()) {
            let entry = L2Entry { word: *word, bitmap: 0 };
            let host = if entry.is_compressed() { None } else { entry.host() };
            let is_own = host.is_some_and(|at| is_own(at.get() >> geometry.cluster_bits()));
            let flagged = *word & !COPIED | if is_own { COPIED } else { 0 };
            changed |= flagged != *word;
            *word = flagged;
        }
        changed
    }
}

impl Beside<'_> {
    fn read_table(&self, entry: L1Entry) -> Result<Option<Table>> {
        let geometry = &self.image().shared.geometry;
        let Some(at) = entry.table() else { return Ok(None) };
        if !at.is_aligned(geometry.cluster_size()) {
            let fault = Fault { word: 0, value: entry.0, rule: Rule::TableAligned };
            return Err(fault.at(at).into());
        }
        let words = self.image().read_words(at, geometry.cluster_size() / 8)?;
        let mut references = Vec::new();
        for word in (0..words.len()).step_by(geometry.entry_words()) {
            let entry = geometry.entry(words.as_slice(), word);
            check_entry(geometry, entry).map_err(|rule| {
                let value = entry.word;
                Error::from(Fault { word, value, rule }.at(at))
            })?;
            let clusters = geometry.references(entry).unwrap_or(Clusters::new(0, 0));
            references.extend(clusters.first..clusters.end());
        }
        references.sort_unstable();
        Ok(Some(Table { cluster: at.get() >> geometry.cluster_bits(), words, references }))
    }

    /// The entry by which the active disk and a new snapshot share a table.
    fn share_table(&mut self, entry: L1Entry) -> Result<L1Entry> {
        let Some(mut table) = self.read_table(entry)? else { return Ok(L1Entry::default()) };
        self.add(&table.references)?;
        if !table.clear_flags(&self.image().shared.geometry) {
            self.add(&[table.cluster])?;
            return Ok(self.shared(table.cluster));
        }
        let new = self.write_table(&table.words)?;
        self.add(&[new])?;
        self.remove(&[table.cluster])?;
        Ok(self.shared(new))
    }

    /// The entry by which the active disk, which had `old`, refers to the table of a snapshot.
    fn take_table(&mut self, entry: L1Entry, old: L1Entry) -> Result<L1Entry> {
        if entry.table() == old.table() {
            return Ok(L1Entry(entry.0 & !COPIED));
        }
        let Some(mut table) = self.read_table(entry)? else { return Ok(L1Entry::default()) };
        self.add(&table.references)?;
        if !table.clear_flags(&self.image().shared.geometry) {
            self.add(&[table.cluster])?;
            self.guard_table(table.cluster)?;
            return Ok(self.shared(table.cluster));
        }
        // Flags in the tables of snapshots mean nothing; here they would.
        let new = self.write_table(&table.words)?;
        Ok(self.own(new))
    }

    /// Someone refers to a table, and all it refers to, no more.
    fn leave_table(&mut self, entry: L1Entry) -> Result<()> {
        let Some(table) = self.read_table(entry)? else { return Ok(()) };
        self.remove(&table.references)?;
        self.remove(&[table.cluster])
    }

    /// The entry of a table of the active disk, when what it refers to may have become its own.
    fn mark_own(&mut self, entry: L1Entry) -> Result<L1Entry> {
        let Some(at) = entry.table() else { return Ok(L1Entry::default()) };
        let cluster = at.get() >> self.image().shared.geometry.cluster_bits();
        if self.counts(&[cluster])? != [1] {
            return Ok(self.shared(cluster)); // So is all that it refers to.
        }
        let Some(mut table) = self.read_table(entry)? else { return Ok(L1Entry::default()) };
        let counts = self.counts(&table.references)?;
        let references = std::mem::take(&mut table.references);
        let is_own = |cluster| {
            references.binary_search(&cluster).is_ok_and(|index| counts.get(index) == Some(&1))
        };
        if !table.set_flags(&self.image().shared.geometry, is_own) {
            return Ok(self.own(cluster));
        }
        let new = self.write_table(&table.words)?;
        self.remove(&[cluster])?;
        Ok(self.own(new))
    }

    fn own(&self, cluster: u64) -> L1Entry {
        L1Entry::own(HostOffset(cluster << self.image().shared.geometry.cluster_bits()))
    }

    fn shared(&self, cluster: u64) -> L1Entry {
        L1Entry(cluster << self.image().shared.geometry.cluster_bits())
    }

    /// Writes the snapshot table: what the header says of it. The old one is dropped.
    fn write_snapshots(&mut self, header: &Header, entries: &[Entry]) -> Result<(HostOffset, u32)> {
        let run = self.room().snapshots;
        let at = self.write_run(run, &table::to_bytes(entries)?, Metadata::SnapshotTable)?;
        let len = table::walk(&*self.image().shared.store, header, |_, _| Ok(()))?;
        self.drop_run(Clusters::touched(header.snapshots_offset.get(), len, header.cluster_bits));
        let count = u32::try_from(entries.len()).expect("checked against the limit");
        Ok((at, count))
    }
}

/// Whether what an entry refers to can be counted.
fn check_entry(geometry: &Geometry, entry: L2Entry) -> Result<(), Rule> {
    if entry.is_compressed() {
        return geometry.compressed(entry).map(|_| ());
    }
    match entry.host() {
        Some(at) if !at.is_aligned(geometry.cluster_size()) => Err(Rule::ClusterAligned),
        _ => Ok(()),
    }
}
