//! The L1 table, and where the L2 tables are.

use anydisk_core::{Finding, GuestOffset, GuestRange, HostOffset, Result, Severity, check_limit};

use super::{Check, PAST_END, TABLE_CUT};
use crate::piece::{Piece, each_word};
use crate::table::ENTRY;
use crate::{NAME, limits};

/// An L2 table, and the number of the entry that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) at: HostOffset,
    pub(super) number: u64,
}

impl Check<'_> {
    /// Reads the L1 table. What it says wrongly is told.
    pub(super) fn find_tables(&mut self) -> Result<()> {
        let l1 = self.header.l1_piece();
        let mut entries = Vec::new();
        each_word(&*self.store, l1, &mut |at, entry| {
            entries.push((at, entry));
            check_limit(NAME, "number of L2 tables", entries.len() as u64, limits::TABLES)
        })?;
        for (at, entry) in entries {
            self.judge_table(at, entry)?;
        }
        self.keep_apart();
        Ok(())
    }

    fn judge_table(&mut self, at: HostOffset, entry: u64) -> Result<()> {
        let number = (at.get() - self.header.l1_table_offset.get()) / ENTRY;
        let guest = self.covered(number);
        let place = Piece::new(HostOffset(entry), self.geometry.table_len());
        if !self.geometry.is_place(entry) || place.end().get() > limits::FILE {
            let text = format!("the L1 entry is {entry:#x}, where no table can be");
            let finding = Finding::new(Severity::Corruption, "l1-entry-invalid", at, text);
            return self.clear_entry(at, finding.costing(guest), self.mends.invalid, None);
        }
        if entry >= self.file_len {
            let text = format!("the L2 table at {} lies behind the end of the file", place.at);
            let finding = Finding::new(Severity::Corruption, PAST_END, at, text);
            return self.clear_entry(at, finding.costing(guest), self.mends.past_end, None);
        }
        if place.end().get() > self.file_len {
            let there = (self.file_len - entry) / ENTRY * self.geometry.cluster();
            let kind = (TABLE_CUT, "L2 table");
            self.fill_up(kind, at, (place.at, place.end()), guest.skip(there))?;
        }
        self.tables.push(Table { at: place.at, number });
        Ok(())
    }

    /// Leaves out the tables that lie on other metadata, which are told: none is read twice.
    fn keep_apart(&mut self) {
        let len = self.geometry.table_len();
        let others = [self.header.piece(), self.header.l1_piece()];
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_unstable_by_key(|table| (table.at, table.number));
        let mut end = HostOffset::ZERO;
        for table in tables {
            let piece = Piece::new(table.at, len);
            if table.at >= end && !others.iter().any(|other| other.meets(piece)) {
                end = piece.end();
                self.places.push(table.at);
                self.tables.push(table);
                continue;
            }
            let at = self.header.l1_table_offset.saturating_add(table.number * ENTRY);
            let text = format!("the L2 table at {} lies on other metadata", table.at);
            let finding = Finding::new(Severity::Corruption, "l2-table-shared", at, text);
            self.teller.tell(finding.costing(self.covered(table.number)));
        }
        self.tables.sort_unstable_by_key(|table| table.number);
    }

    /// The part of the disk that the L2 table of a number covers.
    fn covered(&self, number: u64) -> GuestRange {
        let start = number.saturating_mul(self.geometry.coverage());
        let end = start.saturating_add(self.geometry.coverage());
        GuestRange::between(GuestOffset(start), GuestOffset(end))
            .before(GuestOffset(self.header.image_size))
    }

    /// The metadata that shares a byte with a cluster.
    pub(super) fn metadata_in(&self, cluster: Piece) -> Option<HostOffset> {
        let others = [self.header.piece(), self.header.l1_piece()];
        if let Some(other) = others.into_iter().find(|other| other.meets(cluster)) {
            return Some(other.at);
        }
        let before = self.places.partition_point(|at| *at < cluster.end());
        let table = *self.places.get(before.checked_sub(1)?)?;
        Piece::new(table, self.geometry.table_len()).meets(cluster).then_some(table)
    }
}
