//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{Error, Format, OpenRequest, Opened, Result, Sample, Verdict};

use crate::layout::{MAGIC, VERSION};
use crate::{NAME, QcowImage};

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
        if request.is_writable()? {
            return Err(Error::ReadOnly { why: "qcow is only read".into() });
        }
        let image = QcowImage::open(request.store, request.limits)?;
        let backing = image.backing();
        Ok(Opened::new(Arc::new(image), backing))
    }
}
