//! Recognising, opening, checking.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, Format, OpenRequest, Opened, Result, Sample, Verdict,
    check_by_reading,
};

use crate::header::{LEN, named_version};
use crate::{CloopImage, NAME};

/// The cloop format.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloopFormat;

/// The cloop format, for a registry.
pub static CLOOP: CloopFormat = CloopFormat;

impl Format for CloopFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    /// A header may be at the end, where the guest of a raw disk can write, too.
    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let is_script = |bytes: &[u8]| {
            named_version(bytes).is_some_and(|version| {
                bytes.get(11 + version.len()..).is_some_and(|rest| rest.starts_with(b" Format\n"))
            })
        };
        let end = sample.tail.len().checked_sub(LEN).and_then(|at| sample.tail.get(at..));
        if is_script(sample.head) {
            Verdict::Magic
        } else if end.is_some_and(is_script) {
            Verdict::AtEnd
        } else {
            Verdict::No
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        request.only_read("cloop")?;
        Ok(Opened::new(Arc::new(CloopImage::open(request.store, request.limits)?), None))
    }

    fn checks_data(&self) -> bool {
        true
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        let image = CloopImage::open(Arc::clone(&request.open.store), request.open.limits)?;
        let unit = u64::from(image.header().block_size);
        check_by_reading(Arc::new(image), unit, request, found)
    }
}
