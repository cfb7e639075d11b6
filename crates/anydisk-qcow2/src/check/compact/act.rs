//! A plan carried out: everything is copied, then named, from the leaves to the header.

use std::collections::{BTreeMap, HashMap};

use anydisk_core::{HostOffset, Result, Storage, StorageExt};

use super::atlas::{Atlas, Kind, Large, What, entries, for_each_bits, for_each_table};
use super::pace::Pace;
use super::plan::Plan;
use crate::bitmap::Place;
use crate::check::Named;
use crate::check::counts::Blocks;
use crate::check::judge::{Named as Names, Rules};
use crate::check::mend::write_changed;
use crate::check::references::References;
use crate::check::subject::{PIECE, Subject};
use crate::check::trouble::Teller;
use crate::guard::Clusters;
use crate::layout::entry::OFFSET;
use crate::live::LiveHeader;

/// A plan, and what is needed to carry it out.
pub(super) struct Act<'a> {
    pub(super) image: &'a Named<'a>,
    pub(super) references: &'a References,
    pub(super) atlas: &'a Atlas,
    pub(super) plan: &'a Plan,
    /// What the disk holds, by the places of the file: it decrypts where data is encrypted by them.
    pub(super) data: &'a dyn Storage,
    pub(super) pace: &'a Pace<'a>,
}

