//! Looking for damage in an image, which need not be one that opens, and repairing it.
//!
//! An entry of the table names a block that is in the file and on nothing else. What is not so can
//! be mended without touching good data:
//!
//! | finding | repair |
//! |---|---|
//! | `block-behind-end`: the file ends before the block does | the data is lost: no block; not in a child |
//! | `block-on-metadata`: it lies on footer, header, table or locators | as above |
//! | `block-shared`: it lies on another block | it gets a copy of its own |
//! | `footer-missing`, `footer-copy-damaged` | the good one is written in its place |
//! | `space-unnamed`: room for blocks that no entry names | |
//!
//! Entries whose blocks are lost stay, if there is something in the file that nothing names: the entry
//! is what is damaged, and this may be its data, of which there is no other copy. Where one of them names
//! what lies behind the end of the file, no copies are made, which would lie there.

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, GuestOffset, GuestRange, HostOffset, Repair, Result,
    Severity, Storage, StorageExt,
};
use zerocopy::IntoBytes;

use crate::footer::{FOOTER_LEN, Found, Kind, limit};
use crate::guard::{ALIGNMENT, Piece, check_apart, for_each_entry, metadata, read_only};
use crate::image::Parts;
use crate::layout::{ABSENT, ENTRY, SECTOR};
use crate::limits;
use crate::table::Shape;

/// Entries that one repair mends: they are kept in memory, and copies take space.
const MOST_FAULTS: u64 = 1 << 20;

const LOST: &str = "the entry is emptied: its data is lost";
const COPIED: &str = "it gets a copy of its own";

/// An entry that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BehindEnd,
    OnMetadata,
    Shared,
}

/// A block, by the sector it is named by and its number.
type Named = (u32, u32);

/// What is known of an image while it is checked.
struct Check<'a> {
    parts: &'a Parts,
    shape: Shape,
    store: &'a dyn Storage,
    repair: bool,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
    faults: Vec<(Named, Fault)>,
}

/// The check of the format.
///
/// # Errors
/// What footer and header say where they cannot be trusted, and those of the store.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let store = &*request.open.store;
    if request.repair != Repair::Nothing && !store.is_writable() {
        return Err(read_only("its file was opened for reading"));
    }
    let parts = Parts::read(store)?;
    let Some(header) = &parts.header else {
        // The bytes of a fixed disk say nothing of themselves.
        return Ok(CheckReport::default());
    };
    limit("number of blocks of a disk to be checked", header.entries, limits::ENTRIES)?;
    let shape = Shape::of(header, parts.footer.size);
    let repair = request.repair == Repair::All;
    let (report, faults) = (CheckReport::default(), Vec::new());
    let mut check = Check { parts: &parts, shape, store, repair, report, found, faults };
    check.footers();
    check.blocks(request.progress)?;
    if repair {
        check.mend()?;
    }
    Ok(check.report)
}

