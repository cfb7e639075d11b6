//! Repairing: first everything is looked at and a plan is made, then things are changed, in an order
//! in which each step alone does no harm.
//!
//! ```text
//!   bitmaps that cannot be relied on; flush; named in the header
//!   entries that break the format and name nothing that counts      flush
//!   refcounts: raised in their place, or all of them built anew at the end of the file, with more
//!   bits if they are too narrow for what is named, and then named
//!   COPIED cleared where something is shared                        flush
//!   refcounts lowered                                               flush
//!   COPIED set where nothing is shared                              flush
//!   a new snapshot table, and its refcounts; flush; named in the header
//!   everything looked at once more; if all is well, the marks are removed
//! ```
//!
//! Nothing is freed, and no flag says "not shared", unless every table could be followed: what a
//! damaged table does not name any more may still be wanted. What a refcount is raised for, or a
//! flag cleared for, only keeps more than needed.

use anydisk_core::{CheckReport, Finding, Repair, Result};

use super::bitmap_repair::Fates;
use super::mend::{Flags, Mend};
use super::progress::Progress;
use super::subject::Subject;
use super::trouble::{Class, Plan, Tally, Teller};
use super::{Settings, Window, rebuild, snapshot_table, survey};
use crate::features::incompatible;
use crate::live::LiveHeader;

/// Repairs what can be repaired, and tells what was found.
pub(super) fn repair(
    subject: &Subject,
    repair: Repair,
    settings: Settings,
    progress: &Progress<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let (mended, bitmaps) = mend_bitmaps(subject, repair, settings, progress, found)?;
    let subject = mended.as_ref().unwrap_or(subject);
    let plan = plan(subject, repair, settings, progress)?;
    let settings = Settings { mends_entries: plan.entries, ..settings };
    let mut teller = Teller::new(found, plan);
    survey(subject, settings, progress, &mut teller)?;
    let (tally, mut before) = (teller.tally, teller.report);
    before.corruptions_fixed += bitmaps.corruptions_fixed;
    let work = Work { settings, progress };
    work.mend_tables(subject, plan, &tally)?;
    let subject = subject.again()?;
    if plan.snapshot_table && tally.count(Class::SnapshotTable) > 0 {
        // Where there is no room for it, the check at the end says that the old one is still there.
        let _ = snapshot_table::write_anew(&subject)?;
    }
    work.conclude(&subject.again()?, plan, before)
}

/// What is said of bitmaps.
const OF_BITMAPS: &[Class] = &[Class::Bitmaps, Class::BitmapDoubt];

/// Makes bitmaps such that they can be relied on, before anything is counted: what they named
/// without right counts no more. The image as it is then, if it changed, and what was found.
fn mend_bitmaps(
    subject: &Subject,
    repair: Repair,
    settings: Settings,
    progress: &Progress<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<(Option<Subject>, CheckReport)> {
    let settings = Settings { reads_data: false, ..settings };
    let fates = match repair {
        Repair::All => Fates::find(subject, settings, progress)?,
        _ => None,
    };
    let Some(fates) = fates.filter(|fates| fates.are_needed() && fates.have_room()) else {
        return Ok((None, CheckReport::default()));
    };
    let plan = Plan { bitmaps: true, ..Plan::default() };
    let mut teller = Teller::new(found, plan).of_classes(OF_BITMAPS);
    survey(subject, settings, progress, &mut teller)?;
    fates.tell_shared(&mut teller);
    let report = teller.report;
    fates.carry_out()?;
    Ok((Some(subject.again()?), report))
}

/// Looks at everything, changes nothing, and decides.
fn plan(
    subject: &Subject,
    repair: Repair,
    settings: Settings,
    progress: &Progress<'_>,
) -> Result<Plan> {
    // Data that is lost changes nothing about what can be done.
    let settings = Settings { reads_data: false, ..settings };
    let look = |settings: Settings| {
        let mut teller = Teller::quiet();
        survey(subject, settings, progress, &mut teller).map(|()| teller.tally)
    };
    if repair != Repair::All {
        return Ok(Plan::leaks(&look(settings)?));
    }
    let settings = Settings { mends_entries: true, ..settings };
    let tally = look(settings)?;
    let can_widen = rebuild::can_widen(&subject.header);
    let is_sound = |tally: &Tally| {
        tally.count(Class::Structure) == 0 && (can_widen || tally.count(Class::Narrow) == 0)
    };
    if is_sound(&tally) && tally.count(Class::Refcounts) == 0 {
        return Ok(Plan::all(&tally, true));
    }
    // Are all references known if those of the old refcounts do not matter?
    let without = look(Settings { without_refcounts: true, ..settings })?;
    Ok(Plan::all(&tally, is_sound(&without)))
}

/// What a repair goes by.
struct Work<'a> {
    settings: Settings,
    progress: &'a Progress<'a>,
}

