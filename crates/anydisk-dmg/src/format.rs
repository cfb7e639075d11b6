//! Recognising, opening, checking, writing in one pass.

use std::io::Write;
use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, Format, Measure, MeasureRequest, OpenRequest, Opened,
    Result, Sample, Sink, SinkRequest, Verdict,
};

use crate::layout::{ENCRYPTED, ENCRYPTED_V1};
use crate::sink::{self, DmgSink};
use crate::trailer::{self, is_trailer};
use crate::{DmgImage, NAME, check};

/// The UDIF format.
#[derive(Clone, Copy, Debug, Default)]
pub struct DmgFormat;

/// The UDIF format, for a registry.
pub static DMG: DmgFormat = DmgFormat;

impl Format for DmgFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The trailer is at the end, where the guest of a raw disk can write, too.
    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let has_trailer =
            trailer::places(sample.tail).any(|at| sample.tail.get(at..).is_some_and(is_trailer));
        if sample.head.starts_with(&ENCRYPTED) || is_trailer(sample.head) {
            Verdict::Magic
        } else if has_trailer || sample.tail.ends_with(&ENCRYPTED_V1) {
            Verdict::AtEnd
        } else {
            Verdict::No
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        request.only_read("DMG")?;
        Ok(Opened::new(Arc::new(DmgImage::open(&request)?), None))
    }

    fn sink(
        &self,
        request: &SinkRequest<'_>,
        out: Box<dyn Write + Send>,
    ) -> Result<Option<Box<dyn Sink>>> {
        Ok(Some(Box::new(DmgSink::new(request, out)?)))
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        Ok(sink::measure(request.size, request.data))
    }

    fn checks_data(&self) -> bool {
        true
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        check::check(request, found)
    }
}
