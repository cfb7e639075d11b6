//! Looking for damage in an image, which need not be one that opens, and repairing it.
//!
//! An entry names a cluster that is in the file, where a cluster can be, and nobody else's. What is not
//! so is mended without touching good data:
//!
//! | finding | repair |
//! |---|---|
//! | `data-off-wrong` | it is set to where the clusters begin |
//! | `extension-damaged`: the format extension cannot be read | the image gives it up |
//! | `cluster-behind-end`: the file ends before it | if nothing is left over that was meant: it is zero |
//! | `cluster-in-metadata`: it would lie before the clusters | the same |
//! | `cluster-misplaced`: no cluster begins there | it gets a copy of its own |
//! | `cluster-used-twice` | the second one gets a copy |
//! | `not-closed`: the mark is still there | if all else is good: it is taken back |
//! | `cluster-unnamed`: nothing names it | at the end of the file, without data: it is cut off |
//! | `table-lost`: nothing names most clusters, and they hold data | |
//! | `cluster-cut`: the file ends in the cluster, which goes on with zeroes | |
//! | `entry-behind-end`: for a cluster behind the end of the disk | |
//!
//! No copies are made where an entry stays that names a place behind the end of the file: they go there.
//!
//! The file is made shorter only where nothing else is wrong, nor was until this repair, and what holds
//! data stays: an entry that was damaged may have named it.

mod mend;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, GuestOffset, GuestRange, HostOffset, NamedBlocks,
    Repair, Result, Severity, Storage, StorageExt, can_be_leaked_blocks, for_each_written_entry,
};

use crate::extension::{self, Extension};
use crate::guard::read_only;
use crate::header::{Header, TABLE, limit};
use crate::image::header_bytes;
use crate::layout::ENTRY;
use crate::limits;
use crate::table::Entries;
use mend::Mending;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BehindEnd,
    InMetadata,
    Misplaced,
    UsedTwice,
}

impl Fault {
    /// The data is not where the entry says.
    fn is_lost(self) -> bool {
        matches!(self, Self::BehindEnd | Self::InMetadata)
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// The cluster of this number.
    Cluster(u64),
    Wrong(Fault),
}

/// What all entries together say, and what is left over.
#[derive(Debug)]
struct Survey {
    /// Behind the last cluster that something names.
    end: u64,
    /// Runs of clusters that nothing names, of which one holds data.
    with_data: Vec<std::ops::Range<u64>>,
    /// Clusters in them.
    lost: u64,
    /// An entry names a place behind the end of the file.
    has_behind_end: bool,
}

impl Survey {
    /// Whether an entry with this fault can be mended: what is left over may be what was meant.
    fn may_mend(&self, fault: Fault) -> bool {
        self.lost == 0 || !fault.is_lost() && !self.has_behind_end
    }
}

/// What is known of an image while it is checked.
struct Check<'a> {
    header: Header,
    store: &'a dyn Storage,
    len: u64,
    /// Clusters that begin in the file.
    in_file: u64,
    extension: Option<Extension>,
    repair: bool,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
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
    let (bytes, len) = (header_bytes(store)?, store.len()?);
    let mut header = Header::parse(&bytes, len)?;
    if header.wrong_data_off {
        header.first = where_clusters_begin(&header, store)?;
    }
    let in_file = header.clusters_in(len);
    limit("number of clusters in the file", in_file, limits::CLUSTERS)?;
    let repair = request.repair == Repair::All;
    let mut mending = Mending::new(&bytes, &header, store, repair);
    let (extension, report) = (None, CheckReport::default());
    let mut check = Check { header, store, len, in_file, extension, repair, report, found };
    check.data_off(&mut mending)?;
    check.extension(request, &mut mending)?;
    let survey = check.survey()?;
    check.entries(&survey, &mut mending, request)?;
    check.entries_behind_end()?;
    mending.finish(&check.header, check.in_file)?;
    check.leftovers(&survey, request.repair)?;
    check.not_closed(&mending)?;
    Ok(check.report)
}

