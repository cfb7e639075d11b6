//! New images, and how large they get.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Error, GuestRange, HostOffset, Image, Measure, MeasureRequest, OptionKind,
    OptionSpec, Options, Reference, Result, Storage,
};

use crate::header::feature_bits;
use crate::layout::RawHeader;
use crate::limits::BACKING_NAME;
use crate::{Geometry, Header, NAME, QedImage};

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
        help: "format of the image below; the file has room for `raw` only",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "cluster_size",
        help: "unit of allocation, 4k to 64M, a power of two",
        kind: OptionKind::Size,
        default: Some("64k"),
    },
    OptionSpec {
        name: "table_size",
        help: "clusters of a table: 2, 4, 8 or 16. With 1 qemu would not open the image",
        kind: OptionKind::Number,
        default: None,
    },
];

/// Creates an image in an empty store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let below = request.below();
    let header = plan(request.options, request.size, below.as_ref())?;
    let name = below.map(|below| below.name).unwrap_or_default();
    let store = &request.store;
    store.set_len(header.l1_piece().end().get())?;
    store.write_at(HostOffset::ZERO, &[&header.to_bytes()[..], &name].concat())?;
    Ok(Arc::new(QedImage::open_writable(Arc::clone(store), request.limits)?))
}

fn plan(options: &Options, size: u64, below: Option<&Reference>) -> Result<Header> {
    let len = below.map_or(0, |below| below.name.len());
    let has_nul = below.is_some_and(|below| below.name.contains(&0));
    let len = u32::try_from(len).ok().filter(|len| *len <= BACKING_NAME && !has_nul);
    let len =
        len.ok_or_else(|| options.refuse("backing_file", "at most 1023 bytes, none of them 0"))?;
    let cluster_bits = cluster_bits(options)?;
    let table_size = options.number("table_size").unwrap_or(4);
    let table_size = [2, 4, 8, 16].into_iter().find(|clusters| u64::from(*clusters) == table_size);
    let header = Header {
        cluster_bits,
        table_size: table_size.ok_or_else(|| options.refuse("table_size", "2, 4, 8 or 16"))?,
        header_size: 1,
        features: feature_bits(below),
        compat_features: 0,
        autoclear_features: 0,
        l1_table_offset: HostOffset(1 << cluster_bits),
        image_size: size.checked_next_multiple_of(512).unwrap_or(u64::MAX),
        backing_filename: (len > 0).then_some((HostOffset(size_of::<RawHeader>() as u64), len)),
    };
    // The rules for reading are those for writing.
    match Header::parse(&header.to_bytes(), header.l1_piece().end().get()) {
        Err(Error::Invalid(invalid)) if invalid.field == "image_size" => {
            let feature = format!("a disk of {size} bytes, with tables of this size").into();
            Err(Error::Unsupported { format: NAME, feature })
        }
        parsed => parsed,
    }
}

fn cluster_bits(options: &Options) -> Result<u32> {
    let size = options.number("cluster_size").unwrap_or(64 << 10);
    match size.is_power_of_two() && (4 << 10..=64 << 20).contains(&size) {
        true => Ok(size.trailing_zeros()),
        false => Err(options.refuse("cluster_size", "a power of two, 4k to 64M")),
    }
}

/// Bytes that a new image takes: header, L1 table, the tables that are needed, and clusters.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let header = plan(request.options, request.size, None)?;
    let all = [GuestRange::whole(header.image_size)];
    Ok(Measure {
        required: size_with(&header, request.data),
        fully_allocated: size_with(&header, &all),
    })
}

fn size_with(header: &Header, data: &[GuestRange]) -> u64 {
    let geometry = Geometry::new(header);
    let tables = units(data, geometry.coverage()).saturating_mul(geometry.table_len());
    let clusters = units(data, geometry.cluster()).saturating_mul(geometry.cluster());
    header.l1_piece().end().get().saturating_add(tables).saturating_add(clusters)
}

/// How many units of `unit` bytes the ranges touch, which rise and do not overlap.
fn units(data: &[GuestRange], unit: u64) -> u64 {
    let mut next = 0;
    let mut count = 0;
    for range in data.iter().filter(|range| !range.is_empty()) {
        let first = (range.start().get() / unit).max(next);
        next = next.max(range.end().get().div_ceil(unit));
        count += next - first.min(next);
    }
    count
}
