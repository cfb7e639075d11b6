//! Checking an image: what is named is counted, and compared with the refcounts.
//!
//! ```text
//!   header -> L1 tables of disk and snapshots -> L2 tables -> clusters, streams
//!          -> snapshot table, refcount table -> refcount blocks
//!          -> crypto header, bitmap directory -> tables -> clusters
//! ```
//!
//! | module | |
//! |---|---|
//! | `subject` | the image and its file |
//! | `roots`, `bitmaps` | what the header names |
//! | `tables`, `walk`, `runs`, `judge` | L2 tables and their entries |
//! | `data` | what lies in the clusters, if it is to be read |
//! | `references`, `windows` | how often each cluster is named, in bounded memory |
//! | `counts` | the refcounts in the file |
//! | `trouble` | the kinds of inconsistencies, and what is done about each |
//! | `repair`, `mend`, `rebuild`, `snapshot_table`, `bitmap_repair` | what is done, and in which order |
//! | `compact` | what lies at the end moved into gaps |
//! | `zeroes` | what version 2 cannot say |
//!
//! Memory: sixteen bits for each cluster of a window of the file, and 32 bytes for each L2 table.
//! A file that is too long for one window is looked at in several, each with a walk of its own
//! over the tables.

mod bitmap_repair;
mod bitmaps;
mod compact;
mod counts;
mod data;
mod judge;
mod mend;
mod progress;
mod rebuild;
mod references;
mod repair;
mod roots;
mod runs;
mod snapshot_table;
mod stream;
mod subject;
mod sweep;
mod tables;
mod trouble;
mod walk;
mod windows;
mod zeroes;

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, HostOffset, Limits, Repair, Result, Severity,
    Storage,
};

use self::bitmap_repair::Fates;
pub(crate) use self::compact::{Pace, compact};
use self::counts::Blocks;
use self::data::DataLook;
use self::judge::Rules;
use self::progress::Progress;
use self::references::References;
use self::roots::Roots;
use self::runs::Shape;
use self::subject::Subject;
use self::tables::{L2Table, Sums};
use self::trouble::{Class, Plan, Teller, Trouble};
use self::walk::Walk;
use self::windows::Touched;
pub(crate) use self::zeroes::Census;
use crate::layout::RawHeader;
use crate::refcount::Width;
use crate::{Header, NAME};

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    if request.repair != Repair::Nothing {
        request.open.is_writable()?;
    }
    let threads = request.threads.max(1);
    let settings =
        Settings { threads, reads_data: request.data, ..Settings::of(request.open.limits) };
    let subject = Subject::open(&request.open.store, request.open.limits)?;
    let progress = Progress::new(request.progress);
    if request.repair != Repair::Nothing {
        return repair::repair(&subject, request.repair, settings, &progress, found);
    }
    let mut teller = Teller::new(found, Plan::default());
    survey(&subject, settings, &progress, &mut teller)?;
    Ok(teller.report)
}

/// Repairs an image that was not closed cleanly, before it is opened for writing, and removes the
/// mark. The header must be read again.
///
/// # Errors
/// [`Error::NeedsRepair`] if something is left that cannot be repaired.
pub(crate) fn repair_dirty(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    let mut left = None;
    let mut note = |finding: Finding| {
        if !finding.repaired && finding.severity >= Severity::Corruption {
            left.get_or_insert(finding.text);
        }
    };
    let progress = Progress::new(None);
    let report = repair::repair(&subject, Repair::All, Settings::of(limits), &progress, &mut note)?;
    if report.corruptions == 0 && report.check_errors == 0 {
        return Ok(());
    }
    let left = left.unwrap_or_else(|| "the repair did not help".into());
    Err(Error::NeedsRepair { format: NAME, why: left.into() })
}

/// What [`Error::Limit`] calls too many references to one cluster.
pub(crate) const REFERENCES: &str = "references to one cluster";

/// Refuses an image in which anything is wrong; a mark in the header alone is nothing.
///
/// # Errors
/// [`Error::NeedsRepair`].
pub(crate) fn refuse_damage(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    let mut first = None;
    let mut note = |finding: Finding| {
        if finding.severity > Severity::Note {
            first.get_or_insert(finding.text);
        }
    };
    let mut teller = Teller::new(&mut note, Plan::default());
    survey(&subject, Settings::of(limits), &Progress::new(None), &mut teller)?;
    match first {
        Some(why) => Err(Error::NeedsRepair { format: NAME, why: why.into() }),
        None => Ok(()),
    }
}

