//! New images, and how large they get.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Error, GuestRange, HostOffset, Image, Measure, MeasureRequest, OptionKind,
    OptionSpec, Options, Result, SecretRequest, Storage,
};

use crate::crypt::{KEY_SECRET, locked};
use crate::layout::RawHeader;
use crate::table::ENTRY;
use crate::{Geometry, Header, NAME, QcowImage, limits};

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
    OptionSpec {
        name: "encryption",
        help: "the older way to say encrypt.format=aes",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "encrypt.format",
        help: "encrypt the data; aes is weak, and there is nothing else",
        kind: OptionKind::Word(&["aes"]),
        default: None,
    },
    OptionSpec {
        name: "encrypt.key-secret",
        help: "name of the passphrase, of which 16 bytes count",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "cluster_size",
        help: "unit of allocation, 512 to 64k, a power of two; as qemu: 4k, over an image 512",
        kind: OptionKind::Size,
        default: None,
    },
];

/// Sectors are the unit of sizes.
pub(crate) const SECTOR: u64 = 512;

/// Creates an image in an empty store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let name = request.below().map(|below| below.name);
    let name = checked_name(request.options, name.unwrap_or_default())?;
    let header = plan(request.options, request.size, name.len())?;
    if header.encrypted {
        let wanted = SecretRequest::new(KEY_SECRET, request.location);
        request.secrets.secret(&wanted)?.ok_or_else(locked)?;
    }
    let store = &request.store;
    // As qemu: the L1 table is written in sectors.
    let l1_len = header.l1_room();
    store.set_len(header.l1_table_offset.saturating_add(l1_len).get())?;
    store.write_at(HostOffset::ZERO, &[&header.to_bytes()[..], &name].concat())?;
    let image = QcowImage::open_writable(Arc::clone(store), request.limits)?;
    Ok(Arc::new(image.unlocked(request.location, request.secrets)?))
}

fn checked_name(options: &Options, name: Vec<u8>) -> Result<Vec<u8>> {
    let most = usize::try_from(limits::BACKING_NAME).expect("a small number");
    match name.len() <= most && !name.contains(&0) {
        true => Ok(name),
        false => {
            Err(options.refuse("backing_file", format!("at most {most} bytes, none of them 0")))
        }
    }
}

/// The header of an image of `size` bytes over an image with a name of `name` bytes, 0 if there is
/// none.
fn plan(options: &Options, size: u64, name: usize) -> Result<Header> {
    let len = u32::try_from(name).expect("a checked name");
    let head = size_of::<RawHeader>() as u64;
    let cluster_bits = cluster_bits(options, name > 0)?;
    let header = Header {
        backing_file: (len > 0).then_some((HostOffset(head), len)),
        mtime: 0,
        size: size.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX),
        cluster_bits,
        // What qemu takes for its two cluster sizes: tables map 2 MiB.
        l2_bits: 21_u32.saturating_sub(cluster_bits).max(9),
        encrypted: options.encryption()?.is_some(),
        l1_table_offset: HostOffset((head + u64::from(len)).next_multiple_of(ENTRY)),
    };
    if size == 0 {
        return Err(Error::Unsupported { format: NAME, feature: "a disk of 0 bytes".into() });
    }
    // The rules for reading are those for writing.
    Header::parse(&header.to_bytes())
}

fn cluster_bits(options: &Options, over: bool) -> Result<u32> {
    let Some(size) = options.number("cluster_size") else { return Ok(if over { 9 } else { 12 }) };
    let bits = Some(size).filter(|size| size.is_power_of_two()).map(u64::trailing_zeros);
    bits.filter(|bits| limits::CLUSTER_BITS.contains(bits))
        .ok_or_else(|| options.refuse("cluster_size", "a power of two, 512 to 64k"))
}

/// Bytes that a new image takes: header, L1 table, the tables that are needed, and clusters.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let name = request.options.text("backing_file").unwrap_or_default();
    let header = plan(request.options, request.size, name.len().min(1023))?;
    let all = [GuestRange::whole(header.disk_size())];
    Ok(Measure {
        required: size_with(&header, request.data),
        fully_allocated: size_with(&header, &all),
    })
}

fn size_with(header: &Header, data: &[GuestRange]) -> u64 {
    let geometry = Geometry::new(header);
    let head = header.l1_table_offset.get() + header.l1_room();
    let tables = units(data, geometry.coverage());
    let clusters = units(data, geometry.cluster());
    // Tables and clusters begin at multiples of the cluster size.
    let table = geometry.l2_len().next_multiple_of(geometry.cluster());
    match clusters {
        0 => head,
        _ => {
            let start = head.next_multiple_of(geometry.cluster());
            start
                .saturating_add(tables.saturating_mul(table))
                .saturating_add(clusters.saturating_mul(geometry.cluster()))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::GuestOffset;

    #[test]
    fn a_cluster_that_two_ranges_touch_is_counted_once() {
        let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
        let data =
            [range(0, 1), range(5, 4096), range(4200, 2), range(1 << 20, 0), range(1 << 20, 1)];
        assert_eq!(units(&data, 4096), 3);
        assert_eq!(units(&data, 1 << 20), 2);
    }
}
