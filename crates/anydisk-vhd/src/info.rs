//! What `info` shows: just what qemu-img shows of an image.

use anydisk_core::{Id, ImageInfo};

use crate::NAME;
use crate::image::{Body, VhdImage};

/// The info of an open image.
pub(crate) fn of(image: &VhdImage) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    match &image.body {
        Body::Fixed(_) => info.fixed = true,
        Body::Blocks(blocks) => info.cluster_size = Some(blocks.shape().block),
    }
    info.id = Some(image.footer.uuid()).filter(|uuid| !uuid.is_nil()).map(Id::Uuid);
    info
}
