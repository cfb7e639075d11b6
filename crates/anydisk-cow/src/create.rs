//! New images, and how large they get.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, HostOffset, Image, Measure, MeasureRequest, OptionKind, OptionSpec, Options,
    Result, Storage,
};

use crate::CowImage;
use crate::header::{Header, SECTOR};
use crate::layout::NAME_LEN;

/// The options of creation.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "backing_file",
        help: "name of the image below, as it will stand in the file",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the image below; the file has no place for it",
        kind: OptionKind::Text,
        default: None,
    },
];

/// Creates an image in an empty store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let name = request.below().map(|below| below.name).unwrap_or_default();
    let header = plan(request.options, request.size, name)?;
    request.store.set_len(header.bitmap_end().get())?;
    request.store.write_at(HostOffset::ZERO, &header.to_bytes())?;
    Ok(Arc::new(CowImage::open_writable(Arc::clone(&request.store), request.limits)?))
}

fn plan(options: &Options, size: u64, name: Vec<u8>) -> Result<Header> {
    if name.len() >= NAME_LEN || name.contains(&0) {
        let expected = format!("at most {} bytes, none of them 0", NAME_LEN - 1);
        return Err(options.refuse("backing_file", expected));
    }
    // QEMU rounded down, which loses data that is converted.
    let size = size.checked_next_multiple_of(SECTOR.into()).unwrap_or(u64::MAX);
    Header::new(size, name)
}

/// Bytes that a new image takes, not counting holes.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let header = plan(request.options, request.size, Vec::new())?;
    let sectors = |range: &anydisk_core::GuestRange| range.grown_to(SECTOR.into()).len();
    let data = request.data.iter().filter(|range| !range.is_empty()).map(sectors);
    let data: u64 = data.sum::<u64>().min(header.size);
    let data_at = header.data.get();
    Ok(Measure { required: data_at + data, fully_allocated: data_at + header.size })
}
