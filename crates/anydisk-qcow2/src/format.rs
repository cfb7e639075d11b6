//! Recognising and opening.

use std::sync::Arc;

use anydisk_core::{
    Access, Error, Format, OpenRequest, Opened, Reference, Result, Role, Sample, Verdict,
};

use crate::{Header, NAME, Qcow2Image};

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
        // Version 1 with the same magic is the older format qcow.
        match sample.head {
            [b'Q', b'F', b'I', 0xFB, version @ ..] => match version {
                [0, 0, 0, 0 | 1, ..] => Verdict::No,
                [_, _, _, _, ..] => Verdict::Magic,
                _ => Verdict::No,
            },
            _ => Verdict::No,
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        if request.access == Access::ReadWrite {
            return Err(Error::Unsupported { format: NAME, feature: "writing".into() });
        }
        let image = Qcow2Image::open(request.store, request.limits)?;
        let backing = backing(image.header());
        Ok(Opened { image: Arc::new(image), backing })
    }
}

/// The image below, as the header names it.
fn backing(header: &Header) -> Option<Reference> {
    let mut reference = Reference::new(Role::Backing, header.backing_file.clone()?);
    reference.format =
        header.backing_format().map(|name| String::from_utf8_lossy(name).into_owned());
    Some(reference)
}
