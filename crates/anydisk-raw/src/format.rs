//! Recognising, opening and creating.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Error, Format, Image, Measure, MeasureRequest, OpenRequest, Opened,
    OptionKind, OptionSpec, Result, Sample, Storage, Verdict,
};
use anydisk_storage::HostOffset;

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
        Ok(Opened { image: Arc::new(image), backing: None })
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        if request.backing.is_some() {
            return Err(Error::Unsupported { format: NAME, feature: "a backing file".into() });
        }
        request.store.set_len(request.size)?;
        match request.options.text("preallocation") {
            Some("falloc") => allocate(&*request.store, request.size)?,
            Some("full") => write_zeroes(&*request.store, request.size)?,
            _ => {}
        }
        Ok(Arc::new(RawImage::open(request.store, true)?))
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        // As qemu-img: holes count, since not every file system and copy keeps them.
        Ok(Measure { required: request.size, fully_allocated: request.size })
    }
}

fn allocate(store: &dyn Storage, size: u64) -> Result<()> {
    match store.space() {
        Some(space) => Ok(space.allocate(HostOffset::ZERO, size)?),
        None => Err(Error::Unsupported {
            format: NAME,
            feature: "preallocation=falloc on this store".into(),
        }),
    }
}

fn write_zeroes(store: &dyn Storage, size: u64) -> Result<()> {
    let zeroes = vec![0; 1 << 20];
    let mut done = 0;
    while done < size {
        let part = usize::try_from(size - done).unwrap_or(usize::MAX).min(zeroes.len());
        store.write_at(HostOffset(done), &zeroes[..part])?;
        done += part as u64;
    }
    Ok(())
}