impl Work<'_> {
    /// Mends entries, refcounts and flags.
    fn mend_tables(&self, subject: &Subject, plan: Plan, tally: &Tally) -> Result<()> {
        let counts = [Class::Low, Class::High, Class::Copied].map(|class| tally.count(class));
        if plan.entries && tally.count(Class::Entry) > 0 {
            self.on_windows(subject, |window| Mend::of(window).make_entries_plain())?;
        }
        if plan.rebuild {
            self.rebuild(subject, plan)?;
        } else if plan.protect && counts != [0, 0, 0] {
            self.on_windows(subject, |window| Mend::of(window).raise_counts())?;
        }
        let subject = subject.again()?;
        if plan.protect && (plan.rebuild || counts != [0, 0, 0]) {
            self.on_windows(&subject, |window| Mend::of(window).set_flags(Flags::Clear))?;
        }
        if plan.release && (plan.rebuild || counts != [0, 0, 0]) {
            self.on_known_windows(&subject, |window| Mend::of(window).lower_counts())?;
            self.on_known_windows(&subject, |window| Mend::of(window).set_flags(Flags::Set))?;
        }
        Ok(())
    }

    /// Builds the refcounts anew, and names them.
    fn rebuild(&self, subject: &Subject, plan: Plan) -> Result<()> {
        let settings = Settings { without_refcounts: true, ..self.settings };
        let header = LiveHeader::to_repair(&subject.store, subject.header.clone());
        if !plan.widen {
            let (at, clusters) = rebuild::rebuild(subject, settings, self.progress)?;
            return header.set_refcount_table(at, clusters);
        }
        let (order, table) = rebuild::rebuild_wider(subject, settings, self.progress)?;
        header.rewrite(|header| {
            header.refcount_order = order;
            (header.refcount_table_offset, header.refcount_table_clusters) = table;
            Ok(())
        })
    }

    /// Counts each window of the file and does something there; durable when it returns.
    fn on_windows(
        &self,
        subject: &Subject,
        act: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<()> {
        let image = super::Named::find(subject, self.settings, &mut Teller::quiet())?;
        let (threads, progress) = (self.settings.threads, self.progress);
        let count =
            |window: &Window<'_>| window.count(threads, progress, &mut Teller::quiet()).map(drop);
        self.visit(&image, count, act)
    }

    /// The same for what may only be done where every reference is known.
    fn on_known_windows(
        &self,
        subject: &Subject,
        act: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<()> {
        let image = super::Named::find_surely(subject, self.settings)?;
        let (threads, progress) = (self.settings.threads, self.progress);
        self.visit(&image, |window| window.count_surely(threads, progress), act)
    }

    fn visit(
        &self,
        image: &super::Named<'_>,
        count: impl Fn(&Window<'_>) -> Result<()>,
        mut act: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<()> {
        image.windows(self.settings, |window| count(window).and_then(|()| act(window)))?;
        Ok(image.subject.store.flush()?)
    }

    /// Looks at everything once more, and removes the marks if all is well.
    fn conclude(&self, subject: &Subject, plan: Plan, before: CheckReport) -> Result<CheckReport> {
        let mut teller = Teller::quiet();
        let settings = Settings { mends_entries: false, ..self.settings };
        survey(subject, settings, self.progress, &mut teller)?;
        let mut report = teller.report;
        let fixed = |all: u64, left: u64| all.saturating_sub(left);
        report.corruptions_fixed =
            fixed(before.corruptions + before.corruptions_fixed, report.corruptions);
        report.leaks_fixed = fixed(before.leaks + before.leaks_fixed, report.leaks);
        let marked = subject.header.is_dirty() || subject.header.is_corrupt();
        if plan.marks && marked && report.corruptions == 0 && report.check_errors == 0 {
            let header = LiveHeader::to_repair(&subject.store, subject.header.clone());
            let marks = incompatible::DIRTY | incompatible::CORRUPT;
            header.set_features(|bits| bits.incompatible &= !marks)?;
        }
        Ok(report)
    }
}
