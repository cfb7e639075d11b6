//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    AmendRequest, CheckReport, CheckRequest, CreateRequest, Finding, Format, Id, Ids, Image,
    Measure, MeasureRequest, OpenRequest, Opened, OptionSpec, Result, Sample, Verdict,
};

use crate::header::{Header, has_signature};
use crate::{NAME, VdiImage, check, create, link, measure};

/// The VDI format.
#[derive(Clone, Copy, Debug, Default)]
pub struct VdiFormat;

/// The VDI format, for a registry.
pub static VDI: VdiFormat = VdiFormat;

impl Format for VdiFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        if has_signature(sample.head) { Verdict::Magic } else { Verdict::No }
    }

    fn identify(&self, sample: &Sample<'_>) -> Option<Ids> {
        let header = Header::parse(sample.head, sample.len).ok()?;
        let content = Some(Id::Uuid(header.uuids.modify));
        Some(Ids { id: Id::Uuid(header.uuids.create), content })
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let image = VdiImage::open(&request)?;
        let backing = image.backing();
        Ok(Opened::new(Arc::new(image), backing))
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn amend_options(&self) -> &'static [OptionSpec] {
        link::AMEND_OPTIONS
    }

    fn amend(&self, request: AmendRequest<'_>) -> Result<()> {
        link::amend(&request)
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
