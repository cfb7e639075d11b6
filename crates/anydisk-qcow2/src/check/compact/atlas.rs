//! What lies where in the file, as compacting sees it.

use std::collections::BTreeMap;

use anydisk_core::{HostOffset, Result};

use super::free::Free;
use crate::alloc::words_of;
use crate::bitmap::Directory;
use crate::check::judge::{Named as Names, Rules};
use crate::check::references::References;
use crate::check::{Named, snapshot_table};
use crate::entry::L2Entry;
use crate::guard::Clusters;
use crate::layout::entry::OFFSET;

/// What lies in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing, where nothing could be counted.
    Nothing,
    /// Nothing, so that something can move here.
    Free,
    /// What will move here.
    Taken,
    /// Something that was not looked at.
    Unknown,
    /// Something that stays.
    Fixed,
    Data,
    L2Table,
    RefcountBlock,
    /// Bits of a bitmap.
    Bits,
    /// A part of a [`Large`].
    Large,
    Streams,
}

/// A table that takes clusters in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Large {
    pub(super) run: Clusters,
    pub(super) kind: Kind,
}

/// What a large table is; for some, the place of the word that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Refcounts,
    L1,
    Snapshots,
    /// The L1 table of a snapshot.
    OfSnapshot(HostOffset),
    Bitmaps,
    /// The table of a bitmap.
    OfBitmap(HostOffset),
}

/// Packed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) at: u64,
    pub(super) len: u64,
    /// The entry that says so.
    pub(super) word: u64,
    /// Entries that name it.
    pub(super) times: u64,
}

/// What lies where, in the part of the file that is to be moved; and what is free.
#[derive(Debug)]
pub(super) struct Atlas {
    /// The first cluster of that part.
    pub(super) first: u64,
    pub(super) what: Vec<What>,
    pub(super) free: Free,
    /// By their last clusters, rising.
    pub(super) larges: Vec<Large>,
    /// By their last clusters, rising.
    pub(super) streams: Vec<Stream>,
    /// Streams that end before this cluster are not all here.
    pub(super) known_from: u64,
}

impl Atlas {
    /// Looks at the part of the file whose `references` were counted. `moves_data`: data reads the
    /// same elsewhere. `memory`: bytes that streams may take.
    pub(super) fn draw(
        image: &Named<'_>,
        (references, free): (&References, Free),
        moves_data: bool,
        memory: usize,
    ) -> Result<Self> {
        let (subject, first) = (image.subject, references.window().start);
        let what = |cluster| match references.get(cluster) {
            0 if free.contains(cluster) => What::Free,
            0 => What::Nothing,
            _ if moves_data => What::Data,
            _ => What::Fixed,
        };
        let end = references.window().end.min(subject.end());
        let what = (first..end).map(what).collect();
        let larges = large_tables(image)?;
        let mut atlas = Self { first, what, free, larges, streams: Vec::new(), known_from: 0 };
        for table in &image.tables {
            atlas.put(Clusters::new(table.at >> subject.bits(), 1), What::L2Table);
        }
        for (_, at) in image.blocks.placed() {
            atlas.put(Clusters::new(at >> subject.bits(), 1), What::RefcountBlock);
        }
        for_each_bits(image, |_, word| {
            atlas.put(Clusters::new((word & OFFSET) >> subject.bits(), 1), What::Bits);
        })?;
        atlas.find_streams(image, memory)?;
        for number in 0..atlas.larges.len() {
            atlas.put(atlas.larges[number].run, What::Large);
        }
        atlas.fix(image, references);
        Ok(atlas)
    }

    pub(super) fn what(&self, cluster: u64) -> What {
        let Some(index) = cluster.checked_sub(self.first) else {
            return if self.free.contains(cluster) { What::Free } else { What::Unknown };
        };
        let found = usize::try_from(index).ok().and_then(|index| self.what.get(index));
        found.copied().unwrap_or(What::Nothing)
    }

    /// Behind the last cluster.
    pub(super) fn end(&self) -> u64 {
        self.first + self.what.len() as u64
    }

    /// Takes a cluster that is free.
    pub(super) fn take(&mut self, cluster: u64) {
        self.free.remove(cluster);
        self.put(Clusters::new(cluster, 1), What::Taken);
    }

    fn put(&mut self, run: Clusters, what: What) {
        let index = |cluster: u64| usize::try_from(cluster.saturating_sub(self.first));
        let place = |cluster| index(cluster).unwrap_or(usize::MAX).min(self.what.len());
        let (first, end) = (place(run.first), place(run.end()));
        self.what[first..end].fill(what);
    }

