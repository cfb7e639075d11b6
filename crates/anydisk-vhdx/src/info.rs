//! What `info` shows: just what qemu-img shows of an image.

use anydisk_core::{Id, ImageInfo};

use crate::NAME;
use crate::image::VhdxImage;

/// The info of an open image.
pub(crate) fn of(image: &VhdxImage) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    info.cluster_size = Some(image.metadata.block);
    info.fixed = image.metadata.is_fixed;
    let content = image.state().map_or(image.header.data_write, |state| state.data_write());
    info.content_id = Some(Id::Uuid(content));
    info
}
