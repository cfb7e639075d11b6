//! Checking an image: every entry by itself, every stream, and all places against each other.
//!
//! ```text
//!   L1 table -> L2 tables, each once -> entries -> runs of bytes in use
//!   runs, sorted by place: what shares a byte is a corruption, what nobody names is lost
//! ```
//!
//! Entries that follow each other in the file are one run, so that few runs are kept in memory. If
//! they are too many, the file is looked at in several windows, each with a walk of its own over
//! the tables.
//!
//! The length of the L1 table comes from the size of the disk. Where it reaches over what is named, the
//! header is in doubt: what looks like its entries may be tables or data, and nothing is repaired. Nor is
//! anything beside what no repair can mend: the table may be none.
//!
//! Nothing is given back where a table may have named it: what holds data, whatever the tables say, and
//! anything where something is damaged, or was until this repair, where the L1 table is not in the file, or
//! where more is lost than a crash leaves.

mod mend;
mod places;
mod walk;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, GuestRange, HostOffset, Repair, Result, Severity,
};

use self::mend::Mender;
use self::places::Places;
use self::walk::Walk;
use crate::QcowImage;
use crate::layout::RawHeader;

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let open = &request.open;
    if request.repair != Repair::Nothing {
        open.is_writable()?;
    }
    let image = QcowImage::open(open.store.clone(), open.limits)?;
    let mut mender = Mender::new(&image, request.repair, false);
    if request.repair == Repair::All {
        let mut nobody = |_| ();
        let mut silent = Teller::new(&mut nobody);
        let lost = look(request, &mut Mender::new(&image, Repair::Nothing, false), &mut silent)?;
        mender = match silent.has_hopeless {
            true => Mender::new(&image, Repair::Nothing, false),
            // An entry is cleared only where nothing is lost that it may have named before it was damaged.
            false => Mender::new(&image, Repair::All, lost == 0),
        };
    }
    let mut teller = Teller::new(found);
    look(request, &mut mender, &mut teller)?;
    Ok(teller.report)
}

/// Looks at everything, and mends what the mender does. Returns how many clusters nothing names.
fn look(
    request: &CheckRequest<'_>,
    mender: &mut Mender<'_>,
    teller: &mut Teller<'_>,
) -> Result<u64> {
    let walk = Walk::new(mender.image(), request, mender, teller)?;
    let file_len = walk.file_len()?;
    let mut places = Places::new(request.open.limits, file_len);
    walk.first(&mut places, mender, teller)?;
    let lost = places.compare(&walk, teller)?;
    teller.report.image_end = Some(HostOffset(lost.end.min(file_len)));
    let count = mender.count(&lost)?;
    if teller.doubts_header || walk.tell_lost(count, mender, teller)? {
        return Ok(count);
    }
    // Damage may hide what is in use, and what was mended just now may have hidden it.
    let report = &teller.report;
    let damages = report.corruptions + report.corruptions_fixed + report.check_errors;
    mender.give_back(&lost, damages == 0, teller)?;
    Ok(count)
}

/// Takes what is found: counts it, and tells it on.
struct Teller<'a> {
    found: &'a mut dyn FnMut(Finding),
    report: CheckReport,
    /// The L1 table cannot be where the header has it, and as long.
    doubts_header: bool,
    /// Something is damaged that nothing can be done about.
    has_hopeless: bool,
}

impl<'a> Teller<'a> {
    fn new(found: &'a mut dyn FnMut(Finding)) -> Self {
        let report = CheckReport::default();
        Self { found, report, doubts_header: false, has_hopeless: false }
    }

    fn tell(&mut self, finding: Finding) {
        self.has_hopeless |= finding.severity == Severity::Corruption && finding.remedy.is_none();
        self.report.count(&finding);
        (self.found)(finding);
    }

    /// A corruption that nothing can be done about.
    fn corrupt(
        &mut self,
        kind: &'static str,
        at: HostOffset,
        guest: Option<GuestRange>,
        text: String,
    ) {
        let mut finding = Finding::new(Severity::Corruption, kind, at, text);
        finding.guest = guest;
        self.tell(finding);
    }

    /// Tells, once, that the L1 table lies on something else.
    fn doubt_header(&mut self, image: &QcowImage, other: &str) {
        if std::mem::replace(&mut self.doubts_header, true) {
            return;
        }
        let (entries, size) = (image.geometry.l1_entries(), image.header.size);
        let text = format!(
            "the L1 table, which has {entries} entries for a disk of {size} bytes, reaches over {other}: \
             size, l1_table_offset or that entry is wrong"
        );
        let at = HostOffset(std::mem::offset_of!(RawHeader, size) as u64);
        let all = GuestRange::whole(image.header.disk_size());
        self.corrupt("header-field", at, Some(all), text);
    }
}
