//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, Image, Measure, MeasureRequest,
    OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::layout::{MAGIC, VERSION};
use crate::{NAME, QcowImage, check, create};

/// The qcow format.
#[derive(Clone, Copy, Debug, Default)]
pub struct QcowFormat;

/// The qcow format, for a registry.
pub static QCOW: QcowFormat = QcowFormat;

impl Format for QcowFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let start = [MAGIC, VERSION].map(u32::to_be_bytes);
        if sample.head.starts_with(start.as_flattened()) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let (writable, store) = (request.is_writable()?, request.store);
        let image = match writable {
            true => QcowImage::open_writable(store, request.limits)?,
            false => QcowImage::open(store, request.limits)?,
        };
        let image = image.unlocked(request.location, request.secrets)?;
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
