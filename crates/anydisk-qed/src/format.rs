//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{Error, Format, OpenRequest, Opened, Result, Sample, Verdict};

use crate::layout::MAGIC;
use crate::{NAME, QedImage};

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
        if request.is_writable()? {
            return Err(Error::ReadOnly { why: "QED images are only read".into() });
        }
        let image = QedImage::open(request.store, request.limits)?;
        let backing = image.backing();
        Ok(Opened::new(Arc::new(image), backing))
    }
}
