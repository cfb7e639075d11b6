//! The entries of the L2 tables.

use std::ops::Range;

use anydisk_core::{
    Error, Finding, GuestOffset, GuestRange, HostOffset, Result, Severity, StorageExt, check_limit,
};

use super::occupied::Occupied;
use super::tables::Table;
use super::{CLUSTER_CUT, Check, PAST_END};
use crate::layout::ZERO;
use crate::piece::{Piece, each_word};
use crate::table::ENTRY;
use crate::{NAME, limits};

/// Bytes of a cluster that are copied at once.
const COPY: u64 = 1 << 20;

/// Entries that one repair gives a copy: they are kept in memory, and copies take space.
const COPIES: u64 = 1 << 20;

/// What the first walk counts.
#[derive(Default)]
struct Sums {
    allocated: u64,
    fragmented: u64,
    /// Behind the last cluster.
    end: Option<HostOffset>,
}

/// One entry that is not 0.
#[derive(Clone, Copy)]
struct Entry {
    at: HostOffset,
    value: u64,
    /// The part of the disk that it is for; empty behind the end of that.
    guest: GuestRange,
}

impl Check<'_> {
    /// Looks at all entries, and notes which clusters of a window are in use. All but what is used twice is
    /// judged with the first window.
    pub(super) fn walk(&mut self, window: Range<u64>) -> Result<Occupied> {
        let first = window.start == 0;
        let mut occupied = Occupied::new(window);
        for piece in [self.header.piece(), self.header.l1_piece()] {
            occupied.mark(self.clusters(piece));
        }
        for at in &self.places {
            occupied.mark(self.clusters(Piece::new(*at, self.geometry.table_len())));
        }
        let mut sums = Sums::default();
        let tables = std::mem::take(&mut self.tables);
        for (done, table) in (0_u64..).zip(&tables) {
            if self.progress.is_some_and(|told| !told(done, tables.len() as u64)) {
                return Err(Error::Cancelled);
            }
            self.walk_table(*table, first, &mut occupied, &mut sums)?;
        }
        self.tables = tables;
        if first {
            self.report(&sums);
        }
        Ok(occupied)
    }

    fn walk_table(
        &mut self,
        table: Table,
        first: bool,
        occupied: &mut Occupied,
        sums: &mut Sums,
    ) -> Result<()> {
        let store = self.store.clone();
        let piece = Piece::new(table.at, self.geometry.table_len());
        let size = GuestOffset(self.header.image_size);
        each_word(&*store, piece, &mut |at, value| {
            let number = (at.get() - table.at.get()) / ENTRY;
            let start = self.geometry.guest_of(table.number, number).unwrap_or(u64::MAX);
            let end = GuestOffset(start.saturating_add(self.geometry.cluster()));
            let guest = GuestRange::between(GuestOffset(start), end).before(size);
            let entry = Entry { at, value, guest };
            if first && !self.judge(entry, sums)? || value == ZERO {
                return Ok(());
            }
            self.find_shared(entry, occupied)
        })
    }

    /// Looks at an entry by itself: whether it goes on naming a cluster.
    fn judge(&mut self, entry: Entry, sums: &mut Sums) -> Result<bool> {
        let Entry { at, value, guest } = entry;
        let place = Piece::new(HostOffset(value), self.geometry.cluster());
        let corrupt =
            |kind, text| Finding::new(Severity::Corruption, kind, at, text).costing(guest);
        if guest.is_empty() {
            let text = format!("the entry {value:#x} is for what is behind the end of the disk");
            self.teller.tell(Finding::new(Severity::Note, "entry-behind-end", at, text));
            self.teller.damage.names_room |=
                self.geometry.is_place(value) && place.end().get() > self.file_len;
            return Ok(value != ZERO && place.end().get() <= self.file_len);
        }
        if value == ZERO {
            return Ok(false);
        }
        if !self.geometry.is_place(value) || place.end().get() > limits::FILE {
            let text = format!("the L2 entry is {value:#x}, where no cluster can be");
            self.clear_entry(
                at,
                corrupt("l2-entry-invalid", text),
                self.mends.invalid,
                Some(ZERO),
            )?;
            return Ok(false);
        }
        if value >= self.file_len {
            let text = format!("the cluster at {} lies behind the end of the file", place.at);
            self.clear_entry(at, corrupt(PAST_END, text), self.mends.past_end, Some(ZERO))?;
            return Ok(false);
        }
        if place.end().get() > self.file_len {
            let lost = guest.skip(self.file_len - value);
            self.fill_up((CLUSTER_CUT, "cluster"), at, (place.at, place.end()), lost)?;
        }
        sums.allocated += 1;
        sums.fragmented += u64::from(sums.end.is_some_and(|end| end != place.at));
        sums.end = Some(place.end());
        Ok(true)
    }

    /// Tells of a cluster that another entry names too, or that lies on metadata.
    fn find_shared(&mut self, entry: Entry, occupied: &mut Occupied) -> Result<()> {
        let place = Piece::new(HostOffset(entry.value), self.geometry.cluster());
        if !self.geometry.is_place(entry.value) || entry.value >= self.file_len {
            return Ok(());
        }
        if !occupied.mark(self.clusters(place)) {
            return Ok(());
        }
        if let Some(other) = self.metadata_in(place) {
            let text = format!("the cluster at {} lies on metadata at {other}", place.at);
            let finding = Finding::new(Severity::Corruption, "metadata-overlap", entry.at, text);
            self.teller.tell(finding.costing(entry.guest));
            return Ok(());
        }
        let text = format!("the cluster at {} is that of another entry too", place.at);
        let finding = Finding::new(Severity::Corruption, "cluster-shared", entry.at, text);
        let mut finding = finding.costing(entry.guest).mended_by("a copy of the cluster");
        if self.mends.shared {
            check_limit(
                NAME,
                "damage to be repaired, in entries",
                self.copies.len() as u64,
                COPIES,
            )?;
            self.copies.push((entry.at, place));
            finding.repaired = true;
        }
        self.teller.tell(finding);
        Ok(())
    }

    /// Gives the entries that name what others name a copy each; durable.
    pub(super) fn put_copies(&mut self) -> Result<()> {
        let copies = std::mem::take(&mut self.copies);
        if copies.is_empty() {
            return Ok(());
        }
        for (entry, place) in copies {
            let copy = self.copy(place)?;
            self.store.write_at(entry, &copy.get().to_le_bytes())?;
        }
        Ok(self.store.flush()?)
    }

    /// Appends a copy of a cluster; durable.
    fn copy(&mut self, from: Piece) -> Result<HostOffset> {
        let to = HostOffset(self.geometry.whole_or_more(self.file_len));
        let mut bytes = vec![0; usize::try_from(from.len.min(COPY)).expect("at most a mebibyte")];
        let mut done = 0;
        while done < from.len {
            self.store.read_padded_at(from.at.saturating_add(done), &mut bytes)?;
            self.store.write_at(to.saturating_add(done), &bytes)?;
            done += bytes.len() as u64;
        }
        self.store.flush()?;
        self.file_len = to.saturating_add(from.len).get();
        Ok(to)
    }

    /// The numbers of the clusters of a piece.
    fn clusters(&self, piece: Piece) -> Range<u64> {
        let cluster = self.geometry.cluster();
        piece.at.get() / cluster..piece.end().get().div_ceil(cluster)
    }

    fn report(&mut self, sums: &Sums) {
        let report = &mut self.teller.report;
        report.total_clusters = Some(self.header.image_size.div_ceil(self.geometry.cluster()));
        report.allocated_clusters = Some(sums.allocated);
        report.compressed_clusters = Some(0);
        report.fragmented_clusters = Some(sums.fragmented);
    }
}