/// How often the cluster is named that is named most often.
pub(crate) fn most_references(store: &Arc<dyn Storage>, limits: &Limits) -> Result<u64> {
    let subject = Subject::open(store, limits)?;
    let settings = Settings { without_refcounts: true, ..Settings::of(limits) };
    let (mut most, mut page) = (0, Vec::new());
    Named::find_surely(&subject, settings)?.windows(settings, |window| {
        window.count_surely(settings.threads, &Progress::new(None))?;
        let clusters = window.references.window();
        for first in clusters.step_by(usize::try_from(references::PAGE).unwrap_or(1)) {
            let counts = window.references.page_counts(first, &mut page).unwrap_or_default();
            most = counts.iter().copied().fold(most, u64::max);
        }
        Ok(())
    })?;
    Ok(most)
}

/// Writes refcounts of another width behind the end of the file, and returns where their table is
/// and its clusters. Nothing names them yet.
///
/// # Errors
/// [`Error::Limit`] for [`REFERENCES`] if a count does not fit.
pub(crate) fn refcounts_of_width(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    order: u32,
) -> Result<(HostOffset, u32)> {
    let mut subject = Subject::open(store, limits)?;
    subject.width = Width::of_order(order);
    let settings = Settings { without_refcounts: true, ..Settings::of(limits) };
    rebuild::rebuild(&subject, settings, &Progress::new(None))
}

/// Gives all snapshots the extra data that version 3 demands.
pub(crate) fn lengthen_snapshot_entries(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    if snapshot_table::has_short_entries(&subject)? && !snapshot_table::write_anew(&subject)? {
        let feature = "a new snapshot table where no free cluster is counted".into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    Ok(())
}

/// Counts what version 2 cannot say of a disk of `size` bytes.
pub(crate) fn census(store: &Arc<dyn Storage>, limits: &Limits, size: u64) -> Result<Census> {
    let subject = Subject::open(store, limits)?;
    zeroes::census(&Named::find_surely(&subject, Settings::of(limits))?, size)
}

/// Replaces zero entries by absent ones or by clusters. The image is marked dirty, and refcounts
/// are stale afterwards.
pub(crate) fn replace_zeroes(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    zeroes::replace(&Named::find_surely(&subject, Settings::of(limits))?)
}

/// Repairs leaks.
pub(crate) fn give_back_leaks(store: &Arc<dyn Storage>, limits: &Limits) -> Result<()> {
    compact::give_back(store, limits, Settings::of(limits), &Progress::new(None))
}

/// How a check goes about it.
#[derive(Clone, Copy, Default)]
struct Settings {
    threads: usize,
    /// Bytes that it may take.
    memory: usize,
    /// Entries that a repair makes plain zeroes count as such.
    mends_entries: bool,
    /// The refcounts are to be built anew: what names them does not count.
    without_refcounts: bool,
    /// The data is read too.
    reads_data: bool,
}

impl Settings {
    fn of(limits: &Limits) -> Self {
        Self { threads: 1, memory: limits.table_cache, ..Self::default() }
    }
}

/// Looks at everything once.
fn survey(
    subject: &Subject,
    settings: Settings,
    progress: &Progress<'_>,
    teller: &mut Teller<'_>,
) -> Result<()> {
    tell_marks(&subject.header, teller);
    let image = Named::find(subject, settings, teller)?;
    let (mut sums, mut end) = (Sums::default(), 0);
    image.windows(settings, |window| {
        let (more, last) = window.look(settings, progress, teller)?;
        sums.add(more);
        end = last.max(end);
        Ok(())
    })?;
    image.blocks.tell_past_end(subject, teller);
    if teller.tally.count(Class::Structure) > 0
        && let Some(fates) = Fates::find(subject, settings, progress)?
    {
        fates.tell_shared(teller);
    }
    report(subject, sums, end, teller);
    Ok(())
}

fn tell_marks(header: &Header, teller: &mut Teller<'_>) {
    let field = HostOffset(std::mem::offset_of!(RawHeader, incompatible_features) as u64);
    if header.is_dirty() {
        teller.tell(Trouble::MarkedDirty, field, || {
            "the image was not closed cleanly (incompatible feature bit 0)".into()
        });
    }
    if header.is_corrupt() {
        teller.tell(Trouble::MarkedCorrupt, field, || {
            "the image is marked corrupt (incompatible feature bit 1)".into()
        });
    }
}

fn report(subject: &Subject, sums: Sums, end: u64, teller: &mut Teller<'_>) {
    let clusters = subject.header.disk_size().div_ceil(subject.cluster_size());
    let report = &mut teller.report;
    report.total_clusters = Some(clusters);
    report.allocated_clusters = Some(sums.allocated);
    report.fragmented_clusters = Some(sums.fragmented);
    report.compressed_clusters = Some(sums.compressed);
    report.image_end = Some(subject.offset(end));
}

/// What the image names, apart from clusters of data.
struct Named<'a> {
    subject: &'a Subject,
    roots: Roots,
    tables: Vec<L2Table>,
    blocks: Blocks,
    touched: Touched,
}

