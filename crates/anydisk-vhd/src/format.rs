//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::layout::COOKIE;
use crate::{NAME, VhdImage, check, create, measure};

/// The VHD format.
#[derive(Clone, Copy, Debug, Default)]
pub struct VhdFormat;

/// The VHD format, for a registry.
pub static VHD: VhdFormat = VhdFormat;

impl Format for VhdFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["vhd"]
    }

    /// A fixed disk has its only mark at its end, where the guest of a raw disk can write as well:
    /// it is opened by name, and not recognised.
    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if sample.head.starts_with(&COOKIE) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let (image, backing) = VhdImage::open(&request)?;
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
        measure::measure(request)
    }
}
