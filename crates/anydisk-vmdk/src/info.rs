//! What `info` shows, in qemu-img's words.

use anydisk_core::{Detail, DetailValue, Id, ImageInfo};

use crate::NAME;
use crate::descriptor::{Descriptor, NO_PARENT};
use crate::extent::{Body, File, Packed, Part, Sparse};
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
        Detail::number(CID, descriptor.content_id.unwrap_or_default().into()),
        Detail::number(PARENT_CID, parent_id(descriptor).into()),
        Detail::text("create-type", descriptor.create_type.as_str()),
        Detail { name: "extents", value: DetailValue::List(extents) },
    ];
    info.more = database(descriptor).collect();
    if sparse().any(Sparse::has_zero_entries) {
        info.more.push(Detail::flag("zeroed-grain", true));
    }
    info
}

/// What the disk database says for machines and people, under the names of the options.
const DATABASE: [(&str, &str); 4] = [
    ("ddb.adapterType", "adapter-type"),
    ("ddb.virtualHWVersion", "hardware-version"),
    ("ddb.toolsVersion", "tools-version"),
    ("ddb.uuid", "uuid"),
];

fn database(descriptor: &Descriptor) -> impl Iterator<Item = Detail> {
    DATABASE.into_iter().filter_map(|(key, name)| {
        let value = String::from_utf8_lossy(descriptor.value(key)?);
        Some(Detail::text(name, value))
    })
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
        details.push(Detail::flag("compressed", true));
    }
    details.push(Detail::number("virtual-size", part.range().len()));
    if let Some(file) = file.and_then(|number| files.get(number)) {
        details.push(Detail::text("filename", file.name.as_str()));
    }
    if let Some(grain) = grain {
        details.push(Detail::number("cluster-size", grain));
    }
    details.push(Detail::text("format", part.kind));
    DetailValue::Map(details)
}
