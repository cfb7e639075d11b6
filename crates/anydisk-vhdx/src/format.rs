//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::header::has_signature;
use crate::{NAME, VhdxImage, check, create};

/// The VHDX format.
#[derive(Clone, Copy, Debug, Default)]
pub struct VhdxFormat;

/// The VHDX format, for a registry.
pub static VHDX: VhdxFormat = VhdxFormat;

impl Format for VhdxFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if has_signature(sample.head) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let (image, backing) = VhdxImage::open(&request)?;
        let warnings = image.warnings();
        Ok(Opened::new(Arc::new(image), backing).with_warnings(warnings))
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        check::check(request, found)
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        create::measure(request)
    }
}
