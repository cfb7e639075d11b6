//! What `info` shows. Of an image that qemu reads too, just what qemu-img shows of it.

use anydisk_core::{Detail, DetailValue, Id, ImageInfo};

use crate::NAME;
use crate::header::{Header, Kind, Uuids};

/// The info of an open image.
pub(crate) fn of(header: &Header, uuids: &Uuids) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    info.cluster_size = Some(header.block);
    info.fixed = header.kind == Kind::Fixed;
    info.id = Some(Id::Uuid(uuids.create));
    info.content_id = Some(Id::Uuid(uuids.modify));
    if !uuids.linkage.is_nil() {
        info.details = vec![
            text("type", header.kind.word().to_owned()),
            text("uuid", uuids.create.to_string()),
            text("modification-uuid", uuids.modify.to_string()),
            text("parent-uuid", uuids.linkage.to_string()),
            text("parent-modification-uuid", uuids.parent_modify.to_string()),
        ];
    }
    info
}

fn text(name: &'static str, value: String) -> Detail {
    Detail { name, value: DetailValue::Text(value) }
}
