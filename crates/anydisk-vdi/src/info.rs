//! What `info` shows. Of an image that qemu reads too, qemu-img shows nothing of it.

use anydisk_core::{Detail, Id, ImageInfo};

use crate::NAME;
use crate::header::{Geometry, Header, Kind, Uuids};

/// The info of an open image.
pub(crate) fn of(header: &Header, uuids: &Uuids) -> ImageInfo {
    let mut info = ImageInfo::new(NAME);
    info.cluster_size = Some(header.block);
    info.fixed = header.kind == Kind::Fixed;
    info.id = Some(Id::Uuid(uuids.create));
    info.content_id = Some(Id::Uuid(uuids.modify));
    let mut details = vec![
        Detail::text("type", header.kind.word()),
        Detail::text("uuid", uuids.create.to_string()),
        Detail::text("modification-uuid", uuids.modify.to_string()),
    ];
    let is_child = !uuids.linkage.is_nil();
    if is_child {
        details.push(Detail::text("parent-uuid", uuids.linkage.to_string()));
        details.push(Detail::text("parent-modification-uuid", uuids.parent_modify.to_string()));
    }
    details.extend(header.lchs.map(|lchs| Detail::text("lchs", written(lchs))));
    if !header.comment.is_empty() {
        details.push(Detail::text("comment", header.comment.as_str()));
    }
    if is_child {
        info.details = details;
    } else {
        info.more = details;
    }
    info
}

/// A geometry as the option `lchs` takes it.
fn written(geometry: Geometry) -> String {
    let Geometry { cylinders, heads, sectors } = geometry;
    format!("{cylinders}/{heads}/{sectors}")
}
