//! Recognising, opening, checking, writing in one pass.

use std::io::Write;
use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, Format, Measure, MeasureRequest, OpenRequest, Opened,
    Result, Sample, Sink, SinkRequest, Verdict,
};

use crate::layout::MAGIC;
use crate::sink::{self, SimgSink};
use crate::{NAME, SimgImage, check};

/// The Android sparse format.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimgFormat;

/// The Android sparse format, for a registry.
pub static SIMG: SimgFormat = SimgFormat;

impl Format for SimgFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["android-sparse"]
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if sample.head.starts_with(&MAGIC.to_le_bytes()) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        request.only_read("Android sparse")?;
        Ok(Opened::new(Arc::new(SimgImage::open(request.store, request.limits)?), None))
    }

    fn sink(
        &self,
        request: &SinkRequest<'_>,
        out: Box<dyn Write + Send>,
    ) -> Result<Option<Box<dyn Sink>>> {
        Ok(Some(Box::new(SimgSink::new(request, out)?)))
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
