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
//! | `tables`, `judge` | L2 tables and their entries |
//! | `references`, `windows` | how often each cluster is named, in bounded memory |
//! | `counts` | the refcounts in the file |
//! | `trouble` | the kinds of inconsistencies, and what is done about each |
//!
//! Memory: sixteen bits for each cluster of a window of the file, and 32 bytes for each L2 table.
//! A file that is too long for one window is looked at in several, each with a walk of its own
//! over the tables.

mod bitmaps;
mod counts;
mod judge;
mod progress;
mod references;
mod roots;
mod stream;
mod subject;
mod sweep;
mod tables;
mod trouble;
mod windows;

use anydisk_core::{CheckReport, CheckRequest, Error, Finding, HostOffset, Repair, Result};

use self::counts::Blocks;
use self::judge::Rules;
use self::progress::Progress;
use self::references::References;
use self::roots::Roots;
use self::subject::Subject;
use self::tables::{L2Table, Sums, Walk};
use self::trouble::{Teller, Trouble};
use self::windows::Touched;
use crate::layout::RawHeader;
use crate::{Header, NAME};

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    if request.repair != Repair::Nothing {
        return Err(Error::Unsupported { format: NAME, feature: "repairing an image".into() });
    }
    let header = Header::read_to_check(&*request.open.store, request.open.limits)?;
    let subject = Subject::new(request.open.store.clone(), header)?;
    let settings = Settings {
        threads: request.threads.max(1),
        memory: request.open.limits.table_cache,
        mends_entries: false,
    };
    let progress = Progress::new(request.progress);
    let mut teller = Teller::new(found);
    survey(&subject, settings, &progress, &mut teller)?;
    Ok(teller.report)
}

/// How a check goes about it.
#[derive(Clone, Copy)]
struct Settings {
    threads: usize,
    /// Bytes that it may take.
    memory: usize,
    /// Entries that a repair makes plain zeroes count as such.
    mends_entries: bool,
}

/// Looks at everything once.
fn survey(
    subject: &Subject,
    settings: Settings,
    progress: &Progress<'_>,
    teller: &mut Teller<'_>,
) -> Result<()> {
    tell_marks(&subject.header, teller);
    let roots = Roots::find(subject, teller)?;
    let limit = (settings.memory / size_of::<L2Table>()).max(1 << 10);
    let tables = tables::gather(subject, &roots, limit, teller)?;
    let blocks = Blocks::read(subject, teller)?;
    let touched = Touched::new(settings.memory);
    roots.touch(&touched);
    blocks.touch(subject, &touched);
    tables.iter().for_each(|table| touched.note(table.at >> subject.bits()));
    let parts =
        Parts { subject, roots: &roots, tables: &tables, blocks: &blocks, touched: &touched };
    let (sums, mut end) = parts.look(0, settings, progress, teller)?;
    for number in touched.others()? {
        end = parts.look(number, settings, progress, teller)?.1.max(end);
    }
    blocks.tell_past_end(subject, teller);
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

/// What was found before clusters are counted.
#[derive(Clone, Copy)]
struct Parts<'a> {
    subject: &'a Subject,
    roots: &'a Roots,
    tables: &'a [L2Table],
    blocks: &'a Blocks,
    touched: &'a Touched,
}

impl Parts<'_> {
    /// Looks at one window of the file: the sums over entries, and the end of what is in use.
    fn look(
        &self,
        number: u64,
        settings: Settings,
        progress: &Progress<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<(Sums, u64)> {
        let Self { subject, roots, tables, blocks, touched } = *self;
        progress.expect(tables.len() as u64 * subject.cluster_size());
        let references = References::new(self.window(number));
        blocks.note_ones(subject, &references, teller, progress)?;
        let walk = Walk {
            subject,
            tables,
            references: &references,
            blocks,
            rules: Rules::new(&subject.header),
            first: number == 0,
            mends_entries: settings.mends_entries,
            touched,
        };
        roots.count(&references);
        blocks.claim(subject, &references);
        walk.count_tables();
        walk.check_l1_flags(teller)?;
        let sums = walk.run(settings.threads, progress, teller)?;
        bitmaps::count(subject, roots, &references, teller, number == 0)?;
        blocks.count(subject, &references, teller);
        let end = blocks.compare(subject, &references, teller);
        Ok((sums, end))
    }

    /// The clusters of a window; no more than there are in the file.
    fn window(&self, number: u64) -> std::ops::Range<u64> {
        let window = self.touched.window(number);
        let end = self.subject.end().next_multiple_of(references::PAGE);
        window.start..window.end.min(end).max(window.start)
    }
}
