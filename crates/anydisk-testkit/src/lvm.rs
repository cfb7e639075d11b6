//! Physical volumes of LVM2 made by hand: a label, one metadata area, and whatever text one likes.

use crate::digest::crc;

/// Where the metadata area begins, in bytes.
const AREA: usize = 4096;
/// Bytes of the metadata area.
const AREA_LEN: usize = (1 << 20) - AREA;
/// Where extents begin, in bytes: the text says `pe_start = 2048`.
pub const EXTENTS: usize = 1 << 20;

/// The id of every group of [`text`].
pub const GROUP: &str = "groupg-roup-grou-pgro-upgr-oupg-roupgr";

/// A device with the identity `id` (32 characters), whose metadata area holds `text`, and whose
/// extents hold `data`.
///
/// # Panics
/// If the text does not fit into the area, or `id` into its field.
#[must_use]
pub fn device(id: &str, text: &str, data: &[u8]) -> Vec<u8> {
    let mut device = vec![0; EXTENTS];
    label(&mut device, id, EXTENTS + data.len());
    area(&mut device, text);
    device.extend_from_slice(data);
    device
}

/// The id of a label as the text has it, with dashes.
#[must_use]
pub fn dashed(id: &str) -> String {
    [&id[..6], &id[6..10], &id[10..14], &id[14..18], &id[18..22], &id[22..26], &id[26..]].join("-")
}

/// The text of a group `vg` with extents of 64 KiB, on devices `pv0`, `pv1` and so on with these
/// ids and 1024 extents each. `volumes` is what stands in the section of volumes.
#[must_use]
pub fn text(ids: &[&str], seqno: u64, volumes: &str) -> String {
    let devices = ids.iter().enumerate().map(|(index, id)| {
        let id = dashed(id);
        format!("pv{index} {{ id = \"{id}\" pe_start = 2048 pe_count = 1024 }}\n")
    });
    let devices: String = devices.collect();
    format!(
        "contents = \"Text Format Volume Group\"\nversion = 1\nvg {{\nid = \"{GROUP}\"\n\
         seqno = {seqno}\nextent_size = 128\nphysical_volumes {{\n{devices}}}\n\
         logical_volumes {{\n{volumes}\n}}\n}}\n"
    )
}

/// A visible volume of one segment, for [`text`]: `extents` extents, with these further items.
#[must_use]
pub fn volume(name: &str, extents: u64, items: &str) -> String {
    format!(
        "{name} {{ status = [\"READ\", \"VISIBLE\"] segment_count = 1\n\
         segment1 {{ start_extent = 0 extent_count = {extents} {items} }} }}\n"
    )
}

/// As [`volume`], of type linear on `on` (a device or a volume) from `extent`.
#[must_use]
pub fn linear(name: &str, extents: u64, on: &str, extent: u64) -> String {
    let items = format!("type = \"striped\" stripe_count = 1 stripes = [\"{on}\", {extent}]");
    volume(name, extents, &items)
}

fn label(device: &mut [u8], id: &str, len: usize) {
    let sector = &mut device[512..1024];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8] = 1;
    sector[20] = 32;
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(id.as_bytes());
    // The size, the list of data areas with its end, that of metadata areas with its end.
    let numbers = [len, EXTENTS, 0, 0, 0, AREA, AREA_LEN, 0, 0];
    for (index, number) in numbers.into_iter().enumerate() {
        sector[64 + 8 * index..][..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    let crc = checksum(&sector[20..]);
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn area(device: &mut [u8], text: &str) {
    let mut text = text.as_bytes().to_vec();
    text.push(0);
    let area = &mut device[AREA..][..AREA_LEN];
    area[512..][..text.len()].copy_from_slice(&text);
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20] = 1;
    for (index, number) in [AREA, AREA_LEN, 512, text.len()].into_iter().enumerate() {
        area[24 + 8 * index..][..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    area[56..60].copy_from_slice(&checksum(&text).to_le_bytes());
    let crc = checksum(&area[4..512]);
    area[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Puts the checksums of the label and of the metadata area's header right, and that of the text if
/// the header has it inside the area.
///
/// # Panics
/// If the bytes are too short for a device.
pub fn reseal(device: &mut [u8]) {
    let crc = checksum(&device[512 + 20..1024]);
    device[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
    let area = &mut device[AREA..][..AREA_LEN];
    let number = |at: usize| {
        let bytes = area[at..].first_chunk().copied().expect("inside the header");
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (start, len) = (number(40), number(48));
    let text = start.checked_add(len).and_then(|end| area.get(start..end));
    if let Some(crc) = text.map(checksum) {
        area[56..60].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = checksum(&area[4..512]);
    area[..4].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum of a block of thin or cache metadata from its fifth byte on; `kind` is the constant
/// of its kind.
#[must_use]
pub fn block_checksum(bytes: &[u8], kind: u32) -> u32 {
    crc(bytes, u32::MAX, 0x82F6_3B78) ^ kind
}

/// CRC-32 as LVM starts it.
fn checksum(bytes: &[u8]) -> u32 {
    crc(bytes, 0xF597_A6CF, 0xEDB8_8320)
}