impl Act<'_> {
    /// Does it. After an error everything is named where it is whole, and at worst space is lost.
    pub(super) fn perform(&self) -> Result<()> {
        let raised = self.raised();
        self.image.blocks.set(self.subject(), &raised)?;
        self.flush()?;
        if let Err(error) = self.copy_leaves() {
            // Nothing names the new places yet.
            let back: Vec<_> = raised.iter().map(|(cluster, _)| (*cluster, 0)).collect();
            let _ = self.image.blocks.set(self.subject(), &back).and_then(|()| self.flush());
            return Err(error);
        }
        self.name_leaves()?;
        self.copy_alone(&[What::L2Table, What::RefcountBlock])?;
        self.copy_large(|kind| matches!(kind, Kind::OfBitmap(_)))?;
        self.name_tables()?;
        self.copy_large(|kind| {
            matches!(kind, Kind::L1 | Kind::OfSnapshot(_) | Kind::Refcounts | Kind::Bitmaps)
        })?;
        self.name_in_snapshot_table()?;
        self.copy_large(|kind| kind == Kind::Snapshots)?;
        self.name_in_header()?;
        self.lower()
    }

    fn subject(&self) -> &Subject {
        self.image.subject
    }

    fn flush(&self) -> Result<()> {
        Ok(self.subject().store.flush()?)
    }

    /// The refcounts of the new places.
    fn raised(&self) -> Vec<(u64, u64)> {
        let of = |from, to| (to, self.references.get(from));
        let alone = self.plan.alone.iter().map(|(from, to)| of(*from, *to));
        let large = self.plan.large.iter().flat_map(|(large, to)| {
            (large.run.first..large.run.end()).zip(*to..).map(|(from, to)| of(from, to))
        });
        let streams = self.plan.stream_counts.iter().map(|(cluster, count)| (*cluster, *count));
        let mut raised: Vec<_> = alone.chain(large).chain(streams).collect();
        raised.sort_unstable();
        raised
    }

    /// What names nothing: data, streams, bits of bitmaps. Durable when it returns.
    fn copy_leaves(&self) -> Result<()> {
        self.copy_alone(&[What::Data])?;
        self.copy_alone(&[What::Bits])?;
        let mut bytes = Vec::new();
        for (stream, to, _) in &self.plan.streams {
            bytes.resize(usize::try_from(stream.len).unwrap_or(0), 0);
            self.subject().store.read_padded_at(HostOffset(stream.at), &mut bytes)?;
            self.subject().store.write_at(*to, &bytes)?;
            self.pace.step(stream.len)?;
        }
        self.flush()
    }

    /// Copies clusters in which one of these lies; durable when it returns.
    fn copy_alone(&self, kinds: &[What]) -> Result<()> {
        let is_one = |from: u64| kinds.contains(&self.atlas.what(from));
        let mut moves = self.plan.alone.iter().filter(|(from, _)| is_one(*from)).peekable();
        let store = if kinds == [What::Data] { self.data } else { &*self.subject().store };
        while let Some((from, to)) = moves.next() {
            let mut count = 1;
            while moves.next_if_eq(&&(from + count, to + count)).is_some() {
                count += 1;
            }
            self.copy(store, Clusters::new(*from, count), *to)?;
        }
        self.flush()
    }

    fn copy_large(&self, wanted: impl Fn(Kind) -> bool) -> Result<()> {
        for (large, to) in self.plan.large.iter().filter(|(large, _)| wanted(large.kind)) {
            self.copy(&*self.subject().store, large.run, *to)?;
        }
        self.flush()
    }

    fn copy(&self, store: &dyn Storage, from: Clusters, to: u64) -> Result<()> {
        let len = from.count << self.subject().bits();
        let (from, to) = (self.subject().offset(from.first), self.subject().offset(to));
        let mut bytes = vec![0; usize::try_from(len.min(PIECE)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(PIECE);
            let piece = &mut bytes[..usize::try_from(part).unwrap_or(0)];
            store.read_padded_at(from.saturating_add(done), piece)?;
            store.write_at(to.saturating_add(done), piece)?;
            done += part;
            self.pace.step(part)?;
        }
        Ok(())
    }

    /// An entry that names the new place.
    fn moved(&self, word: u64) -> u64 {
        match self.plan.moved((word & OFFSET) >> self.subject().bits()) {
            Some(to) => word & !OFFSET | self.subject().offset(to).get(),
            None => word,
        }
    }

    /// Entries of L2 tables and of tables of bitmaps, where these are.
    fn name_leaves(&self) -> Result<()> {
        let streams: HashMap<u64, u64> =
            self.plan.streams.iter().map(|(stream, _, word)| (stream.word, *word)).collect();
        let rules = Rules::new(&self.subject().header);
        let step = self.subject().geometry.entry_words();
        for_each_table(self.image, |_, at, old| {
            let mut new = old.to_vec();
            for (entry, word) in entries(self.image, old).zip(new.iter_mut().step_by(step)) {
                match rules.judge(entry, None).0 {
                    Names::Cluster(_) => *word = self.moved(*word),
                    Names::Stream { .. } => *word = streams.get(word).copied().unwrap_or(*word),
                    Names::Nothing | Names::Elsewhere(_) => {}
                }
            }
            write_changed(self.subject(), at, old, &new)
        })?;
        let mut changed = Vec::new();
        for_each_bits(self.image, |at, word| {
            let new = self.moved(word);
            changed.extend((new != word).then_some((at, new)));
        })?;
        self.write_words(&changed)
    }

    /// Entries of L1 tables, of the refcount table, of the directory of bitmaps.
    fn name_tables(&self) -> Result<()> {
        let mut changed = Vec::new();
        for segment in &self.image.roots.l1 {
            let visit = |number: u64, word: u64| {
                let new = self.moved(word);
                changed.extend((new != word).then_some((segment.start + number * 8, new)));
                Ok(())
            };
            let mut lost = None;
            let len = segment.end - segment.start;
            self.subject().words(segment.start, len, visit, |_, error| lost = Some(error))?;
            lost.map_or(Ok(()), Err)?;
        }
        changed.extend(self.words_of_large(|kind| match kind {
            Kind::OfBitmap(word) => Some(word),
            _ => None,
        }));
        self.image.blocks.relink(self.subject(), |cluster| self.plan.moved(cluster))?;
        self.write_words(&changed)
    }

    fn name_in_snapshot_table(&self) -> Result<()> {
        let changed = self.words_of_large(|kind| match kind {
            Kind::OfSnapshot(word) => Some(word),
            _ => None,
        });
        self.write_words(&changed.collect::<Vec<_>>())
    }

    /// The words that name large tables, as they are to be.
    fn words_of_large(
        &self,
        word: impl Fn(Kind) -> Option<HostOffset>,
    ) -> impl Iterator<Item = (u64, u64)> {
        self.plan.large.iter().filter_map(move |(large, to)| {
            Some((word(large.kind)?.get(), self.subject().offset(*to).get()))
        })
    }

    /// Writes words at their places; durable when it returns.
    fn write_words(&self, words: &[(u64, u64)]) -> Result<()> {
        for (at, word) in words {
            self.subject().store.write_at(HostOffset(*at), &word.to_be_bytes())?;
        }
        self.flush()
    }

    fn name_in_header(&self) -> Result<()> {
        let header = &self.subject().header;
        let live = LiveHeader::to_repair(&self.subject().store, header.clone());
        for (Large { kind, .. }, to) in &self.plan.large {
            let at = self.subject().offset(*to);
            match kind {
                Kind::Refcounts => live.set_refcount_table(at, header.refcount_table_clusters)?,
                Kind::L1 => live.set_l1(at, header.l1_size)?,
                Kind::Snapshots => live.set_snapshots(at, header.nb_snapshots)?,
                Kind::Bitmaps => {
                    if let Some(place) = Place::of(header)? {
                        live.set_bitmaps(Some(Place { at, ..place }.to_extension()))?;
                    }
                }
                Kind::OfSnapshot(_) | Kind::OfBitmap(_) => {}
            }
        }
        Ok(())
    }

    /// Lowers the refcounts of the old places, which nothing names now.
    fn lower(&self) -> Result<()> {
        let bits = self.subject().bits();
        let mut lowered: BTreeMap<u64, u64> = BTreeMap::new();
        for (stream, ..) in &self.plan.streams {
            let run = Clusters::touched(stream.at, stream.len, bits);
            for cluster in run.first..run.end() {
                let count = lowered.entry(cluster).or_insert_with(|| self.references.get(cluster));
                *count = count.saturating_sub(stream.times);
            }
        }
        let alone = self.plan.alone.iter().map(|(from, _)| *from);
        let large = self.plan.large.iter().flat_map(|(large, _)| large.run.first..large.run.end());
        let mut lowered: Vec<_> =
            lowered.into_iter().chain(alone.chain(large).map(|cluster| (cluster, 0))).collect();
        lowered.sort_unstable();
        let subject = self.subject().again()?;
        Blocks::read(&subject, &mut Teller::quiet())?.set(&subject, &lowered)?;
        self.flush()
    }
}
