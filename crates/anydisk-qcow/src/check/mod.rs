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
    let mut teller = Teller { found, report: CheckReport::default() };
    let mut mender = Mender::new(&image, request.repair);
    let walk = Walk::new(&image, request, &mut mender, &mut teller)?;
    let mut places = Places::new(open.limits, walk.file_len()?);
    walk.first(&mut places, &mut mender, &mut teller)?;
    let lost = places.compare(&walk, &mut teller)?;
    // Damage may hide what is in use.
    let undamaged = teller.report.corruptions == 0 && teller.report.check_errors == 0;
    mender.give_back(&lost, undamaged, &mut teller)?;
    teller.report.image_end = Some(HostOffset(lost.end));
    Ok(teller.report)
}

/// Takes what is found: counts it, and tells it on.
struct Teller<'a> {
    found: &'a mut dyn FnMut(Finding),
    report: CheckReport,
}

impl Teller<'_> {
    fn tell(&mut self, finding: Finding) {
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
}