    /// What stays: header and keys, and where two things lie.
    ///
    /// A crypto header is where its image was made, before all data, and a copy of its keys that a
    /// power failure leaves behind would outlive the passphrases that open it.
    fn fix(&mut self, image: &Named<'_>, references: &References) {
        self.put(Clusters::new(0, 1), What::Fixed);
        if let Some((at, len)) = image.subject.header.crypto_header() {
            self.put(Clusters::touched(at.get(), len, image.subject.bits()), What::Fixed);
        }
        for (what, cluster) in self.what.iter_mut().zip(self.first..) {
            if *what != What::Nothing && references.overlaps(cluster) {
                *what = What::Fixed;
            }
        }
    }

    /// Finds streams; where there are too many, the last ones of the file.
    fn find_streams(&mut self, image: &Named<'_>, memory: usize) -> Result<()> {
        let (subject, rules) = (image.subject, Rules::new(&image.subject.header));
        let most = (memory / 128).max(1 << 10);
        let mut last = BTreeMap::new();
        for_each_table(image, |number, _, words| {
            let times = image.tables[number].times;
            for entry in entries(image, words) {
                let Names::Stream { at, len } = rules.judge(entry, None).0 else { continue };
                let run = Clusters::touched(at, len, subject.bits());
                self.put(run, What::Streams);
                if run.first < self.first {
                    continue; // What else lies where it begins was not counted.
                }
                let stream = Stream { at, len, word: entry.word, times: 0 };
                last.entry((run.end() - 1, entry.word)).or_insert(stream).times += times;
                // One that went and comes again is the first again, and goes again.
                if last.len() > most
                    && let Some(((end, _), _)) = last.pop_first()
                {
                    self.known_from = self.known_from.max(end + 1);
                }
            }
            Ok(())
        })?;
        self.streams = last.into_values().collect();
        Ok(())
    }
}

/// The entries of an L2 table.
pub(super) fn entries<'w>(
    image: &Named<'_>,
    words: &'w [u64],
) -> impl Iterator<Item = L2Entry> + 'w {
    let entry =
        |words: &[u64]| L2Entry { word: words[0], bitmap: words.get(1).copied().unwrap_or(0) };
    words.chunks(image.subject.geometry.entry_words()).map(entry)
}

/// Shows the words of all L2 tables, each with its number and its place.
pub(super) fn for_each_table(
    image: &Named<'_>,
    mut visit: impl FnMut(usize, u64, &[u64]) -> Result<()>,
) -> Result<()> {
    let (subject, len) = (image.subject, image.subject.cluster_size());
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    for (number, table) in image.tables.iter().enumerate() {
        if !subject.is_hole(table.at, len) {
            subject.read(table.at, &mut bytes)?;
            visit(number, table.at, &words_of(&bytes))?;
        }
    }
    Ok(())
}

/// Shows the words of all tables of bitmaps that name clusters, each with its place.
pub(super) fn for_each_bits(image: &Named<'_>, mut visit: impl FnMut(u64, u64)) -> Result<()> {
    for segment in &image.roots.bitmap_tables {
        let visit = |number: u64, word: u64| {
            if word & OFFSET != 0 {
                visit(segment.start + number * 8, word);
            }
            Ok(())
        };
        let mut lost = None;
        let len = segment.end - segment.start;
        image.subject.words(segment.start, len, visit, |_, error| lost = Some(error))?;
        lost.map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// The tables that take clusters in one piece, by their last ones.
fn large_tables(image: &Named<'_>) -> Result<Vec<Large>> {
    let (subject, header) = (image.subject, &image.subject.header);
    let mut tables = Vec::new();
    let mut note = |at: u64, len: u64, kind| {
        let run = Clusters::touched(at, len, subject.bits());
        tables.extend((run.count > 0).then_some(Large { run, kind }));
    };
    let refcounts = u64::from(header.refcount_table_clusters) << subject.bits();
    note(header.refcount_table_offset.get(), refcounts, Kind::Refcounts);
    note(header.l1_table_offset.get(), u64::from(header.l1_size) * 8, Kind::L1);
    let start = header.snapshots_offset.get();
    let end = snapshot_table::walk(subject, |at, entry| {
        let len = u64::from(entry.l1_size.get()) * 8;
        note(entry.l1_table_offset.get(), len, Kind::OfSnapshot(at));
    })?;
    note(start, end - start, Kind::Snapshots);
    let directory = Directory::read(&*subject.store, header, subject.limits())?;
    if let Some(place) = directory.place {
        note(place.at.get(), place.len, Kind::Bitmaps);
        let mut at = place.at;
        for entry in &directory.entries {
            // The first word of an entry is the place of its table.
            note(entry.table.get(), u64::from(entry.table_entries) * 8, Kind::OfBitmap(at));
            at = at.saturating_add(entry.len());
        }
    }
    tables.sort_by_key(|table| table.run.end());
    Ok(tables)
}
