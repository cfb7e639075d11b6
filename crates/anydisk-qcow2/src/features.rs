//! Feature bits and their names.

#![deny(clippy::indexing_slicing)]

use zerocopy::{FromBytes, IntoBytes};

use crate::layout::RawFeatureName;

/// Bits of `incompatible_features`: whoever does not know one must not touch the image.
pub mod incompatible {
    /// Refcounts may be stale.
    pub const DIRTY: u64 = 1 << 0;
    /// Structures are damaged: never write, except to repair.
    pub const CORRUPT: u64 = 1 << 1;
    /// Guest data lies in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// The compression type is not deflate.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries have 128 bits.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// All that have a meaning.
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// Bits of `compatible_features`: may be ignored, and are kept.
pub mod compatible {
    /// A writer may postpone refcounts while the dirty bit is set.
    pub const LAZY_REFCOUNTS: u64 = 1 << 0;
}

/// Bits of `autoclear_features`: cleared by a writer that does not know them.
pub mod autoclear {
    /// The bitmaps are consistent with the data.
    pub const BITMAPS: u64 = 1 << 0;
    /// The external data file alone is the disk.
    pub const RAW_DATA_FILE: u64 = 1 << 1;
}

const INCOMPATIBLE: u8 = 0;
const COMPATIBLE: u8 = 1;
const AUTOCLEAR: u8 = 2;

/// The names that qemu writes, in its order.
const NAMES: [(u8, u8, &str); 8] = [
    (INCOMPATIBLE, 0, "dirty bit"),
    (INCOMPATIBLE, 1, "corrupt bit"),
    (INCOMPATIBLE, 2, "external data file"),
    (INCOMPATIBLE, 3, "compression type"),
    (INCOMPATIBLE, 4, "extended L2 entries"),
    (COMPATIBLE, 0, "lazy refcounts"),
    (AUTOCLEAR, 0, "bitmaps"),
    (AUTOCLEAR, 1, "raw external data"),
];

/// The data of a feature name table with the names of all known bits.
#[must_use]
pub fn name_table() -> Vec<u8> {
    NAMES.iter().flat_map(|(kind, bit, name)| name_entry(*kind, *bit, name)).collect()
}

fn name_entry(kind: u8, bit: u8, name: &str) -> [u8; size_of::<RawFeatureName>()] {
    let mut raw = RawFeatureName { kind, bit, name: [0; 46] };
    for (to, from) in raw.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let mut bytes = [0; size_of::<RawFeatureName>()];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

/// Names the unknown bits of `incompatible_features` in qemu's words: by the feature name table of
/// the file where it has a name, and one mask for the rest. `None` if all bits are known.
pub(crate) fn unknown_incompatible(bits: u64, table: Option<&[u8]>) -> Option<String> {
    let mut unknown = bits & !incompatible::KNOWN;
    if unknown == 0 {
        return None;
    }
    let mut names = Vec::new();
    for raw in table.unwrap_or_default().chunks_exact(size_of::<RawFeatureName>()) {
        let Ok(raw) = RawFeatureName::read_from_bytes(raw) else { continue };
        let bit = 1_u64.checked_shl(raw.bit.into()).unwrap_or(0);
        if raw.kind == INCOMPATIBLE && unknown & bit != 0 {
            unknown &= !bit;
            names.push(until_nul(&raw.name).escape_ascii().to_string());
        }
    }
    if unknown != 0 {
        names.push(format!("Unknown incompatible feature: {unknown:x}"));
    }
    Some(names.join(", "))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bit_is_called_what_the_file_calls_it_and_the_rest_by_its_mask() {
        let table = name_entry(INCOMPATIBLE, 5, "future thing");
        let bits = incompatible::KNOWN | 1 << 5 | 1 << 63;
        assert_eq!(
            unknown_incompatible(bits, Some(&table)).as_deref(),
            Some("future thing, Unknown incompatible feature: 8000000000000000")
        );
    }

    #[test]
    fn names_of_other_kinds_and_of_impossible_bits_are_not_used() {
        let table = [name_entry(COMPATIBLE, 5, "wrong kind"), name_entry(0, 69, "no bit")].concat();
        assert_eq!(
            unknown_incompatible(1 << 5, Some(&table)).as_deref(),
            Some("Unknown incompatible feature: 20")
        );
    }

    #[test]
    fn known_bits_need_no_name() {
        assert_eq!(unknown_incompatible(incompatible::KNOWN, None), None);
    }

    #[test]
    fn a_hostile_name_cannot_carry_control_characters_into_a_message() {
        let table = name_entry(INCOMPATIBLE, 6, "\u{1b}[2J");
        assert_eq!(unknown_incompatible(1 << 6, Some(&table)).as_deref(), Some("\\x1b[2J"));
    }

    #[test]
    fn the_table_of_a_new_image_is_qemus() {
        let table = name_table();
        assert_eq!(table.len(), 384);
        assert_eq!(&table[..11], b"\0\0dirty bit");
        assert_eq!(&table[7 * 48..][..19], b"\x02\x01raw external data");
    }
}
