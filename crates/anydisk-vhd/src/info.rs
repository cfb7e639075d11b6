//! What `info` shows; qemu-img shows nothing of it but the size of a block.

use anydisk_core::{Detail, Id, ImageInfo};

use crate::NAME;
use crate::footer::Kind;
use crate::image::{Body, VhdImage};

/// The info of an open image.
pub(crate) fn of(image: &VhdImage) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    match &image.body {
        Body::Fixed(_) => info.fixed = true,
        Body::Blocks(blocks) => info.cluster_size = Some(blocks.shape().block),
    }
    let (footer, uuid) = (&image.footer, image.footer.uuid());
    info.id = Some(uuid).filter(|uuid| !uuid.is_nil()).map(Id::Uuid);
    let creator = String::from_utf8_lossy(&footer.raw.creator_application);
    info.more = vec![
        Detail::text("type", word(footer.kind)),
        Detail::text("uuid", uuid.to_string()),
        Detail::text("creator-application", creator.trim_end_matches([' ', '\0'])),
    ];
    info
}

/// The field's word for it.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Fixed => "fixed",
        Kind::Dynamic => "dynamic",
        Kind::Differencing => "differencing",
    }
}
