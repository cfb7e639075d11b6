//! What a repair does: entries that say what 0 says become 0, lost space is given back.

use anydisk_core::{
    Finding, GuestRange, HostOffset, Repair, Result, Severity, Storage, StorageExt,
};

use super::Teller;
use super::places::Lost;
use crate::QcowImage;
use crate::piece::Piece;

/// The remedy of an entry behind the end of the file.
const CLEARED: &str = "the entry becomes 0, which reads the same";

/// A finding of an entry that names what lies behind the end of the file. `harmless`: 0 in its
/// place would read the same.
pub(super) fn past_end(
    at: HostOffset,
    guest: Option<GuestRange>,
    text: String,
    harmless: bool,
) -> Finding {
    let mut finding = Finding::new(Severity::Corruption, "past-end-of-file", at, text);
    finding.guest = guest;
    if harmless { finding.mended_by(CLEARED) } else { finding }
}

/// A table or a cluster in which the file ends.
pub(super) struct Cut {
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) what: &'static str,
    /// The entry that names it.
    pub(super) entry: HostOffset,
    pub(super) place: Piece,
    /// The part of the disk that is missing with it.
    pub(super) lost: GuestRange,
}

/// Mends what the request says.
pub(super) struct Mender<'a> {
    image: &'a QcowImage,
    repair: Repair,
    /// Entries that say what 0 says may become 0.
    clears: bool,
    /// Something was written that is not flushed yet.
    wrote: bool,
}

impl<'a> Mender<'a> {
    pub(super) fn new(image: &'a QcowImage, repair: Repair, clears: bool) -> Self {
        Self { image, repair, clears, wrote: false }
    }

    pub(super) fn image(&self) -> &'a QcowImage {
        self.image
    }

    /// Clusters that take space and that nothing names.
    pub(super) fn count(&self, lost: &Lost) -> Result<u64> {
        let cluster = self.image.geometry.cluster();
        let known = lost.gaps.iter().map(|gap| Ok(self.occupied(*gap)? / cluster));
        Ok(lost.more + known.sum::<Result<u64>>()?)
    }

    /// Makes an entry 0, if the finding about it says that this is its remedy, and tells it.
    pub(super) fn clear_entry(
        &mut self,
        at: HostOffset,
        mut finding: Finding,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        if self.clears && finding.remedy.is_some() {
            self.image.store.write_at(at, &[0; 8])?;
            self.wrote = true;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// Tells of a table or a cluster in which the file ends, and makes the file reach its end if everything
    /// is to be mended.
    pub(super) fn fill_up(&mut self, cut: &Cut, teller: &mut Teller<'_>) -> Result<()> {
        let end = HostOffset(self.image.store.len()?);
        let text = format!("the file ends in the {} at {}, at {end}", cut.what, cut.place.at());
        let finding = Finding::new(Severity::Corruption, cut.kind, cut.entry, text);
        let mut finding = finding.costing(cut.lost).mended_by("the file is filled up with zeroes");
        if self.repair == Repair::All {
            self.image.store.set_len(cut.place.end)?;
            self.wrote = true;
            finding.repaired = true;
        }
        teller.tell(finding);
        Ok(())
    }

    /// Tells what is lost, and gives back what holds no data, if nothing is damaged: its end by
    /// cutting the file, the rest as holes.
    pub(super) fn give_back(
        &mut self,
        lost: &Lost,
        undamaged: bool,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        if self.wrote {
            self.image.store.flush()?;
        }
        teller.report.leaks += lost.more;
        for gap in &lost.gaps {
            let cluster = self.image.geometry.cluster();
            let count = self.occupied(*gap)? / cluster;
            if count == 0 {
                continue;
            }
            let at = HostOffset(gap.at);
            let mut text = format!("nothing names {count} clusters from {at} on");
            let is_data = !self.image.store.is_zero_at(at, gap.end - gap.at)?;
            if is_data {
                text.push_str(", and they hold data: they are kept");
            }
            let mut finding = Finding::new(Severity::Leak, "leak", at, text);
            if !is_data {
                finding = finding.mended_by("the space is given back, if nothing is damaged");
                if self.repair >= Repair::Leaks && undamaged {
                    finding.repaired = self.give_back_gap(*gap, lost)?;
                }
            }
            let repaired = finding.repaired;
            teller.tell(finding);
            let report = &mut teller.report;
            let leaks = if repaired { &mut report.leaks_fixed } else { &mut report.leaks };
            *leaks += count - 1; // One was counted with the finding.
        }
        match self.repair >= Repair::Leaks && undamaged {
            true => Ok(self.image.store.flush()?),
            false => Ok(()),
        }
    }

    /// Whether the space of a gap could be given back.
    fn give_back_gap(&self, gap: Piece, lost: &Lost) -> Result<bool> {
        let store = &self.image.store;
        if gap.at >= lost.end {
            store.set_len(gap.at)?;
            return Ok(true);
        }
        let Some(space) = store.space() else { return Ok(false) };
        match space.zero(HostOffset(gap.at), gap.end - gap.at, true) {
            // A store punches in units of its own.
            Ok(()) => Ok(store.holes().is_some() && self.occupied(gap)? == 0),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of a gap that take space.
    fn occupied(&self, gap: Piece) -> Result<u64> {
        let Some(holes) = self.image.store.holes() else { return Ok(gap.end - gap.at) };
        let (mut at, mut sum) = (gap.at, 0);
        while at < gap.end {
            let run = holes.run_at(HostOffset(at), gap.end - at)?;
            let len = run.len.max(1);
            sum += if run.hole { 0 } else { len };
            at += len;
        }
        Ok(sum)
    }
}
