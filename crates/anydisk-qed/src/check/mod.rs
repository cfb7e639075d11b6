//! Checking an image, and mending what can be mended.
//!
//! | kind of finding | mended by |
//! |---|---|
//! | `l1-entry-invalid`, `l2-entry-invalid`: no table or cluster can be there | the entry becomes 0, where no cluster is without a name; over another image 1 (zeroes), and a table stays |
//! | `past-end-of-file`: it lies behind the end of the file | the same; becomes 0 where the image was not closed |
//! | `l2-table-cut`, `cluster-cut`: the file ends in it | the file is filled up with zeroes |
//! | `l2-table-shared`, `metadata-overlap` | |
//! | `cluster-shared`: two entries name one cluster | a copy of it for the second |
//! | `tables-lost`: nothing is named, and there is much | |
//! | `entry-behind-end`: of the disk | |
//! | `unclean`: the image was not closed by its last writer | the mark is cleared, if nothing is damaged |
//! | `leak`: nothing names it | if it holds no data and nothing is damaged: the end is cut off, the rest become holes |
//!
//! Nothing is mended beside what no repair can mend: the header may be what is wrong.
//!
//! Memory: a bit for each cluster of a window of the file, and the list of the L2 tables. A file too long for
//! one window is looked at in several, each with a walk of its own over the tables.

mod leaks;
mod occupied;
mod tables;
mod walk;

use std::mem::offset_of;
use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, GuestRange, HostOffset, Limits, Repair, Result,
    Severity, Storage,
};

use self::leaks::Gaps;
use self::tables::Table;
use crate::header::Header;
use crate::layout::{RawHeader, feature};
use crate::piece::Piece;
use crate::table::Geometry;
use crate::{NAME, QedImage};

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let open = &request.open;
    if request.repair != Repair::Nothing {
        open.is_writable()?;
    }
    let mends = match request.repair {
        Repair::All => {
            let mut nobody = |_| ();
            let teller = Teller::new(&mut nobody);
            let check = Check::new(open.store.clone(), open.limits, Mends::default(), teller)?;
            let is_dirty = check.header.needs_check();
            Mends::after(&check.run()?, is_dirty)
        }
        _ => Mends::default(),
    };
    let mut check = Check::new(open.store.clone(), open.limits, mends, Teller::new(found))?;
    check.gives_back = request.repair >= Repair::Leaks;
    check.progress = request.progress;
    Ok(check.run()?.report)
}

/// Mends what a crash of its last writer leaves in an image that was not closed: entries for what did not
/// reach the file.
///
/// # Errors
/// [`Error::NeedsRepair`] for any other damage, before anything is written; those of the store.
pub(crate) fn after_a_crash(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let mut other = None;
    let mut found = |finding: Finding| {
        let is_of_crash = [PAST_END, TABLE_CUT, CLUSTER_CUT].contains(&finding.kind);
        if finding.severity != Severity::Note && finding.severity != Severity::Leak && !is_of_crash
        {
            other.get_or_insert(finding.text);
        }
    };
    let teller = Teller::new(&mut found);
    Check::new(store.clone(), limits, Mends::default(), teller)?.run()?;
    if let Some(text) = other {
        return Err(Error::needs_repair(NAME, text.to_string()));
    }
    let mends = Mends { past_end: true, cut: true, mark: true, ..Mends::default() };
    let mut nobody = |_| ();
    Check::new(store.clone(), limits, mends, Teller::new(&mut nobody))?.run()?;
    Ok(())
}

/// Kinds of findings of what did not reach the file.
const PAST_END: &str = "past-end-of-file";
const TABLE_CUT: &str = "l2-table-cut";
const CLUSTER_CUT: &str = "cluster-cut";

/// What is mended.
#[derive(Clone, Copy, Debug, Default)]
struct Mends {
    /// Entries for what cannot be.
    invalid: bool,
    /// Entries for what lies behind the end of the file.
    past_end: bool,
    /// A file that ends in a table or a cluster.
    cut: bool,
    /// Clusters that two entries name.
    shared: bool,
    /// The mark of an image that was not closed.
    mark: bool,
}

impl Mends {
    /// What may be mended after a look. Where something is damaged that no repair can mend, the header may be
    /// what is wrong, and what looks like a table may be none: nothing is. An entry becomes 0 only where
    /// nothing is without a name that it may have named before it was damaged, or where a crash explains it.
    fn after(seen: &Seen, is_dirty: bool) -> Self {
        let invalid = seen.lost == 0;
        let damage = seen.damage;
        let may = !damage.has_hopeless && (invalid || !damage.has_invalid);
        let past_end = may && (invalid || is_dirty || !damage.has_past_end);
        Self {
            invalid: may && invalid,
            past_end,
            cut: may && past_end,
            shared: may && past_end && !damage.names_room,
            mark: may,
        }
    }
}

/// What a walk found.
struct Seen {
    report: CheckReport,
    /// Clusters that nothing names and that take space.
    lost: u64,
    damage: Damage,
}

/// What kinds of damage there are.
#[derive(Clone, Copy, Debug, Default)]
struct Damage {
    /// Something is damaged that nothing can be done about.
    has_hopeless: bool,
    has_invalid: bool,
    has_past_end: bool,
    /// An entry that stays, for what lies behind the end of the disk, names a place behind that of the file.
    names_room: bool,
}

/// Takes what is found: counts it, and tells it on.
struct Teller<'a> {
    found: &'a mut dyn FnMut(Finding),
    report: CheckReport,
    damage: Damage,
}

