//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, BitmapInfo, CheckReport, CheckRequest, CreateRequest, Error, Finding,
    Format, Image, Measure, MeasureRequest, OpenRequest, Opened, OptionSpec, PassphraseChange,
    Reference, Result, Role, Sample, Verdict,
};

use crate::layout::MAGIC;
use crate::{
    Header, NAME, Qcow2Image, WritableImage, amend, check, create, data_file, measure, passphrases,
};

/// The qcow2 format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qcow2Format;

/// The qcow2 format, for a registry.
pub static QCOW2: Qcow2Format = Qcow2Format;

impl Format for Qcow2Format {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let Some((magic, rest)) = sample.head.split_first_chunk::<4>() else { return Verdict::No };
        let Some((version, _)) = rest.split_first_chunk::<4>() else { return Verdict::No };
        // Version 1 with the same magic is the older format qcow.
        let known = u32::from_be_bytes(*magic) == MAGIC && u32::from_be_bytes(*version) >= 2;
        if known { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let stores = data_file::stores(&request)?;
        if request.access == Access::ReadWrite {
            let image = WritableImage::open_in(stores, request.limits)?;
            let backing = backing(image.header());
            return Ok(Opened::new(Arc::new(image), backing));
        }
        let image = Qcow2Image::open_in(stores, request.limits)?;
        let backing = backing(image.header());
        let warning =
            image.no_bitmaps.as_ref().map(|why| format!("The bitmaps are ignored: {why}"));
        let opened = Opened::new(Arc::new(image), backing);
        Ok(opened.with_warnings(warning))
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn amend_options(&self) -> &'static [OptionSpec] {
        amend::OPTIONS
    }

    fn amend(&self, request: AmendRequest<'_>) -> Result<()> {
        amend::amend(&request)
    }

    fn change_passphrases(
        &self,
        request: &OpenRequest<'_>,
        change: &PassphraseChange,
        force: bool,
    ) -> Result<()> {
        passphrases::change_passphrases(request, change, force)
    }

    fn checks_data(&self) -> bool {
        true
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

    fn measure_bitmaps(&self, request: &MeasureRequest<'_>, bitmaps: &[BitmapInfo]) -> Option<u64> {
        measure::bitmaps(request, bitmaps)
    }
}

/// Refuses to write to an image whose refcounts or structures cannot be trusted.
pub(crate) fn check_writable(header: &Header) -> Result<()> {
    let why = match header {
        _ if header.is_corrupt() => "it is marked corrupt (incompatible feature bit 1)",
        _ if header.is_dirty() => {
            "it was not closed cleanly (incompatible feature bit 0), so its refcounts may be stale"
        }
        _ => return Ok(()),
    };
    Err(Error::NeedsRepair { format: NAME, why: why.into() })
}

/// The image below, as the header names it.
fn backing(header: &Header) -> Option<Reference> {
    let mut reference = Reference::new(Role::Backing, header.backing_file.clone()?);
    reference.format =
        header.backing_format().map(|name| String::from_utf8_lossy(name).into_owned());
    Some(reference)
}
