//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::layout::MAGIC;
use crate::{NAME, QedImage, check, create};

/// The QED format.
#[derive(Clone, Copy, Debug, Default)]
pub struct QedFormat;

/// The QED format, for a registry.
pub static QED: QedFormat = QedFormat;

impl Format for QedFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if sample.head.starts_with(&MAGIC) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let image = match request.is_writable()? {
            true => QedImage::open_writable(request.store, request.limits)?,
            false => QedImage::open(request.store, request.limits)?,
        };
        let backing = image.backing();
        Ok(Opened::new(Arc::new(image), backing))
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
