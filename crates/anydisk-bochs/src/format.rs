//! Recognising, opening, checking.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, Format, OpenRequest, Opened, Result, Sample, Verdict,
};

use crate::layout::MAGIC;
use crate::{BochsImage, NAME, check};

/// The format of Bochs' growing images.
#[derive(Clone, Copy, Debug, Default)]
pub struct BochsFormat;

/// The format of Bochs' growing images, for a registry.
pub static BOCHS: BochsFormat = BochsFormat;

impl Format for BochsFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if sample.head.starts_with(&MAGIC) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        request.only_read("Bochs")?;
        Ok(Opened::new(Arc::new(BochsImage::open(request.store, request.limits)?), None))
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        check::check(request, found)
    }
}
