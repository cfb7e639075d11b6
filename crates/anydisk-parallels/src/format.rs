//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Format, Image, Measure, MeasureRequest, OpenRequest, Opened, OptionSpec, Result,
    Sample, Verdict,
};

use crate::header::has_magic;
use crate::{NAME, ParallelsImage, create, measure};

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
        if has_magic(sample.head) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let image = ParallelsImage::open(&request)?;
        let warnings = image.warnings();
        Ok(Opened { warnings, ..Opened::new(Arc::new(image), None) })
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        measure::measure(request)
    }
}
