//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::header::Header;
use crate::{CowImage, NAME, check, create};

/// The cow format.
#[derive(Clone, Copy, Debug, Default)]
pub struct CowFormat;

/// The cow format, for a registry.
pub static COW: CowFormat = CowFormat;

impl Format for CowFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if Header::is_one(sample.head) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let image = match request.is_writable()? {
            true => CowImage::open_writable(request.store, request.limits)?,
            false => CowImage::open(request.store, request.limits)?,
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