impl Check<'_> {
    fn tell(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }

    /// One footer is enough, so a lost one is no more than a note.
    fn footers(&mut self) {
        let (kind, at, text, remedy) = match (self.parts.found, self.parts.has_copy) {
            (Found::Start, _) => (
                "footer-missing",
                HostOffset(self.parts.len.saturating_sub(FOOTER_LEN as u64)),
                "the file does not end with a footer",
                "the copy is written there",
            ),
            (_, false) => (
                "footer-copy-damaged",
                HostOffset::ZERO,
                "the copy of the footer is not as the footer",
                "the footer is written there",
            ),
            (_, true) => return,
        };
        let finding = Finding::new(Severity::Note, kind, at, text.to_owned());
        let mut finding = finding.mended_by(remedy);
        finding.repaired = self.repair;
        self.tell(finding);
    }

    fn blocks(&mut self, progress: Option<&(dyn Fn(u64, u64) -> bool + Sync)>) -> Result<()> {
        let metadata = metadata(self.parts, &self.shape);
        if let Err(error) = check_apart(&metadata) {
            let text = error.to_string();
            self.tell(Finding::new(
                Severity::Corruption,
                "metadata-overlap",
                HostOffset::ZERO,
                text,
            ));
        }
        let mut blocks = self.named(progress)?;
        blocks.sort_unstable();
        let (mut end, mut faults, mut good) = (0, Vec::new(), metadata.clone());
        for block in &blocks {
            let at = u64::from(block.0) * SECTOR;
            let behind = at + self.shape.stride();
            let fault = self.fault_of(*block, &metadata, end);
            faults.extend(fault.map(|fault| (*block, fault)));
            // Where a lost entry leads to there is no block, and none is shared with it.
            if matches!(fault, None | Some(Fault::Shared)) {
                good.push((at.saturating_sub(self.pad(at)), behind));
                end = end.max(behind);
            }
        }
        let gaps = self.gaps(good);
        let is_lost = faults.iter().any(|(_, fault)| *fault != Fault::Shared);
        // Without its block a child would show what the parent had there before.
        let stays =
            self.parts.footer.kind != Kind::Dynamic || is_lost && self.hold_something(&gaps)?;
        let unnamed = gaps.iter().map(|gap| gap.1 - gap.0).sum();
        let copies = !(stays && faults.iter().any(|(_, fault)| *fault == Fault::BehindEnd));
        faults.into_iter().try_for_each(|(block, fault)| match fault {
            Fault::Shared => self.fault(block, fault, copies),
            _ => self.fault(block, fault, !stays),
        })?;
        self.note_unnamed(unnamed);
        self.report.allocated_clusters = Some(blocks.len() as u64);
        self.report.total_clusters = Some(self.shape.size.div_ceil(self.shape.block));
        self.report.image_end = Some(HostOffset(end));
        Ok(())
    }

    /// All entries that name something.
    fn named(&self, progress: Option<&(dyn Fn(u64, u64) -> bool + Sync)>) -> Result<Vec<Named>> {
        let (mut blocks, mut number) = (Vec::new(), 0_u32);
        let total = self.shape.entries * ENTRY;
        for_each_entry(&self.shape, self.store, |at, entry| {
            let done = at.get().saturating_sub(self.shape.table.get());
            if done.is_multiple_of(1 << 20) && progress.is_some_and(|go_on| !go_on(done, total)) {
                return Err(Error::Cancelled);
            }
            if entry != ABSENT {
                blocks.push((entry, number));
            }
            number += 1;
            Ok(())
        })?;
        Ok(blocks)
    }

    /// What is wrong with a block; blocks before it in the file reach to `end`.
    fn fault_of(&self, block: Named, metadata: &[Piece], end: u64) -> Option<Fault> {
        let (at, len) = (u64::from(block.0) * SECTOR, HostOffset(self.parts.room_end()));
        let behind = at + self.shape.stride();
        if metadata.iter().any(|piece| piece.0 < behind && at < piece.1) {
            return Some(Fault::OnMetadata);
        }
        if self.shape.place(block.0, block.1.into(), len).is_none() {
            return Some(Fault::BehindEnd);
        }
        (at < end).then_some(Fault::Shared)
    }

    /// What may be kept before a block so that its data lies on a boundary.
    fn pad(&self, at: u64) -> u64 {
        let bitmap = self.shape.bitmap;
        let is_aligned = (at + bitmap).is_multiple_of(ALIGNMENT);
        if is_aligned { bitmap.next_multiple_of(ALIGNMENT) - bitmap } else { 0 }
    }

    /// Where blocks have room that nothing names.
    fn gaps(&self, mut pieces: Vec<Piece>) -> Vec<Piece> {
        pieces.push((self.parts.room_end(), u64::MAX));
        pieces.sort_unstable();
        let (mut gaps, mut end) = (Vec::new(), 0);
        for piece in pieces {
            if piece.0.saturating_sub(end) >= self.shape.stride() {
                gaps.push((end, piece.0));
            }
            end = end.max(piece.1);
        }
        gaps
    }

    fn hold_something(&self, gaps: &[Piece]) -> Result<bool> {
        for (at, end) in gaps {
            if !self.store.is_zero_at(HostOffset(*at), end - at)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Blocks that were discarded leave such space, and an entry that was damaged as well.
    fn note_unnamed(&mut self, bytes: u64) {
        if bytes > 0 {
            let count = bytes / self.shape.stride();
            let text = format!(
                "{bytes} bytes of the file, room for {count} blocks, are named by no entry: they \
                 were freed, or their entries are lost"
            );
            let at = self.shape.table;
            self.tell(Finding::new(Severity::Note, "space-unnamed", at, text));
        }
    }

    /// Tells what is wrong with a block, which may be mended or not.
    fn fault(&mut self, block: Named, fault: Fault, may_be_mended: bool) -> Result<()> {
        let (kind, what, remedy) = match fault {
            Fault::BehindEnd => ("block-behind-end", "the file ends before it does", LOST),
            Fault::OnMetadata => ("block-on-metadata", "it lies on metadata", LOST),
            Fault::Shared => ("block-shared", "it lies on another block", COPIED),
        };
        let remedy = may_be_mended.then_some(remedy);
        let mends = self.repair && may_be_mended;
        if mends {
            limit("damage to be repaired, in entries", self.faults.len() as u64, MOST_FAULTS)?;
            self.faults.push((block, fault));
        }
        let (sector, number) = block;
        let text = format!("block {number} of the disk is at sector {sector}: {what}");
        let at = self.entry_at(number);
        let mut finding = Finding::new(Severity::Corruption, kind, at, text);
        finding.remedy = remedy.map(Into::into);
        finding.repaired = mends;
        let start = u64::from(number).saturating_mul(self.shape.block);
        let range = GuestRange::new(GuestOffset(start), self.shape.block);
        self.tell(match range {
            Some(range) => finding.costing(range.before(GuestOffset(self.shape.size))),
            None => finding,
        });
        Ok(())
    }

    fn entry_at(&self, number: u32) -> HostOffset {
        self.shape.table.saturating_add(u64::from(number) * ENTRY)
    }

    /// The copy of the footer first; entries that name nothing; copies of blocks, whole and behind a
    /// footer's place; then the entries that name them: each durable before the next.
    fn mend(&self) -> Result<()> {
        let is_whole = self.parts.found != Found::Start && self.parts.has_copy;
        if self.faults.is_empty() && is_whole {
            return Ok(());
        }
        if !self.parts.has_copy {
            // It serves while copies of blocks lie where the footer was.
            self.store.write_at(HostOffset::ZERO, self.parts.footer.raw.as_bytes())?;
            self.store.flush()?;
        }
        // Copies go to where the file ends, which no entry may name any more.
        let mut lost = self.faults.iter().filter(|(_, fault)| *fault != Fault::Shared);
        lost.try_for_each(|((_, number), _)| self.put(*number, ABSENT))?;
        self.store.flush()?;
        let shared = || self.faults.iter().filter(|(_, fault)| *fault == Fault::Shared);
        let first = self.first_copy();
        let place = |index: u64| HostOffset(first + index * self.shape.stride());
        for ((block, _), index) in shared().zip(0..) {
            self.copy_block(HostOffset(u64::from(block.0) * SECTOR), place(index))?;
        }
        let end = place(shared().count() as u64);
        limit("size of the file in bytes", end.get(), u64::from(ABSENT) * SECTOR)?;
        if end.get() > first || self.parts.found == Found::Start {
            self.store.write_at(end, self.parts.footer.raw.as_bytes())?;
        }
        self.store.flush()?;
        for ((block, _), index) in shared().zip(0..) {
            let sector = u32::try_from(place(index).get() / SECTOR).unwrap_or(ABSENT);
            self.put(block.1, sector)?;
        }
        Ok(self.store.flush()?)
    }

    /// Where copies go: over the footer that ends the file, or behind all there is.
    fn first_copy(&self) -> u64 {
        match self.parts.found {
            Found::End(at) => at.get().next_multiple_of(SECTOR),
            Found::Start => self.parts.len.next_multiple_of(SECTOR),
        }
    }

    fn copy_block(&self, from: HostOffset, to: HostOffset) -> Result<()> {
        let mut done = 0;
        while done < self.shape.stride() {
            let len = (self.shape.stride() - done).min(1 << 20);
            let mut bytes = vec![0; usize::try_from(len).expect("1 MiB at most")];
            self.store.read_padded_at(from.saturating_add(done), &mut bytes)?;
            self.store.write_at(to.saturating_add(done), &bytes)?;
            done += len;
        }
        Ok(())
    }

    fn put(&self, number: u32, sector: u32) -> Result<()> {
        Ok(self.store.write_at(self.entry_at(number), &sector.to_be_bytes())?)
    }
}
