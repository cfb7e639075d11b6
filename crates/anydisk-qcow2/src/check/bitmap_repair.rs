//! Bitmaps that cannot be relied on, made such that they can: nothing is ever said to be unchanged
//! that may have changed.
//!
//! ```text
//!   entry of the directory that is not understood     kept, byte for byte
//!   entry of the directory that breaks the format     removed
//!   bits in use, broken, past the end, or shared      a new table that says: everything changed
//!   all others                                        kept
//! ```
//!
//! New tables and a new directory are written behind the end of the file, counted where there is a
//! refcount block for them, and then named in the header. What the old ones took is given back by
//! the repair that follows.

use std::collections::HashSet;

use anydisk_core::{HostOffset, Result, Storage};

use super::progress::Progress;
use super::references::References;
use super::subject::Subject;
use super::trouble::{Teller, Trouble};
use super::{Named, Settings};
use crate::alloc::bytes_of;
use crate::bitmap::{
    BitmapEntry, Claimed, Fault, Part, Place, check_entry, for_each_part, read_entry, split_entry,
    to_bytes,
};
use crate::guard::Clusters;
use crate::layout::bitmap::{ALL_ONES, IN_USE};
use crate::limits;
use crate::live::LiveHeader;

/// Bytes of a directory, of tables that are read one by one, and of tables that are written, at
/// most: an image with more of them keeps its bitmaps as they are.
const MOST: u64 = 32 << 20;

/// What becomes of the bitmaps of an image.
pub(super) struct Fates<'a> {
    subject: &'a Subject,
    kept: Vec<Fate>,
    unknown: Unknown,
    /// The directory itself, or entries of it, break the format.
    broken: bool,
}

/// Entries that are not understood, as they stand.
#[derive(Default)]
struct Unknown {
    count: usize,
    bytes: Vec<u8>,
    /// Where the next entry begins cannot be said either.
    in_disorder: bool,
}

/// What becomes of one bitmap.
struct Fate {
    entry: BitmapEntry,
    /// Entries that its table is to have.
    needed: u32,
    /// It is to say that everything has changed.
    renewed: bool,
    /// Its table was too long.
    cut: bool,
    /// Something else lies where it lies.
    shared: bool,
}

impl<'a> Fates<'a> {
    /// Looks at all bitmaps; `None` if the image vouches for none, or they stay as they are.
    pub(super) fn find(
        subject: &'a Subject,
        settings: Settings,
        progress: &Progress<'_>,
    ) -> Result<Option<Self>> {
        let mut fates =
            Self { subject, kept: Vec::new(), unknown: Unknown::default(), broken: false };
        match Place::claimed(&subject.header) {
            Ok(None) => return Ok(None),
            // They stay as they are.
            Ok(Some(Claimed { place, fault: None })) if place.len > MOST => return Ok(None),
            Ok(Some(Claimed { place, fault })) => {
                // The count alone may be wrong.
                fates.broken = fault.is_some();
                if place.at.get() != 0 && place.at.is_aligned(subject.cluster_size()) {
                    fates.read(place);
                }
            }
            Err(_) => fates.broken = true,
        }
        let tables = fates.kept.iter().map(|fate| u64::from(fate.entry.table_entries) * 8);
        // So much is not read one by one, and what cannot be told apart not taken apart.
        if tables.sum::<u64>() > MOST || fates.unknown.in_disorder {
            return Ok(None);
        }
        fates.look_at_bits();
        fates.find_shared(settings, progress)?;
        Ok(Some(fates))
    }

    /// Whether anything is to be done.
    pub(super) fn are_needed(&self) -> bool {
        self.broken || self.kept.iter().any(|fate| fate.renewed || fate.cut)
    }

    /// Takes the entries of the directory that can be used.
    fn read(&mut self, place: Place) {
        let there = self.subject.file_len.saturating_sub(place.at.get());
        let len = place.len.min(MOST).min(there);
        self.broken |= len < place.len;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        if self.subject.read(place.at.get(), &mut bytes).is_err() {
            self.broken = true;
            return;
        }
        let (mut names, mut count, mut rest) = (HashSet::new(), 0_u64, &bytes[..]);
        let mut foreign: Vec<(u64, &[u8])> = Vec::new();
        while let Some((raw, entry, behind)) = split_entry(rest) {
            (count, rest) = (count + 1, behind);
            if let Err(Fault::Unknown(_)) = check_entry(&raw, place.at, self.subject.cluster_size())
            {
                foreign.push((count, entry));
                continue;
            }
            let read = read_entry(entry, place.at, self.subject.bits()).ok();
            let known = read.filter(|(entry, _)| names.insert(entry.name.clone()));
            let fate = known.and_then(|(entry, _)| self.fate(entry));
            self.broken |= fate.is_none();
            self.kept.extend(fate);
        }
        // Behind a directory that is shorter than it says lies something else.
        let whole = rest.is_empty() && len == place.len;
        foreign.retain(|(number, _)| whole || *number <= u64::from(place.count));
        for (_, entry) in &foreign {
            self.unknown.count += 1;
            self.unknown.bytes.extend_from_slice(entry);
        }
        // A table that claims all behind its start would claim what is made anew as well.
        let is_endless = |(_, entry): &(u64, &[u8])| self.is_endless(entry);
        self.unknown.in_disorder = foreign.iter().any(is_endless) || !whole && !foreign.is_empty();
        self.broken |= !whole || count != u64::from(place.count);
    }

    /// Whether the table of a bitmap reaches past the end of the file.
    fn is_endless(&self, entry: &[u8]) -> bool {
        split_entry(entry).is_some_and(|(raw, ..)| {
            let entry = BitmapEntry::new(&raw, b"");
            let len = u64::from(entry.table_entries) * 8;
            entry.table.get() != 0 && self.subject.region(entry.table.get(), len).is_err()
        })
    }

