//! The block allocation table: what its entries name, and what nothing names.

use std::sync::Arc;

use anydisk_core::{
    Finding, GuestOffset, GuestRange, HostOffset, Repair, Result, Severity, Storage, StorageExt,
    can_be_leaked_blocks,
};
use anydisk_storage::Identity;

use super::Check;
use super::mend::{Change, Mend};
use crate::guard::{for_each_entry, metadata as metadata_of};
use crate::layout::MIB;
use crate::metadata::Metadata;
use crate::occupied::Occupied;
use crate::table::{ENTRY, Shape, Slot, Use, ZERO};

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BehindEnd,
    Cut,
    OnMetadata,
    Shared,
    State,
    /// So many blocks of the chunk have sectors here, and it has no bitmap.
    NoBitmap(u64),
    /// A bitmap of a disk that has none.
    NotNeeded,
    /// A place, and the entry says that nothing is there.
    PlaceAlone,
    Reserved,
}

/// Entries that were looked at, from the first one on.
struct Pass<'a> {
    shape: &'a Shape,
    /// Headers, regions, log.
    metadata: Occupied,
    /// What good entries name.
    named: Occupied,
    /// Places that say nothing.
    kept: Occupied,
    explained: u64,
    /// Blocks of this chunk some sectors of which are here.
    partial: u64,
    faults: u64,
    /// Those whose data may be somewhere else in the file.
    lost: u64,
    /// Blocks and bitmaps behind the end of the file.
    blocks_behind: u64,
    bitmaps_behind: u64,
}

/// What may be mended, of all that can.
#[derive(Clone, Copy, Debug)]
struct Leave {
    /// Entries whose data may be somewhere else.
    lost: bool,
    /// What makes the file longer: no entry stays that names a place behind its end.
    longer: bool,
}

impl<'a> Pass<'a> {
    fn new(shape: &'a Shape) -> Result<Self> {
        let (metadata, len) = (metadata_of(shape)?, shape.end.get());
        let (named, kept) = (Occupied::new(len)?, Occupied::new(len)?);
        Ok(Self {
            shape,
            metadata,
            named,
            kept,
            explained: 0,
            partial: 0,
            faults: 0,
            lost: 0,
            blocks_behind: 0,
            bitmaps_behind: 0,
        })
    }

    /// What is wrong with the next entry.
    fn look(&mut self, slot: Slot, entry: u64) -> impl Iterator<Item = Fault> + use<> {
        let usage = self.shape.use_of(slot, entry);
        let fault = self.fault_of(slot, entry, usage);
        self.explained += self.shape.explains(slot, entry);
        let mut second = None;
        match slot {
            Slot::Block(_) => self.partial += u64::from(self.shape.is_partial(slot, entry)),
            Slot::Bitmap(_) => {
                let partial = std::mem::take(&mut self.partial);
                let is_missing = partial > 0 && matches!(usage, Use::None | Use::Kept(_));
                second = is_missing.then_some(Fault::NoBitmap(partial));
            }
        }
        let faults = fault.into_iter().chain(second);
        self.faults += faults.clone().count() as u64;
        self.lost += u64::from(fault.is_some_and(Fault::may_be_elsewhere));
        let behind = match slot {
            Slot::Block(_) => &mut self.blocks_behind,
            Slot::Bitmap(_) => &mut self.bitmaps_behind,
        };
        *behind += u64::from(fault == Some(Fault::BehindEnd));
        faults
    }

    fn fault_of(&mut self, slot: Slot, entry: u64, usage: Use) -> Option<Fault> {
        let (shape, len) = (self.shape, self.shape.len_of(slot));
        let is_needless = !shape.has_parent && matches!(slot, Slot::Bitmap(_)) && entry != 0;
        let reserved = has_reserved(entry).then_some(Fault::Reserved);
        match usage {
            Use::Unknown => Some(Fault::State),
            Use::None if is_needless => Some(Fault::NotNeeded),
            Use::None => reserved,
            Use::Kept(at) => {
                self.kept.take(at, len);
                match (slot, entry & 7) {
                    _ if is_needless => Some(Fault::NotNeeded),
                    // What was given up may keep its place.
                    (Slot::Block(_), 1 | 3) => reserved,
                    _ => Some(Fault::PlaceAlone),
                }
            }
            Use::Held(at) if at >= shape.end => Some(Fault::BehindEnd),
            Use::Held(at) if !self.metadata.is_free(at, len) => Some(Fault::OnMetadata),
            Use::Held(at) if !self.named.take(at, len) => Some(Fault::Shared),
            Use::Held(at) if at.saturating_add(shape.needed(slot)) > shape.end => Some(Fault::Cut),
            Use::Held(_) => reserved,
        }
    }

