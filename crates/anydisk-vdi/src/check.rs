//! Looking for damage in an image, which need not be one that opens, and repairing it.
//!
//! An entry names a block that is counted, in the file, and nobody else's. What is not so can be
//! mended without touching good data:
//!
//! | finding | repair |
//! |---|---|
//! | `block-behind-end`: the file ends before the block | the data is lost: a zero block; not if it may be there |
//! | `block-used-twice` | the second one gets a copy; not beside an entry that stays behind the end |
//! | `block-not-counted`: cBlocksAllocated is too low | it is raised; not if the file ends in the block and its data may be elsewhere |
//! | `block-cut`: the file ends in the block | the file is filled up with zeroes |
//! | `block-unnamed`: nothing names the block | if none of them holds data: the last blocks move into the gaps, the file is cut |
//! | `map-lost`: nothing names most blocks, and they hold data | |
//! | `entry-behind-end`: for a block behind the end of the disk | |
//! | `header-field`: entries behind the end of the disk, and all of them wrong: the map is not that long | cBlocks becomes what the disk needs |
//! | `header-field`: a field of the header is [suspect](crate::suspect) | nothing at all is repaired |
//!
//! The data of an entry may be elsewhere where a block that nothing names holds some: the entry may have been
//! damaged, and have named that one.
//!
//! What entries behind the end of the disk name no guest can reach: it is neither copied nor given up.
//!
//! Blocks are given back only where nothing else is wrong, nor was until this repair, and what holds data
//! never is: an entry that was damaged may have named it. Compacting the image drops it.

use std::ops::Range;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Error, Finding, GuestOffset, GuestRange, HostOffset,
    NamedBlocks, OpenRequest, Repair, Result, Severity, Storage, StorageExt,
};

use crate::guard::{for_each_entry, lacks_few, read_only};
use crate::header::{Header, Kind, Version, limit};
use crate::image::{VdiImage, header_bytes};
use crate::layout::{ENTRY, FREE, HeaderV1, SECTOR, ZERO};
use crate::limits;
use crate::state::{BLOCKS, HeaderState};
use crate::suspect;

/// An entry that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BehindEnd,
    UsedTwice,
    NotCounted,
    Cut,
    /// Not counted, and cut.
    Doubtful,
}

impl Fault {
    /// The data may be somewhere else in the file.
    fn may_be_elsewhere(self) -> bool {
        matches!(self, Self::BehindEnd | Self::Doubtful)
    }
}

/// What is known of an image while it is checked.
struct Check<'a> {
    header: &'a Header,
    store: &'a dyn Storage,
    len: u64,
    /// Blocks that begin in the file.
    in_file: u64,
    /// Entries that the disk needs: others are for what lies behind its end.
    needed: u64,
    repair: bool,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
}

/// What the map says, all in all.
struct Looked {
    /// Which blocks it names.
    named: NamedBlocks,
    /// Entries that are wrong.
    faults: u64,
    /// Of these, those that a higher count of blocks does not mend.
    breaks: u64,
    /// Of these, those whose data may be somewhere else in the file.
    lost: u64,
    /// Entries behind the end of the disk that name a block of their own, and the wrong ones there.
    behind: u64,
    behind_wrong: u64,
}

/// The check of the format.
///
/// # Errors
/// What the header says where it cannot be trusted, and those of the store.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let store = &*request.open.store;
    if request.repair != Repair::Nothing && !store.is_writable() {
        return Err(read_only("its file was opened for reading"));
    }
    let mut bytes = header_bytes(store)?;
    let len = store.len()?;
    let header = Header::parse(&bytes, len)?;
    bytes.truncate(header.len);
    limit("number of blocks of a disk to be checked", header.blocks, limits::BLOCKS)?;
    let repair = request.repair == Repair::All;
    let in_file = header.blocks_in(len);
    let report = CheckReport::default();
    let needed = header.size.div_ceil(header.block);
    let mut check = Check { header: &header, store, len, in_file, needed, repair, report, found };
    check.note_size(&bytes);
    let looked = check.look(request.progress)?;
    let state = HeaderState::new(bytes, &header, true);
    check.judge_header(&looked, &state)?;
    let counted = check.tell_and_mend(&looked, &state)?;
    check.note_entries_behind_end(&looked);
    check.note_oddities();
    check.leaks(&looked.named, counted, request)?;
    Ok(check.report)
}

