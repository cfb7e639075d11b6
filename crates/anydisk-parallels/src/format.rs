//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, CreateRequest, Finding, Format, HostOffset, Image, Measure,
    MeasureRequest, OpenRequest, Opened, OptionSpec, Reference, Result, Sample, Storage, Verdict,
};

use crate::header::has_magic;
use crate::{NAME, ParallelsBundle, ParallelsImage, bundle, check, create, measure};

/// The Parallels format.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParallelsFormat;

/// The Parallels format, for a registry.
pub static PARALLELS: ParallelsFormat = ParallelsFormat;

impl Format for ParallelsFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        match sample.head {
            head if has_magic(head) => Verdict::Magic,
            head if bundle::begins(head) => Verdict::Likely,
            _ => Verdict::No,
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        if is_descriptor(&*request.store)? {
            return Ok(Opened::new(Arc::new(ParallelsBundle::open(&request)?), None));
        }
        let image = ParallelsImage::open(&request)?;
        let warnings = image.warnings();
        Ok(Opened::new(Arc::new(image), None).with_warnings(warnings))
    }

    fn references(&self, request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
        match is_descriptor(&*request.store)? {
            true => bundle::references(request),
            false => Ok(Vec::new()),
        }
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
        match is_descriptor(&*request.open.store)? {
            true => bundle::check(request, found),
            false => check::check(request, found),
        }
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        measure::measure(request)
    }
}

/// Whether a file is the descriptor of a bundle.
fn is_descriptor(store: &dyn Storage) -> Result<bool> {
    let mut head = [0; 1024];
    let count = store.read_at(HostOffset::ZERO, &mut head)?;
    Ok(bundle::begins(head.get(..count).unwrap_or_default()))
}
