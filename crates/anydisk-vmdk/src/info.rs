//! What `info` shows, in qemu-img's words.

use anydisk_core::{Detail, DetailValue, Id, ImageInfo};

use crate::NAME;
use crate::descriptor::{Descriptor, NO_PARENT};
use crate::extent::{Body, File, Packed, Part};
use crate::open::Assembly;

const CID: &str = "cid";
const PARENT_CID: &str = "parent-cid";

/// The info of an image that was taken apart.
pub(crate) fn of(assembly: &Assembly) -> ImageInfo {
    let descriptor = &assembly.descriptor;
    let sparse = || {
        assembly.parts.iter().filter_map(|part| match &part.body {
            Body::Sparse(sparse) => Some(sparse),
            _ => None,
        })
    };
    let mut info = ImageInfo::new(NAME);
    info.cluster_size = sparse().map(|sparse| sparse.geometry().grain()).max();
    info.compressed = sparse().any(|sparse| sparse.packed != Packed::No);
    info.dirty = sparse().any(|sparse| sparse.unclean);
    info.content_id = descriptor.content_id.map(Id::from);
    let extents = assembly.parts.iter().map(|part| extent(part, &assembly.files)).collect();
    info.details = vec![
        number(CID, descriptor.content_id.unwrap_or_default().into()),
        number(PARENT_CID, parent_id(descriptor).into()),
        text("create-type", &descriptor.create_type),
        Detail { name: "extents", value: DetailValue::List(extents) },
    ];
    info
}

/// Puts the content IDs of a descriptor into an info.
pub(crate) fn set_ids(info: &mut ImageInfo, descriptor: &Descriptor) {
    info.content_id = descriptor.content_id.map(Id::from);
    for detail in &mut info.details {
        match detail.name {
            CID => detail.value = id_value(descriptor.content_id.unwrap_or_default()),
            PARENT_CID => detail.value = id_value(parent_id(descriptor)),
            _ => {}
        }
    }
}

fn parent_id(descriptor: &Descriptor) -> u32 {
    descriptor.parent.as_ref().map_or(NO_PARENT, |parent| parent.raw_content_id)
}

fn id_value(id: u32) -> DetailValue {
    DetailValue::Number(id.into())
}

fn extent(part: &Part, files: &[File]) -> DetailValue {
    let (file, grain, packed) = match &part.body {
        Body::Zero => (None, None, false),
        Body::Flat(flat) => (Some(flat.file), None, false),
        Body::Sparse(sparse) => {
            (Some(sparse.file), Some(sparse.geometry().grain()), sparse.packed != Packed::No)
        }
    };
    let mut details = Vec::new();
    if packed {
        details.push(Detail { name: "compressed", value: DetailValue::Flag(true) });
    }
    details.push(number("virtual-size", part.range().len()));
    if let Some(file) = file.and_then(|number| files.get(number)) {
        details.push(text("filename", &file.name));
    }
    if let Some(grain) = grain {
        details.push(number("cluster-size", grain));
    }
    details.push(text("format", part.kind));
    DetailValue::Map(details)
}

fn number(name: &'static str, value: u64) -> Detail {
    Detail { name, value: DetailValue::Number(value) }
}

fn text(name: &'static str, value: &str) -> Detail {
    Detail { name, value: DetailValue::Text(value.to_owned()) }
}