impl<'a> Teller<'a> {
    fn new(found: &'a mut dyn FnMut(Finding)) -> Self {
        Self { found, report: CheckReport::default(), damage: Damage::default() }
    }

    fn tell(&mut self, finding: Finding) {
        let damage = &mut self.damage;
        damage.has_hopeless |= finding.severity == Severity::Corruption && finding.remedy.is_none();
        damage.has_past_end |= finding.kind == PAST_END;
        damage.has_invalid |= finding.kind.ends_with("-entry-invalid");
        self.report.count(&finding);
        (self.found)(finding);
    }
}

/// A check under way.
struct Check<'a> {
    store: Arc<dyn Storage>,
    header: Header,
    geometry: Geometry,
    mends: Mends,
    /// Lost space is given back.
    gives_back: bool,
    /// What a lost entry hid is old: there is an image below, and no crash explains the loss.
    hides_old: bool,
    progress: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
    /// Bytes of the file.
    file_len: u64,
    /// In the order of the disk. None of them shares a byte with another, or with header or L1 table.
    tables: Vec<Table>,
    /// The same by place.
    places: Vec<HostOffset>,
    /// Clusters of which it is noted whether they are in use, at once.
    window: u64,
    /// Entries that get a copy of a cluster, and where that is. Made when all entries were looked at, and none
    /// names a place behind the end of the file any more: the copies go there.
    copies: Vec<(HostOffset, Piece)>,
    teller: Teller<'a>,
}

impl<'a> Check<'a> {
    fn new(
        store: Arc<dyn Storage>,
        limits: &Limits,
        mends: Mends,
        teller: Teller<'a>,
    ) -> Result<Self> {
        let image = QedImage::open(store.clone(), limits)?;
        Ok(Self {
            header: image.header.clone(),
            geometry: image.geometry,
            file_len: store.len()?,
            store,
            mends,
            gives_back: false,
            hides_old: image.header.backing_filename.is_some() && !image.header.needs_check(),
            progress: None,
            tables: Vec::new(),
            places: Vec::new(),
            window: (limits.table_cache as u64 * 8).max(1 << 10),
            copies: Vec::new(),
            teller,
        })
    }

    fn run(mut self) -> Result<Seen> {
        self.find_tables()?;
        let clusters = self.geometry.whole_or_more(self.file_len) / self.geometry.cluster();
        let mut gaps = Gaps::default();
        let mut start = 0;
        while start == 0 || start < clusters {
            let end = clusters.min(start + self.window);
            let occupied = self.walk(start..end)?;
            self.note_gaps(&occupied, &mut gaps)?;
            start = end.max(1);
        }
        self.store_changes()?;
        self.put_copies()?;
        let lost = self.tell_gaps(&gaps)?;
        self.clear_unclean()?;
        let Teller { report, damage, .. } = self.teller;
        Ok(Seen { report, lost, damage })
    }

    fn damages(&self) -> u64 {
        let report = &self.teller.report;
        report.corruptions + report.corruptions_fixed + report.check_errors
    }

    /// Makes an entry say that nothing is there, if `mends`, and tells the finding about it. Over an image
    /// whose data must not be seen, it becomes `hidden`, if anything can say that.
    fn clear_entry(
        &mut self,
        at: HostOffset,
        mut finding: Finding,
        mends: bool,
        hidden: Option<u64>,
    ) -> Result<()> {
        let entry = if self.hides_old { hidden } else { Some(0) };
        if let Some(entry) = entry {
            finding = finding.mended_by(format!("the entry becomes {entry}"));
            if mends {
                self.store.write_at(at, &entry.to_le_bytes())?;
                finding.repaired = true;
            }
        }
        self.teller.tell(finding);
        Ok(())
    }

    /// Tells of a table or a cluster in which the file ends, and makes the file reach its end. `lost`: the
    /// part of the disk that is missing with it.
    fn fill_up(
        &mut self,
        (kind, what): (&'static str, &'static str),
        entry: HostOffset,
        (at, end): (HostOffset, HostOffset),
        lost: GuestRange,
    ) -> Result<()> {
        let file_end = HostOffset(self.file_len);
        let text = format!("the file ends in the {what} at {at}, at {file_end}");
        let finding = Finding::new(Severity::Corruption, kind, entry, text);
        let mut finding = finding.costing(lost);
        if kind == TABLE_CUT && self.hides_old {
            self.teller.tell(finding);
            return Ok(());
        }
        finding = finding.mended_by("the file is filled up with zeroes");
        if self.mends.cut {
            self.store.set_len(end.get())?;
            self.file_len = end.get();
            finding.repaired = true;
        }
        self.teller.tell(finding);
        Ok(())
    }

    fn store_changes(&self) -> Result<()> {
        match self.mends.mark {
            true => Ok(self.store.flush()?),
            false => Ok(()),
        }
    }

    /// The mark goes when nothing is damaged any more.
    fn clear_unclean(&mut self) -> Result<()> {
        if !self.header.needs_check() {
            return Ok(());
        }
        let at = HostOffset(offset_of!(RawHeader, features) as u64);
        let text = "the image was not closed by its last writer".to_owned();
        let finding = Finding::new(Severity::Note, "unclean", at, text);
        let mut finding = finding.mended_by("the mark is cleared, if nothing is damaged");
        let report = &self.teller.report;
        if self.mends.mark && report.corruptions + report.check_errors == 0 {
            let features = self.header.features & !feature::NEED_CHECK;
            let header = Header { features, ..self.header.clone() };
            self.store.write_at(HostOffset::ZERO, &header.to_bytes())?;
            self.store.flush()?;
            finding.repaired = true;
        }
        self.teller.tell(finding);
        Ok(())
    }
}