impl<'a> Named<'a> {
    /// Finds it, and tells what is wrong with it.
    fn find(subject: &'a Subject, settings: Settings, teller: &mut Teller<'_>) -> Result<Self> {
        let roots = Roots::find(subject, settings.without_refcounts, teller)?;
        let limit = (settings.memory / size_of::<L2Table>()).max(1 << 10);
        let tables = tables::gather(subject, &roots, limit, teller)?;
        let blocks = Blocks::read(subject, teller)?;
        let touched = Touched::new(settings.memory);
        roots.touch(&touched);
        blocks.touch(subject, &touched);
        tables.iter().for_each(|table| touched.note(table.at >> subject.bits()));
        Ok(Self { subject, roots, tables, blocks, touched })
    }

    /// Finds it for whoever frees space; an error where a part of it could not be read.
    fn find_surely(subject: &'a Subject, settings: Settings) -> Result<Self> {
        let mut teller = Teller::quiet();
        let image = Self::find(subject, settings, &mut teller)?;
        teller.knows_all().map(|()| image)
    }

    /// Shows all windows of the file in which something is named, in order. The first must be
    /// looked at before the others are known.
    fn windows(
        &self,
        settings: Settings,
        mut visit: impl FnMut(&Window<'_>) -> Result<()>,
    ) -> Result<()> {
        visit(&self.window(0, settings))?;
        for number in self.touched.others()? {
            visit(&self.window(number, settings))?;
        }
        Ok(())
    }

    /// A window, in which nothing has been counted yet.
    fn window(&self, number: u64, settings: Settings) -> Window<'_> {
        let clusters = self.touched.window(number);
        let end = self.subject.end().next_multiple_of(references::PAGE);
        let clusters = clusters.start..clusters.end.min(end).max(clusters.start);
        Window { image: self, references: References::new(clusters), first: number == 0, settings }
    }
}

/// A window of the file, and what names the clusters there.
struct Window<'a> {
    image: &'a Named<'a>,
    references: References,
    first: bool,
    settings: Settings,
}

impl Window<'_> {
    /// Counts, compares, tells: the sums over entries, and the end of what is in use.
    fn look(
        &self,
        settings: Settings,
        progress: &Progress<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<(Sums, u64)> {
        let Named { subject, blocks, .. } = self.image;
        blocks.note_ones(subject, &self.references, teller, progress)?;
        self.walk().check_l1_flags(teller)?;
        let sums = self.count(settings.threads, progress, teller)?;
        let end = blocks.compare(subject, &self.references, teller);
        if settings.reads_data {
            DataLook::new(&self.walk()).run(settings.threads, progress, teller)?;
        }
        Ok((sums, end))
    }

    /// Counts everything that names a cluster of the window.
    fn count(
        &self,
        threads: usize,
        progress: &Progress<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<Sums> {
        let Named { subject, roots, tables, blocks, .. } = self.image;
        progress.expect(tables.len() as u64 * subject.cluster_size());
        roots.count(&self.references);
        if !self.settings.without_refcounts {
            blocks.claim(subject, &self.references);
        }
        let walk = self.walk();
        walk.count_tables();
        let sums = walk.run(threads, progress, teller)?;
        bitmaps::count(subject, roots, &self.references, teller, self.first)?;
        if !self.settings.without_refcounts {
            blocks.count(subject, &self.references, teller);
        }
        Ok(sums)
    }

    /// Counts for whoever frees space; an error where a part of the tables could not be read.
    fn count_surely(&self, threads: usize, progress: &Progress<'_>) -> Result<()> {
        let mut teller = Teller::quiet();
        self.count(threads, progress, &mut teller)?;
        teller.knows_all()
    }

    fn walk(&self) -> Walk<'_> {
        let Named { subject, tables, blocks, touched, .. } = self.image;
        Walk {
            subject,
            tables,
            references: &self.references,
            blocks,
            rules: Rules::new(&subject.header),
            shape: Shape::new(&subject.header),
            first: self.first,
            mends_entries: self.settings.mends_entries,
            touched,
        }
    }
}
