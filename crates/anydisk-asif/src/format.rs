//! Recognising, opening, checking.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, Format, OpenRequest, Opened, Result, Sample, Verdict,
    check_by_reading,
};

use crate::layout::MAGIC;
use crate::{AsifImage, NAME};

/// What a person should know of every such image.
const WARNING: &str = "Nobody but Apple has described ASIF: it is read as others found it to be, \
                       which was never held against Apple's own tools.";

/// The ASIF format.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsifFormat;

/// The ASIF format, for a registry.
pub static ASIF: AsifFormat = AsifFormat;

impl Format for AsifFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Four letters are little: the version follows them, and the size of the header.
    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let follows = |rest: &[u8]| rest.get(4..8) == Some(&[0, 0, 2, 0]);
        match sample.head.strip_prefix(&MAGIC) {
            Some(rest) if follows(rest) => Verdict::Magic,
            _ => Verdict::No,
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        request.only_read("ASIF")?;
        let image = Arc::new(AsifImage::open(request.store, request.limits)?);
        Ok(Opened::new(image, None).with_warnings([WARNING.into()]))
    }

    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        let image = AsifImage::open(Arc::clone(&request.open.store), request.open.limits)?;
        let unit = image.header().geometry.chunk();
        check_by_reading(Arc::new(image), unit, request, found)
    }
}
