//! Space that nothing names.
//!
//! Nothing is given back where a table may have named it: what holds data, whatever the tables say, and anything
//! where something is damaged, or was until this repair, or where more is lost than a crash leaves.

use anydisk_core::{
    Finding, GuestRange, HostOffset, Result, Severity, StorageExt, can_be_leaked_blocks,
};

use super::Check;
use super::occupied::Occupied;
use crate::piece::Piece;

/// Lost space that is remembered, to be given back; more is only counted.
const MOST: usize = 1 << 16;

/// Whole clusters that nothing names.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    pieces: Vec<Piece>,
    /// Clusters of others, of which there are too many to be remembered.
    more: u64,
}

impl Check<'_> {
    pub(super) fn note_gaps(&self, occupied: &Occupied, gaps: &mut Gaps) -> Result<()> {
        let cluster = self.geometry.cluster();
        // What lies behind the last whole cluster was never part of the image.
        let file_end = self.geometry.whole(self.file_len);
        for run in occupied.free_runs().filter(|run| run.start * cluster < file_end) {
            let at = HostOffset(run.start * cluster);
            let end = (run.end * cluster).min(file_end);
            let piece = Piece::new(at, end - at.get());
            let has_room = gaps.pieces.len() < MOST;
            match gaps.pieces.last_mut() {
                Some(last) if last.end() == piece.at => last.len += piece.len,
                _ if has_room => gaps.pieces.push(piece),
                _ => gaps.more += self.occupied(piece)?,
            }
        }
        Ok(())
    }

    /// Tells of lost space, and gives it back if that is wanted and may be. Returns how many clusters it is.
    pub(super) fn tell_gaps(&mut self, gaps: &Gaps) -> Result<u64> {
        let mut counts = Vec::new();
        for gap in &gaps.pieces {
            counts.push(self.occupied(*gap)?);
        }
        let count = gaps.more + counts.iter().sum::<u64>();
        let cluster = self.geometry.cluster();
        if self.places.is_empty() && !can_be_leaked_blocks(count * cluster, 0, cluster) {
            let text = format!(
                "the L1 table names nothing, and there are {count} clusters: it may be damaged"
            );
            let at = self.header.l1_table_offset;
            let finding = Finding::new(Severity::Corruption, "tables-lost", at, text);
            self.teller.tell(finding.costing(GuestRange::whole(self.header.image_size)));
            return Ok(count);
        }
        self.teller.report.leaks += gaps.more;
        let may_give_back = self.gives_back && self.damages() == 0;
        for (gap, count) in gaps.pieces.iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.tell_gap(*gap, count, may_give_back)?;
        }
        if may_give_back {
            self.store.flush()?;
        }
        Ok(count)
    }

    fn tell_gap(&mut self, gap: Piece, count: u64, may_give_back: bool) -> Result<()> {
        let mut text = format!("nothing names {count} clusters from {} on", gap.at);
        let is_data = !self.store.is_zero_at(gap.at, gap.len)?;
        if is_data {
            text.push_str(", and they hold data: they are kept");
        }
        let mut finding = Finding::new(Severity::Leak, "leak", gap.at, text);
        if !is_data {
            finding = finding.mended_by("the space is given back, if nothing is damaged");
            finding.repaired = may_give_back && self.give_back(gap)?;
        }
        let repaired = finding.repaired;
        self.teller.tell(finding);
        let report = &mut self.teller.report;
        let leaks = if repaired { &mut report.leaks_fixed } else { &mut report.leaks };
        *leaks += count - 1; // One was counted with the finding.
        Ok(())
    }

    /// Whether the space of a gap could be given back.
    fn give_back(&mut self, gap: Piece) -> Result<bool> {
        if gap.end().get() >= self.file_len {
            self.store.set_len(gap.at.get())?;
            self.file_len = gap.at.get();
            return Ok(true);
        }
        let Some(space) = self.store.space() else { return Ok(false) };
        match space.zero(gap.at, gap.len, true) {
            // A store punches in units of its own.
            Ok(()) => Ok(self.store.holes().is_some() && self.occupied(gap)? == 0),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Clusters of a gap that take space.
    fn occupied(&self, gap: Piece) -> Result<u64> {
        let cluster = self.geometry.cluster();
        let Some(holes) = self.store.holes() else { return Ok(gap.len.div_ceil(cluster)) };
        let (mut at, mut sum) = (gap.at, 0);
        while at < gap.end() {
            let run = holes.run_at(at, gap.end().get() - at.get())?;
            let len = run.len.max(1);
            sum += if run.hole { 0 } else { len };
            at = at.saturating_add(len);
        }
        Ok(sum.div_ceil(cluster))
    }
}