impl Check<'_> {
    fn tell(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }

    /// VirtualBox takes the whole sectors.
    fn note_size(&mut self, bytes: &[u8]) {
        let at = HostOffset(self.header.size_at() as u64);
        let raw = usize::try_from(at.get()).ok().and_then(|at| bytes.get(at..)?.first_chunk());
        let raw = raw.map_or(0, |raw| u64::from_le_bytes(*raw));
        if !raw.is_multiple_of(SECTOR) {
            let text = format!("the disk has {raw} bytes, which are no whole sectors");
            self.tell(Finding::new(Severity::Note, "size-not-in-sectors", at, text));
        }
    }

    /// What no program writes, and what reads in spite of it.
    fn note_oddities(&mut self) {
        let (header, is_new) = (self.header, self.header.version == Version::One);
        if is_new && !header.table.get().is_multiple_of(SECTOR) {
            let at = HostOffset(std::mem::offset_of!(HeaderV1, offBlocks) as u64);
            let text = format!(
                "offBlocks is {}, in the middle of a sector: it may be wrong",
                header.table
            );
            self.tell(Finding::new(Severity::Note, "map-not-in-sectors", at, text));
        }
        if is_new && header.kind == Kind::Normal && !header.uuids.linkage.is_nil() {
            let at = HostOffset(std::mem::offset_of!(HeaderV1, uuidLinkage) as u64);
            let parent = header.uuids.linkage;
            let text =
                format!("an image of type 1, which has no parent, names {parent} as its parent");
            self.tell(Finding::new(Severity::Note, "type-and-parent", at, text));
        }
    }

    /// The map may be longer than the disk. What it names there is kept: the size may be wrong.
    fn note_entries_behind_end(&mut self, looked: &Looked) {
        let first = self.header.table.saturating_add(self.needed * ENTRY);
        if looked.behind > 0 {
            let (count, size) = (looked.behind, self.header.size);
            let text =
                format!("the map names {count} blocks behind the end of the disk at {size:#x}");
            self.tell(Finding::new(Severity::Note, "entry-behind-end", first, text));
        }
    }

    /// Looks at every entry, and tells nothing.
    fn look(&self, progress: Option<&(dyn Fn(u64, u64) -> bool + Sync)>) -> Result<Looked> {
        let named = NamedBlocks::new(self.in_file.min(limits::BLOCKS));
        let mut looked =
            Looked { named, faults: 0, breaks: 0, lost: 0, behind: 0, behind_wrong: 0 };
        let (table, blocks) = (self.header.table, self.header.blocks);
        let total = blocks * ENTRY;
        for_each_entry(table, blocks, self.store, |at, entry| {
            let done = at.get() - table.get();
            if done.is_multiple_of(1 << 20) && progress.is_some_and(|go_on| !go_on(done, total)) {
                return Err(Error::Cancelled);
            }
            if matches!(entry, FREE | ZERO) {
                return Ok(());
            }
            match (self.fault_of(entry, &mut looked.named), done / ENTRY < self.needed) {
                (None, true) => {}
                (None, false) => looked.behind += 1,
                (Some(_), false) => looked.behind_wrong += 1,
                (Some(fault), true) => {
                    looked.faults += 1;
                    looked.breaks += u64::from(fault != Fault::NotCounted);
                    looked.lost += u64::from(fault.may_be_elsewhere());
                }
            }
            Ok(())
        })?;
        Ok(looked)
    }

    /// Tells of a field of the header that the rest contradicts. Then nothing is repaired but that field,
    /// where it is known.
    fn judge_header(&mut self, looked: &Looked, state: &HeaderState) -> Result<()> {
        if looked.breaks > 0
            && let Some(suspect) = suspect::field(self.header, self.store, self.len)?
        {
            self.repair = false;
            let finding =
                Finding::new(Severity::Corruption, "header-field", suspect.at, suspect.why);
            self.tell(finding.costing(GuestRange::whole(self.header.size)));
        }
        if looked.behind_wrong > 0 {
            self.tell_long_map(looked, state)?;
        }
        Ok(())
    }

    /// Tells of a map that goes on behind the end of the disk with entries that are wrong. If all of them are,
    /// it is not that long.
    fn tell_long_map(&mut self, looked: &Looked, state: &HeaderState) -> Result<()> {
        let (blocks, needed, wrong) = (self.header.blocks, self.needed, looked.behind_wrong);
        let text = format!(
            "cBlocks is {blocks}, the disk has {needed} blocks, and {wrong} entries behind them name \
             blocks that others name, or that are not there"
        );
        let at = HostOffset(BLOCKS.at(self.header.version).unwrap_or_default() as u64);
        let mut finding = Finding::new(Severity::Corruption, "header-field", at, text);
        if looked.behind == 0 && self.header.version == Version::One {
            finding = finding.mended_by(format!("cBlocks becomes {needed}"));
            if self.repair {
                state.set_blocks(needed, self.store)?;
                self.store.flush()?;
                finding.repaired = true;
            }
        }
        self.repair &= finding.repaired;
        self.tell(finding);
        Ok(())
    }

    /// Tells of the entries that are wrong, and mends them. Returns how many blocks are counted then.
    fn tell_and_mend(&mut self, looked: &Looked, state: &HeaderState) -> Result<u64> {
        let counted = self.header.allocated.min(self.in_file.min(limits::BLOCKS));
        if looked.faults == 0 {
            return Ok(counted);
        }
        if self.repair {
            limit("damage to be repaired, in entries", looked.faults, MOST_FAULTS)?;
        }
        let stays = looked.lost > 0 && !self.gaps_with_data(&looked.named, counted)?.is_empty();
        let mut named = NamedBlocks::new(self.in_file.min(limits::BLOCKS));
        let mut faults = Vec::new();
        let (table, needed) = (self.header.table, self.needed.min(self.header.blocks));
        for_each_entry(table, needed, self.store, |at, entry| {
            if let Some(fault) = self.fault_of(entry, &mut named) {
                // A copy would lie where an entry leads that stays.
                let may_be_mended = !stays || matches!(fault, Fault::NotCounted | Fault::Cut);
                if self.repair && may_be_mended {
                    faults.push((at, fault));
                }
                let finding = self.finding(at, entry, fault, may_be_mended);
                self.tell(finding);
            }
            Ok(())
        })?;
        if faults.is_empty() {
            return Ok(counted);
        }
        self.mend(state, &faults)?;
        // All that are in the file are, and nothing may name some of them.
        Ok(self.in_file.min(limits::BLOCKS))
    }

    fn fault_of(&self, entry: u32, named: &mut NamedBlocks) -> Option<Fault> {
        if matches!(entry, FREE | ZERO) {
            return None;
        }
        let number = u64::from(entry);
        if number >= self.in_file.min(limits::BLOCKS) {
            return Some(Fault::BehindEnd);
        }
        if !named.insert(number) {
            return Some(Fault::UsedTwice);
        }
        let is_cut = self.header.block_at(number + 1).get() > self.len;
        match (number >= self.header.allocated, is_cut) {
            (true, true) => Some(Fault::Doubtful),
            (true, false) => Some(Fault::NotCounted),
            (false, true) => Some(Fault::Cut),
            (false, false) => None,
        }
    }

    fn finding(&self, at: HostOffset, entry: u32, fault: Fault, may_be_mended: bool) -> Finding {
        let guest = (at.get() - self.header.table.get()) / ENTRY;
        let (kind, what, remedy) = match fault {
            Fault::BehindEnd => (
                "block-behind-end",
                "the file ends before it".to_owned(),
                "the block is made zero: its data is lost",
            ),
            Fault::UsedTwice => (
                "block-used-twice",
                "another entry names it too".to_owned(),
                "it gets a copy of its own",
            ),
            Fault::NotCounted => (
                "block-not-counted",
                format!("only {} blocks are counted", self.header.allocated),
                "it is counted",
            ),
            Fault::Doubtful => (
                "block-not-counted",
                format!(
                    "only {} blocks are counted, and the file ends in it, at {:#x}",
                    self.header.allocated, self.len
                ),
                "it is counted, and the file is filled up with zeroes",
            ),
            Fault::Cut => (
                "block-cut",
                format!("the file ends in it, at {:#x}", self.len),
                "the file is filled up with zeroes",
            ),
        };
        let text = format!("block {guest} of the disk is block {entry} of the file: {what}");
        let mut finding = Finding::new(Severity::Corruption, kind, at, text);
        if may_be_mended {
            finding = finding.mended_by(remedy);
            finding.repaired = self.repair;
        }
        let start = guest.saturating_mul(self.header.block);
        match GuestRange::new(GuestOffset(start), self.header.block) {
            Some(range) => finding.costing(range.before(GuestOffset(self.header.size))),
            None => finding,
        }
    }

    /// Mends the entries that are wrong, each step durable before the next.
    fn mend(&self, state: &HeaderState, faults: &[(HostOffset, Fault)]) -> Result<()> {
        let copies = faults.iter().filter(|(_, fault)| *fault == Fault::UsedTwice);
        // What is counted behind them is not there.
        let first_copy = self.in_file;
        let count = first_copy + copies.clone().count() as u64;
        limit("number of blocks in the file", count, limits::ENTRIES)?;
        // Copies go to where the file ends, which no entry may name any more.
        let mut lost = faults.iter().filter(|(_, fault)| *fault == Fault::BehindEnd);
        lost.try_for_each(|(at, _)| self.put(*at, ZERO))?;
        self.store.flush()?;
        // The blocks first, whole and counted, then the entries that name them.
        self.store.set_len(self.header.block_at(count).get().max(self.len))?;
        for (number, (at, _)) in (first_copy..).zip(copies.clone()) {
            self.copy_block(self.entry(*at)?.into(), number)?;
        }
        state.set_allocated(count, self.store)?;
        self.store.flush()?;
        for (number, (at, _)) in (first_copy..).zip(copies) {
            self.put(*at, u32::try_from(number).unwrap_or(ZERO))?;
        }
        Ok(self.store.flush()?)
    }

    /// Blocks that nothing names: counted, and with a repair given back.
    fn leaks(&mut self, named: &NamedBlocks, count: u64, request: &CheckRequest<'_>) -> Result<()> {
        let with_data = self.gaps_with_data(named, count)?;
        if !with_data.is_empty() && self.tell_lost_map(named, count) {
            return Ok(());
        }
        let damages = self.report.corruptions + self.report.corruptions_fixed;
        let mends = request.repair != Repair::Nothing && damages == 0 && with_data.is_empty();
        let gaps = if mends { self.give_back(request)? } else { false };
        for run in named.gaps(count) {
            let leaks = if gaps { &mut self.report.leaks_fixed } else { &mut self.report.leaks };
            *leaks += run.end - run.start - 1; // One is counted with the finding.
            let mut finding = self.unnamed(&run, with_data.binary_search(&run.start).is_ok());
            finding.repaired = gaps;
            self.tell(finding);
        }
        if self.header.allocated > self.in_file && !gaps {
            let text = format!(
                "{} blocks are counted, and the file ends after {}",
                self.header.allocated, self.in_file
            );
            let at = HostOffset(self.header.allocated_at() as u64);
            self.tell(Finding::new(Severity::Note, "count-too-high", at, text));
        }
        Ok(())
    }

    /// The first blocks of the runs that nothing names and that hold data.
    fn gaps_with_data(&self, named: &NamedBlocks, count: u64) -> Result<Vec<u64>> {
        let mut with_data = Vec::new();
        for run in named.gaps(count) {
            let len = (run.end - run.start).saturating_mul(self.header.stride());
            if !self.store.is_zero_at(self.header.block_at(run.start), len)? {
                with_data.push(run.start);
            }
        }
        Ok(with_data)
    }

    fn unnamed(&self, run: &Range<u64>, is_data: bool) -> Finding {
        let (first, last) = (run.start, run.end - 1);
        let mut text = if first == last {
            format!("block {first} of the file is counted, and nothing names it")
        } else {
            format!("blocks {first} to {last} of the file are counted, and nothing names them")
        };
        let at = self.header.block_at(first);
        if is_data {
            text.push_str("; there is data: it is kept until the image is compacted");
            return Finding::new(Severity::Leak, "block-unnamed", at, text);
        }
        let remedy = "the last blocks take their places, if nothing is damaged";
        Finding::new(Severity::Leak, "block-unnamed", at, text).mended_by(remedy)
    }

    /// Tells of more blocks without a name than a crash leaves: the map may be lost.
    fn tell_lost_map(&mut self, named: &NamedBlocks, counted: u64) -> bool {
        if lacks_few(named, counted, self.header) {
            return false;
        }
        let unnamed: u64 = named.gaps(counted).map(|run| run.end - run.start).sum();
        let rest = counted - unnamed;
        let text =
            format!("{counted} blocks are counted, and the map names {rest}: it may be damaged");
        let at = self.header.table;
        let finding = Finding::new(Severity::Corruption, "map-lost", at, text);
        self.tell(finding.costing(GuestRange::whole(self.header.size)));
        true
    }

    /// Closes the gaps of an image that is good otherwise.
    fn give_back(&self, request: &CheckRequest<'_>) -> Result<bool> {
        let open = OpenRequest { access: Access::ReadWrite, ..request.open.clone() };
        let image = VdiImage::open(&open)?;
        image.close_all_gaps()?;
        Ok(true)
    }

    fn copy_block(&self, from: u64, to: u64) -> Result<()> {
        let mut done = 0;
        while done < self.header.stride() {
            let len = (self.header.stride() - done).min(1 << 20);
            let mut bytes = vec![0; usize::try_from(len).expect("1 MiB at most")];
            let from = self.header.block_at(from).saturating_add(done);
            self.store.read_padded_at(from, &mut bytes)?;
            self.store.write_at(self.header.block_at(to).saturating_add(done), &bytes)?;
            done += len;
        }
        Ok(())
    }

    fn entry(&self, at: HostOffset) -> Result<u32> {
        let mut bytes = [0; 4];
        self.store.read_exact_at(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn put(&self, at: HostOffset, entry: u32) -> Result<()> {
        Ok(self.store.write_at(at, &entry.to_le_bytes())?)
    }
}

/// Entries that one repair mends: they are kept in memory, and copies take space.
const MOST_FAULTS: u64 = 1 << 20;
