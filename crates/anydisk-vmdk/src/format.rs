//! Recognising, opening and creating.

use std::io::Write;
use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Reference, Result, Sample, Sink, SinkRequest, Verdict,
};

use crate::create::{self, Subformat};
use crate::descriptor::is_descriptor;
use crate::layout::{COWD_MAGIC, MAGIC, SESPARSE_MAGIC};
use crate::sink::StreamSink;
use crate::{NAME, VmdkImage, check, measure, open};

/// The VMDK format.
#[derive(Clone, Copy, Debug, Default)]
pub struct VmdkFormat;

/// The VMDK format, for a registry.
pub static VMDK: VmdkFormat = VmdkFormat;

/// Bytes at the start of a text in which the sign of a descriptor is looked for.
const HEADING: usize = 4 << 10;

impl Format for VmdkFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let head = sample.head;
        if head.starts_with(&MAGIC) || head.starts_with(&COWD_MAGIC) {
            return Verdict::Magic;
        }
        if head.starts_with(&SESPARSE_MAGIC) {
            return Verdict::Magic;
        }
        if is_descriptor(&head[..head.len().min(HEADING)]) { Verdict::Likely } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let image = VmdkImage::open(&request)?;
        let backing = image.backing().cloned();
        let warnings = image.warnings().to_vec();
        Ok(Opened::new(Arc::new(image), backing).with_warnings(warnings))
    }

    fn references(&self, request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
        open::references(request)
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn sink(
        &self,
        request: &SinkRequest<'_>,
        out: Box<dyn Write + Send>,
    ) -> Result<Option<Box<dyn Sink>>> {
        if Subformat::of(request.options) != Subformat::Stream {
            return Ok(None);
        }
        Ok(Some(Box::new(StreamSink::new(request, out)?)))
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        check::check(request, found)
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        measure::measure(request)
    }
}
