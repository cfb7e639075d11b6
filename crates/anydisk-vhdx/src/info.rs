//! What `info` shows; qemu-img shows nothing of it but the size of a block.

use anydisk_core::{Detail, Id, ImageInfo};

use crate::NAME;
use crate::image::VhdxImage;

/// The info of an open image.
pub(crate) fn of(image: &VhdxImage) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    let metadata = &image.metadata;
    info.cluster_size = Some(metadata.block);
    info.fixed = metadata.is_fixed;
    let content = image.state().map_or(image.header.data_write, |state| state.data_write());
    info.content_id = Some(Id::Uuid(content));
    let kind = match (metadata.has_parent, metadata.is_fixed) {
        (true, _) => "differencing",
        (false, true) => "fixed",
        (false, false) => "dynamic",
    };
    info.more = vec![
        Detail::text("type", kind),
        Detail::text("virtual-disk-id", metadata.id.to_string()),
        Detail::text("data-write-guid", content.to_string()),
        Detail::number("log-size", image.header.log.len),
        Detail::number("logical-sector-size", metadata.sector),
        Detail::number("physical-sector-size", metadata.physical_sector),
    ];
    info
}