/// Where the clusters begin in an image whose header does not know: where the first that is named can
/// be the end of a row of others.
fn where_clusters_begin(header: &Header, store: &dyn Storage) -> Result<HostOffset> {
    let entries = Entries::of(header);
    let mut least = None;
    for_each_written_entry(TABLE, header.entries, store, |_, bytes| {
        let place = entries.place(u32::from_le_bytes(bytes));
        if let Some(place) = place.filter(|place| *place >= header.first) {
            least = Some(least.map_or(place, |least: HostOffset| least.min(place)));
        }
        Ok(())
    })?;
    let behind = least.map_or(0, |place| place.get() - header.first.get());
    Ok(header.first.saturating_add(behind % header.cluster))
}

impl Check<'_> {
    fn tell(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }

    fn tell_corruption(&mut self, kind: &'static str, at: u64, text: String, remedy: &'static str) {
        let at = HostOffset(at);
        let mut finding = Finding::new(Severity::Corruption, kind, at, text).mended_by(remedy);
        finding.repaired = self.repair;
        self.tell(finding);
    }

    fn data_off(&mut self, mending: &mut Mending<'_>) -> Result<()> {
        if !self.header.wrong_data_off {
            return Ok(());
        }
        let text = format!("data_off is wrong: clusters begin at {}", self.header.first);
        self.tell_corruption("data-off-wrong", 48, text, "it is set to that");
        mending.set_first(self.header.first)
    }

    fn extension(&mut self, request: &CheckRequest<'_>, mending: &mut Mending<'_>) -> Result<()> {
        match extension::read(&self.header, self.store, self.len, request.open.limits) {
            Ok(extension) => {
                self.extension = extension;
                Ok(())
            }
            Err(error) if matches!(error.kind(), Error::Invalid(_)) => {
                let text = format!("the format extension is damaged: {error}");
                self.tell_corruption("extension-damaged", 56, text, "the image gives it up");
                mending.drop_extension()
            }
            Err(error) => Err(error),
        }
    }

    /// What the entry says, of clusters of which those in `named` are somebody's.
    fn said(&self, place: HostOffset, named: &mut NamedBlocks) -> Said {
        match self.header.number_of(place) {
            _ if place < self.header.first => Said::Wrong(Fault::InMetadata),
            _ if place.get() >= self.len => Said::Wrong(Fault::BehindEnd),
            None => Said::Wrong(Fault::Misplaced),
            Some(number) if named.insert(number) => Said::Cluster(number),
            Some(_) => Said::Wrong(Fault::UsedTwice),
        }
    }

    /// Clusters that belong to the format extension.
    fn of_extension(&self) -> NamedBlocks {
        let mut named = NamedBlocks::new(self.in_file);
        for at in self.extension.iter().flat_map(Extension::clusters) {
            if let Some(number) = self.header.number_of(at).filter(|number| *number < self.in_file)
            {
                named.insert(number);
            }
        }
        named
    }

    /// Looks at all entries before one of them is judged: what is left over decides how.
    fn survey(&mut self) -> Result<Survey> {
        let mut named = self.of_extension();
        let entries = Entries::of(&self.header);
        // Behind the entry before and its cluster: as qemu counts, a gap in the disk is no fragment.
        let (mut allocated, mut fragmented, mut before) = (0, 0, None);
        let (mut end, mut has_behind_end) = (self.header.first.get(), false);
        for_each_written_entry(TABLE, self.header.entries, self.store, |at, bytes| {
            let Some(place) = entries.place(u32::from_le_bytes(bytes)) else { return Ok(()) };
            let said = self.said(place, &mut named);
            has_behind_end |= said == Said::Wrong(Fault::BehindEnd);
            if matches!(said, Said::Wrong(fault) if fault.is_lost()) {
                return Ok(());
            }
            allocated += 1;
            let behind = place.saturating_add(self.header.cluster);
            let is_apart = before.is_some_and(|(entry, end)| entry == at && end != place);
            fragmented += u64::from(is_apart);
            before = Some((at.saturating_add(ENTRY), behind));
            end = end.max(behind.get());
            Ok(())
        })?;
        let of_extension = self.extension.iter().flat_map(Extension::clusters);
        let behind = of_extension.map(|at| at.saturating_add(self.header.cluster).get());
        let end = behind.filter(|behind| *behind <= self.len).fold(end, u64::max);
        self.report.total_clusters = Some(self.header.entries);
        self.report.allocated_clusters = Some(allocated);
        self.report.fragmented_clusters = Some(fragmented);
        self.report.image_end = Some(HostOffset(end));
        let (mut with_data, mut lost) = (Vec::new(), 0);
        for run in named.gaps(self.in_file) {
            let len = (run.end - run.start).saturating_mul(self.header.cluster);
            if !self.store.is_zero_at(self.header.cluster_at(run.start), len)? {
                limit("parts of the file that nothing names", with_data.len() as u64, MOST_FAULTS)?;
                lost += run.end - run.start;
                with_data.push(run);
            }
        }
        Ok(Survey { end, with_data, lost, has_behind_end })
    }

    /// Judges every entry.
    fn entries(
        &mut self,
        survey: &Survey,
        mending: &mut Mending<'_>,
        request: &CheckRequest<'_>,
    ) -> Result<()> {
        let mut named = self.of_extension();
        let (entries, all) = (Entries::of(&self.header), self.header.entries);
        let total = all * ENTRY;
        for_each_written_entry(TABLE, all, self.store, |at, bytes| {
            let done = at.get() - TABLE.get();
            let stops = |go_on: &(dyn Fn(u64, u64) -> bool + Sync)| !go_on(done, total);
            if done.is_multiple_of(1 << 20) && request.progress.is_some_and(stops) {
                return Err(Error::Cancelled);
            }
            let entry = u32::from_le_bytes(bytes);
            let Some(place) = entries.place(entry) else { return Ok(()) };
            match self.said(place, &mut named) {
                Said::Cluster(number) => self.note_cut(at, number),
                Said::Wrong(fault) => {
                    let is_mended = self.repair && survey.may_mend(fault);
                    self.tell_fault(at, entry, fault, is_mended);
                    if is_mended { mending.note(at, place, fault.is_lost()) } else { Ok(()) }
                }
            }
        })
    }

    fn note_cut(&mut self, at: HostOffset, number: u64) -> Result<()> {
        if self.header.cluster_at(number + 1).get() > self.len {
            let text = format!(
                "the file ends at {:#x}, in the cluster at {}: the rest reads as zero",
                self.len,
                self.header.cluster_at(number)
            );
            self.tell(Finding::new(Severity::Note, "cluster-cut", at, text));
        }
        Ok(())
    }

    fn tell_fault(&mut self, at: HostOffset, entry: u32, fault: Fault, is_mended: bool) {
        let (kind, what, remedy) = match fault {
            Fault::BehindEnd => (
                "cluster-behind-end",
                "the file ends before it",
                "if nothing is left over that was meant, it is made zero: its data is lost",
            ),
            Fault::InMetadata => (
                "cluster-in-metadata",
                "the header or the block table is there",
                "if nothing is left over that was meant, it is made zero: its data is lost",
            ),
            Fault::Misplaced => {
                ("cluster-misplaced", "no cluster begins there", "it gets a copy of its own")
            }
            Fault::UsedTwice => {
                ("cluster-used-twice", "something else is there", "it gets a copy of its own")
            }
        };
        let number = (at.get() - TABLE.get()) / ENTRY;
        let text = format!("cluster {number} of the disk is at {entry:#x}: {what}");
        let mut finding = Finding::new(Severity::Corruption, kind, at, text).mended_by(remedy);
        finding.repaired = is_mended;
        let start = GuestOffset(number.saturating_mul(self.header.cluster));
        let unit = GuestRange::new(start, self.header.cluster);
        let costs = unit.map(|unit| unit.before(GuestOffset(self.header.size)));
        self.tell(match costs.filter(|range| !range.is_empty()) {
            Some(range) => finding.costing(range),
            None => finding,
        });
    }

    /// The table may be longer than the disk. What it names there is kept: the size may be wrong.
    fn entries_behind_end(&mut self) -> Result<()> {
        let needed = self.header.size.div_ceil(self.header.cluster);
        let (first, count) = (TABLE.saturating_add(needed * ENTRY), self.header.entries - needed);
        let mut named = 0_u64;
        for_each_written_entry(first, count, self.store, |_, bytes: [u8; 4]| {
            named += u64::from(bytes != [0; 4]);
            Ok(())
        })?;
        if named > 0 {
            let text = format!("{named} entries name clusters behind the end of the disk");
            self.tell(Finding::new(Severity::Note, "entry-behind-end", first, text));
        }
        Ok(())
    }

    /// Clusters that nothing names: told, and at the end of the file cut off.
    fn leftovers(&mut self, survey: &Survey, repair: Repair) -> Result<()> {
        let bytes = |clusters: u64| clusters.saturating_mul(self.header.cluster);
        let named = self.report.allocated_clusters.unwrap_or(0);
        let cluster = self.header.cluster;
        if !can_be_leaked_blocks(bytes(survey.lost), bytes(named), cluster) {
            let text = format!(
                "{} clusters of the file hold data, and the block table names {named}: it may be damaged",
                survey.lost + named
            );
            let finding = Finding::new(Severity::Corruption, "table-lost", TABLE, text);
            self.tell(finding.costing(GuestRange::whole(self.header.size)));
            return Ok(());
        }
        let is_last =
            |run: &std::ops::Range<u64>| self.header.cluster_at(run.start).get() >= survey.end;
        let last_holds_data = survey.with_data.last().is_some_and(is_last);
        for run in survey.with_data.iter().filter(|run| !is_last(run)) {
            let what = unnamed(run.end - run.start, true);
            let at = self.header.cluster_at(run.start);
            let finding = Finding::new(Severity::Leak, "cluster-unnamed", at, what);
            self.report.count_times(&finding, run.end - run.start);
            (self.found)(finding);
        }
        self.end_of_file(survey.end, last_holds_data, repair)
    }

    /// What lies behind the last cluster that something names.
    fn end_of_file(&mut self, end: u64, holds_data: bool, repair: Repair) -> Result<()> {
        if self.len <= end {
            return Ok(());
        }
        let count = (self.len - end).div_ceil(self.header.cluster);
        let damages = self.report.corruptions + self.report.corruptions_fixed;
        let is_cut = repair != Repair::Nothing && damages == 0 && !holds_data;
        if is_cut {
            self.store.set_len(end)?;
            self.store.flush()?;
        }
        let text = unnamed(count, holds_data);
        let mut finding = Finding::new(Severity::Leak, "cluster-unnamed", HostOffset(end), text);
        if !holds_data {
            finding = finding.mended_by("the file is cut off there, if nothing is damaged");
        }
        finding.repaired = is_cut;
        self.report.count_times(&finding, count);
        (self.found)(finding);
        Ok(())
    }

    fn not_closed(&mut self, mending: &Mending<'_>) -> Result<()> {
        if !self.header.is_open() {
            return mending.close(self.report.corruptions == 0);
        }
        let text = "the image was not closed by its last writer".to_owned();
        let finding = Finding::new(Severity::Corruption, "not-closed", HostOffset(44), text);
        let mut finding = finding.mended_by("if all else is good, it is marked as closed");
        finding.repaired = self.repair && self.report.corruptions == 0;
        mending.close(finding.repaired)?;
        self.tell(finding);
        Ok(())
    }
}

fn unnamed(count: u64, holds_data: bool) -> String {
    let what = match count {
        1 => "a cluster of the file".to_owned(),
        _ => format!("{count} clusters of the file"),
    };
    let why = if holds_data { "there is data: it is kept" } else { "there is no data" };
    format!("nothing names {what}; {why}")
}

/// Entries that one repair mends: they are kept in memory, and copies take space.
const MOST_FAULTS: u64 = 1 << 20;