    /// All that is in use or kept.
    fn occupied(&self) -> Occupied {
        let mut all = self.metadata.clone();
        all.add(&self.named);
        all.add(&self.kept);
        all
    }
}

impl Fault {
    fn may_be_elsewhere(self) -> bool {
        matches!(self, Self::BehindEnd | Self::OnMetadata | Self::NotNeeded)
    }

    fn severity(self) -> Severity {
        match self {
            Self::NotNeeded | Self::PlaceAlone | Self::Reserved => Severity::Note,
            _ => Severity::Corruption,
        }
    }

    /// Its kind, and what is wrong.
    fn told(self, slot: Slot) -> (&'static str, String) {
        let is_block = matches!(slot, Slot::Block(_));
        let (block, bitmap) = match self {
            Self::BehindEnd => ("block-behind-end", "bitmap-behind-end"),
            Self::Cut => ("block-cut", "bitmap-cut"),
            Self::OnMetadata => ("block-on-metadata", "bitmap-on-metadata"),
            Self::Shared => ("block-shared", "bitmap-shared"),
            Self::State => ("entry-state", "entry-state"),
            Self::NoBitmap(_) => ("bitmap-missing", "bitmap-missing"),
            Self::NotNeeded => ("bitmap-without-parent", "bitmap-without-parent"),
            Self::PlaceAlone => ("place-without-block", "place-without-block"),
            Self::Reserved => ("entry-reserved-bits", "entry-reserved-bits"),
        };
        let what = match self {
            Self::BehindEnd => "the file ends before it".to_owned(),
            Self::Cut => "the file ends in it".to_owned(),
            Self::OnMetadata => "it lies on a header, a region or the log".to_owned(),
            Self::Shared => "it lies on what another entry names".to_owned(),
            Self::State => "there is no such state here".to_owned(),
            Self::NoBitmap(count) => {
                format!("{count} blocks are here in part, and which part is not told")
            }
            Self::NotNeeded => "a disk without a parent has none".to_owned(),
            Self::PlaceAlone => "it says that nothing is there".to_owned(),
            Self::Reserved => "reserved bits are set".to_owned(),
        };
        (if is_block { block } else { bitmap }, what)
    }

    /// What a repair does about it.
    fn change(self, slot: Slot, entry: u64, leave: Leave) -> Option<(Change, &'static str)> {
        let is_block = matches!(slot, Slot::Block(_));
        match self {
            Self::BehindEnd | Self::OnMetadata if is_block && leave.lost => {
                Some((Change::Entry(ZERO), "the block is made zero: its data is lost"))
            }
            Self::Cut if is_block && leave.longer => {
                Some((Change::Fill, "the file is filled up with zeroes"))
            }
            Self::Shared if leave.longer => Some((Change::Copy, "it gets a copy of its own")),
            Self::NotNeeded if leave.lost => Some((Change::Entry(0), "the entry is cleared")),
            Self::Reserved => {
                let kept = entry & !(MIB - 1) | entry & 7;
                Some((Change::Entry(kept), "the bits are cleared"))
            }
            _ => None,
        }
    }
}

/// Whether bits between state and place are set.
fn has_reserved(entry: u64) -> bool {
    entry & (MIB - 1) & !7 != 0
}

