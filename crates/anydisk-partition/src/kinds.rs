//! What types of partition hold, for those one meets.

/// The type that says: this disk has a GPT.
pub(crate) const PROTECTIVE: u8 = 0xEE;

/// Whether a partition of this type holds the chain of logical ones.
pub(crate) fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0F | 0x85)
}

/// The type of an MBR in words.
pub(crate) fn of_mbr(kind: u8) -> String {
    let known = match kind {
        0x05 | 0x0F | 0x85 => "extended",
        0x01 | 0x04 | 0x06 | 0x0E => "FAT",
        0x0B | 0x0C => "FAT32",
        0x07 => "NTFS or exFAT",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8E => "Linux LVM",
        0xA5 => "FreeBSD",
        0xAF => "HFS+",
        0xEE => "GPT",
        0xEF => "EFI system",
        0xFD => "Linux RAID",
        _ => return format!("type 0x{kind:02x}"),
    };
    known.to_owned()
}

/// Types of a GPT, as their GUIDs are written.
const GPT: [(&str, &str); 13] = [
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux boot"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
    ("ca7d7ccb-63ed-4c53-861c-1742536059cc", "LUKS"),
    ("48465300-0000-11aa-aa11-00306543ecac", "HFS+"),
];

/// The type of a GPT in words.
pub(crate) fn of_gpt(guid: &[u8; 16]) -> String {
    let text = guid_text(guid);
    match GPT.iter().find(|(known, _)| *known == text) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("type {text}"),
    }
}

/// A GUID as it is written: the first three groups are little-endian in the table.
pub(crate) fn guid_text(guid: &[u8; 16]) -> String {
    use std::fmt::Write;
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (count, index) in ORDER.into_iter().enumerate() {
        if matches!(count, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let byte = guid.get(index).copied().unwrap_or(0);
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_written_as_the_field_writes_it() {
        let lvm = [
            0x79, 0xD3, 0xD6, 0xE6, 0x07, 0xF5, 0xC2, 0x44, 0xA2, 0x3C, 0x23, 0x8F, 0x2A, 0x3D,
            0xF9, 0x28,
        ];
        assert_eq!(guid_text(&lvm), "e6d6d379-f507-44c2-a23c-238f2a3df928");
        assert_eq!(of_gpt(&lvm), "Linux LVM");
        assert_eq!(of_gpt(&[0; 16]), "type 00000000-0000-0000-0000-000000000000");
        assert_eq!((of_mbr(0x8E), of_mbr(0x42)), ("Linux LVM".into(), "type 0x42".into()));
    }
}
