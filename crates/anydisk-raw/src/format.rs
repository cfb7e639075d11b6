//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Error, Format, Image, Measure, MeasureRequest, OpenRequest, Opened,
    OptionKind, OptionSpec, Preallocation, Result, Sample, Verdict,
};
use anydisk_storage::HostOffset;

use crate::reserve::reserve;
use crate::{NAME, RawImage};

/// The raw format.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawFormat;

/// The raw format, for a registry.
pub static RAW: RawFormat = RawFormat;

const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "preallocation",
    help: "off: sparse; falloc: reserve space; full: write zeroes",
    kind: OptionKind::Word(&["off", "falloc", "full"]),
    default: None,
}];

impl Format for RawFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, _: &Sample<'_>) -> Verdict {
        Verdict::Anything
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        let writable = request.access == Access::ReadWrite;
        let image = RawImage::open(request.store, writable)?;
        Ok(Opened::new(Arc::new(image), None))
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        if request.backing.is_some() {
            return Err(Error::Unsupported { format: NAME, feature: "a backing file".into() });
        }
        request.store.set_len(request.size)?;
        let wanted = request.options.text("preallocation").and_then(Preallocation::of_word);
        reserve(&*request.store, HostOffset::ZERO, request.size, wanted.unwrap_or_default())?;
        Ok(Arc::new(RawImage::open(request.store, true)?))
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        // As qemu-img: holes count, since not every file system and copy keeps them.
        Ok(Measure { required: request.size, fully_allocated: request.size })
    }
}