impl Check<'_> {
    pub(super) fn look_at_entries(&mut self, metadata: &Metadata, shape: &Shape) -> Result<()> {
        let mut pass = Pass::new(shape)?;
        let all = shape.entries() * ENTRY;
        let store = Arc::clone(&self.store);
        for_each_entry(shape, &*store, |number, entry| {
            if number.is_multiple_of(128 << 10) {
                self.go_on(number * ENTRY, all)?;
            }
            let _ = pass.look(shape.slot(number), entry);
            Ok(())
        })?;
        let occupied = pass.occupied();
        let mut mend = Mend::new(shape);
        if pass.faults > 0 {
            let lost = pass.lost == 0 || !is_left_over(&*store, &occupied)?;
            let longer = pass.bitmaps_behind == 0 && (lost || pass.blocks_behind == 0);
            self.tell_faults(shape, Leave { lost, longer }, &mut mend)?;
        }
        if self.mends() {
            self.mend(shape, &mend)?;
        }
        let first = pass.named.first();
        self.look_at_space(metadata, shape, (&occupied, first), pass.explained)
    }

    /// Tells of each fault, now that it is known what is left over.
    fn tell_faults(&mut self, shape: &Shape, leave: Leave, mend: &mut Mend) -> Result<()> {
        let mut pass = Pass::new(shape)?;
        let store = Arc::clone(&self.store);
        for_each_entry(shape, &*store, |number, entry| {
            let slot = shape.slot(number);
            for fault in pass.look(slot, entry) {
                self.has_doubt |= fault.severity() != Severity::Note;
                let change = fault.change(slot, entry, leave);
                let mends = self.mends() && change.is_some();
                if let Some((change, _)) = change.filter(|_| mends) {
                    mend.push(number, entry, change)?;
                }
                let mut finding = finding(shape, number, entry, fault);
                finding.remedy = change.map(|(_, remedy)| remedy.into());
                finding.repaired = mends;
                self.tell(finding);
            }
            Ok(())
        })
    }

    /// Space that no entry names, and a table that names too little.
    fn look_at_space(
        &mut self,
        metadata: &Metadata,
        shape: &Shape,
        (occupied, first): (&Occupied, Option<HostOffset>),
        explained: u64,
    ) -> Result<()> {
        let unnamed = occupied.free();
        let can_be_leaks = can_be_leaked_blocks(unnamed, explained, shape.block);
        if !can_be_leaks && is_left_over(&*self.store, occupied)? {
            let text = format!(
                "{unnamed} bytes of the file are named by no entry of the table: it may be damaged"
            );
            let finding = Finding::new(Severity::Corruption, "table-lost", shape.table, text);
            self.tell(finding.costing(GuestRange::whole(shape.size)));
            return Ok(());
        }
        let end = occupied.end();
        let behind = shape.end.get().saturating_sub(end.get());
        // A device ends where it ends, and qemu leaves room before the first block.
        let is_room = matches!(self.file.identity(), Some(Identity::Device(_)))
            || first.is_none() && self.store.is_zero_at(end, behind)?;
        let leaks = if metadata.is_fixed || is_room { 0 } else { behind / shape.block };
        if leaks > 0 {
            self.tell_leaks(end, behind, leaks)?;
        }
        // What lies before the first block is left there by qemu, and was never one.
        let first = first.filter(|_| !metadata.is_fixed).unwrap_or(end);
        let is_between =
            |(at, len): &(HostOffset, u64)| (first..end).contains(at) && *len >= shape.block;
        let between: u64 = occupied.gaps().filter(is_between).map(|(_, len)| len).sum();
        if between > 0 {
            let text = format!(
                "{between} bytes between blocks are named by no entry: they are used for new blocks"
            );
            self.note("space-unnamed", shape.table, text);
        }
        Ok(())
    }

    /// Cuts off what nothing names at the end of the file, where nothing is wrong, nor was until now,
    /// and where nothing is lost by that: an entry of zeroes is a sound one.
    fn tell_leaks(&mut self, end: HostOffset, bytes: u64, leaks: u64) -> Result<()> {
        let holds_data = !self.store.is_zero_at(end, bytes)?;
        let mends = self.repair != Repair::Nothing && !self.has_doubt && !holds_data;
        let mut text = format!("{bytes} bytes at the end of the file are named by no entry");
        if holds_data {
            text += "; they hold data, which may have lost its entry, and are kept";
        }
        let mut finding = Finding::new(Severity::Leak, "space-unnamed", end, text);
        if !holds_data {
            finding = finding.mended_by("they are cut off");
        }
        finding.repaired = mends;
        self.tell(finding);
        // Told once, counted each.
        let count = if mends { &mut self.report.leaks_fixed } else { &mut self.report.leaks };
        *count += leaks - 1;
        if mends {
            self.file.set_len(end.get())?;
            self.file.flush()?;
        }
        Ok(())
    }
}

fn finding(shape: &Shape, number: u64, entry: u64, fault: Fault) -> Finding {
    let slot = shape.slot(number);
    let (kind, what) = fault.told(slot);
    let (name, start, len) = match slot {
        Slot::Block(block) => (format!("block {block}"), block * shape.block, shape.block),
        Slot::Bitmap(chunk) => {
            let len = shape.ratio * shape.block;
            (format!("the bitmap of chunk {chunk}"), chunk * len, len)
        }
    };
    let at = shape.table.saturating_add(number * ENTRY);
    let text = format!("the entry of {name} is {entry:#x}: {what}");
    let finding = Finding::new(fault.severity(), kind, at, text);
    let disk = GuestOffset(shape.size);
    let range = GuestRange::new(GuestOffset(start), len).map(|range| range.before(disk));
    match range.filter(|range| !range.is_empty()) {
        Some(range) => finding.costing(range),
        None => finding,
    }
}

/// Whether there is space without a name that holds something.
fn is_left_over(store: &dyn Storage, occupied: &Occupied) -> Result<bool> {
    for (at, len) in occupied.gaps() {
        if !store.is_zero_at(at, len)? {
            return Ok(true);
        }
    }
    Ok(false)
}