    /// What becomes of a bitmap, by its entry alone; `None` if no table for it may be so large.
    fn fate(&self, mut entry: BitmapEntry) -> Option<Fate> {
        let (bits, size) = (self.subject.bits(), self.subject.header.disk_size());
        let needed = entry.scale(size, bits).clusters().max(1);
        if needed << bits > limits::BITMAP.max(1 << bits) {
            return None;
        }
        let needed = u32::try_from(needed).ok()?;
        let renewed = entry.is_in_use() || entry.table_entries < needed;
        let cut = !renewed && entry.table_entries > needed;
        if cut {
            entry.table_entries = needed;
        }
        Some(Fate { entry, needed, renewed, cut, shared: false })
    }

    /// Looks for tables and clusters that are not in the file, and entries that break the format.
    fn look_at_bits(&mut self) {
        let subject = self.subject;
        for fate in self.kept.iter_mut().filter(|fate| !fate.renewed) {
            let len = u64::from(fate.entry.table_entries) * 8;
            let there = subject.region(fate.entry.table.get(), len).is_ok();
            let mut outside = false;
            let read = for_each_cluster(subject, &fate.entry, |at| {
                outside |= subject.region(at.get(), subject.cluster_size()).is_err();
            });
            fate.renewed = !there || outside || read.is_err();
        }
    }

    /// Looks for bitmaps that share a cluster with something else.
    fn find_shared(&mut self, settings: Settings, progress: &Progress<'_>) -> Result<()> {
        let subject = self.subject;
        let settings = Settings { reads_data: false, ..settings };
        let image = Named::find(subject, settings, &mut Teller::quiet())?;
        image.windows(settings, |window| {
            window.count(settings.threads, progress, &mut Teller::quiet())?;
            for fate in self.kept.iter_mut().filter(|fate| !fate.shared) {
                fate.shared = fate.is_shared(subject, &window.references);
                fate.renewed |= fate.shared;
            }
            Ok(())
        })
    }

    /// Tells which bitmaps share clusters with something else.
    pub(super) fn tell_shared(&self, teller: &mut Teller<'_>) {
        for fate in self.kept.iter().filter(|fate| fate.shared) {
            teller.tell(Trouble::BitmapShared, fate.entry.table, || {
                let name = fate.entry.display_name();
                format!("something else lies where bitmap {name} has its table or its bits")
            });
        }
    }

    /// Whether the new tables take no more than is written.
    pub(super) fn have_room(&self) -> bool {
        let renewed = self.kept.iter().filter(|fate| fate.renewed);
        let clusters: u64 = renewed.map(|fate| fate.clusters(self.subject)).sum();
        clusters << self.subject.bits() <= MOST
    }

    /// Writes new tables and a new directory, and names them.
    pub(super) fn carry_out(mut self) -> Result<()> {
        let (subject, bits) = (self.subject, self.subject.bits());
        let mut next = subject.end();
        for fate in self.kept.iter_mut().filter(|fate| fate.renewed) {
            let table = vec![ALL_ONES; usize::try_from(fate.needed).unwrap_or(0)];
            subject.store.write_at(subject.offset(next), &bytes_of(&table))?;
            fate.entry.table = subject.offset(next);
            fate.entry.table_entries = fate.needed;
            fate.entry.flags &= !IN_USE;
            next += fate.clusters(subject);
        }
        let entries: Vec<_> = self.kept.into_iter().map(|fate| fate.entry).collect();
        let directory = [to_bytes(&entries), self.unknown.bytes].concat();
        let at = subject.offset(next);
        if !directory.is_empty() {
            subject.store.write_at(at, &directory)?;
            next += Clusters::touched(0, directory.len() as u64, bits).count;
            subject.store.set_len(subject.offset(next).get())?;
        }
        // Where there is no block for them, what follows builds the refcounts anew.
        let new: Vec<_> = (subject.end()..next).map(|cluster| (cluster, 1)).collect();
        super::Blocks::read(subject, &mut Teller::quiet())?.set(subject, &new)?;
        let count = u32::try_from(entries.len() + self.unknown.count).unwrap_or(0);
        let place = Place { count, at, len: directory.len() as u64 };
        let header = LiveHeader::to_repair(&subject.store, subject.header.clone());
        header.set_bitmaps((count > 0).then(|| place.to_extension()))
    }
}

impl Fate {
    /// Clusters of a new table.
    fn clusters(&self, subject: &Subject) -> u64 {
        Clusters::touched(0, u64::from(self.needed) * 8, subject.bits()).count
    }

    fn is_shared(&self, subject: &Subject, references: &References) -> bool {
        let several =
            |run: Clusters| (run.first..run.end()).any(|cluster| references.get(cluster) > 1);
        let len = u64::from(self.entry.table_entries) * 8;
        let table = Clusters::touched(self.entry.table.get(), len, subject.bits());
        let mut shared = several(table);
        // A table that cannot be read to its end is renewed in any case.
        let _ = for_each_cluster(subject, &self.entry, |at| {
            shared |= several(Clusters::new(at.get() >> subject.bits(), 1));
        });
        shared
    }
}

/// Shows the clusters that hold bits of a bitmap.
fn for_each_cluster(
    subject: &Subject,
    entry: &BitmapEntry,
    mut visit: impl FnMut(HostOffset),
) -> Result<()> {
    for_each_part(&*subject.store, entry, subject.bits(), |part| {
        if let Part::At(at) = part {
            visit(at);
        }
        Ok(())
    })
}
