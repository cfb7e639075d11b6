//! Numbers by which formats know images and states of their content.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// What a format calls an image, or one state of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Id {
    /// A number of 32 bits (VMDK's CID).
    Number(u32),
    /// A UUID (VDI, VHD, VHDX, Parallels).
    Uuid(Uuid),
}

/// What an image and its content are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Of the image.
    pub id: Id,
    /// Of its content, where the format keeps such a number.
    pub content: Option<Id>,
}

impl Id {
    /// The number, if it is one.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(number),
            Self::Uuid(_) => None,
        }
    }

    /// The UUID, if it is one.
    #[must_use]
    pub const fn uuid(self) -> Option<Uuid> {
        match self {
            Self::Number(_) => None,
            Self::Uuid(uuid) => Some(uuid),
        }
    }
}

impl From<u32> for Id {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<Uuid> for Id {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:08x}"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// A UUID (RFC 9562), its bytes in the order in which the text shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// The UUID that stands for none.
    pub const NIL: Self = Self([0; 16]);

    /// The UUID of these bytes, in the order of its text.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order of its text.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From the order in which Microsoft and VirtualBox store it: the first three fields
    /// little-endian.
    #[must_use]
    pub const fn from_mixed_endian(bytes: [u8; 16]) -> Self {
        Self(swapped(bytes))
    }

    /// In the order in which Microsoft and VirtualBox store it.
    #[must_use]
    pub const fn to_mixed_endian(self) -> [u8; 16] {
        swapped(self.0)
    }

    /// Whether it stands for none.
    #[must_use]
    pub fn is_nil(self) -> bool {
        self == Self::NIL
    }

    /// A new random one (version 4).
    #[must_use]
    pub fn random() -> Self {
        // The standard library's seeds for hash tables are random, and those of two calls differ.
        let half = || RandomState::new().build_hasher().finish().to_le_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&half());
        bytes[8..].copy_from_slice(&half());
        Self::made_of(bytes, 4)
    }

    /// One that always comes out of the same parts (version 8).
    #[must_use]
    pub fn derived(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; 16];
        for (half, seed) in bytes.chunks_mut(8).zip([0xCBF2_9CE4_8422_2325_u64, 0x1234_5678]) {
            // FNV-1a, which is the same on every machine.
            let all = parts.iter().flat_map(|part| part.iter().chain(&[0]));
            let hash = all.fold(seed, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
            });
            half.copy_from_slice(&hash.to_le_bytes());
        }
        Self::made_of(bytes, 8)
    }

    const fn made_of(mut bytes: [u8; 16], version: u8) -> Self {
        bytes[6] = (bytes[6] & 0x0F) | version << 4;
        bytes[8] = (bytes[8] & 0x3F) | 0x80;
        Self(bytes)
    }
}

const fn swapped(b: [u8; 16]) -> [u8; 16] {
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The text is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID, such as 0fc63daf-8483-4772-8e79-3d69d8477de4")]
pub struct NotAUuid;

impl FromStr for Uuid {
    type Err = NotAUuid;

    /// The usual text: 32 hexadecimal digits in five groups, in braces or not.
    fn from_str(text: &str) -> Result<Self, NotAUuid> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let text = inner.unwrap_or(text).as_bytes();
        let hyphens = |index: &usize| matches!(index, 8 | 13 | 18 | 23);
        if text.len() != 36 || (0..36).any(|index| hyphens(&index) != (text[index] == b'-')) {
            return Err(NotAUuid);
        }
        let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| digit(*byte));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (high, low) = (digits.next().flatten(), digits.next().flatten());
            *byte = high.ok_or(NotAUuid)? << 4 | low.ok_or(NotAUuid)?;
        }
        Ok(Self(bytes))
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_as_it_is_written_in_text_and_in_mixed_endian_bytes() {
        let text = "59a98b63-599f-49dc-a0ae-5a750d599ce6";
        let uuid: Uuid = text.parse().expect("a UUID");
        assert_eq!(uuid.to_string(), text);
        assert_eq!(format!("{{{text}}}").to_uppercase().parse(), Ok(uuid));
        let stored = [
            0x63, 0x8b, 0xa9, 0x59, 0x9f, 0x59, 0xdc, 0x49, 0xa0, 0xae, 0x5a, 0x75, 0x0d, 0x59,
            0x9c, 0xe6,
        ];
        assert_eq!(uuid.to_mixed_endian(), stored);
        assert_eq!(Uuid::from_mixed_endian(stored), uuid);
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "59a98b63",
            "59a98b63-599f-49dc-a0ae-5a750d599ce",
            "59a98b63-599f-49dc-a0ae-5a750d599ceg",
            "59a98b63+599f-49dc-a0ae-5a750d599ce6",
            "59a98b635-99f-49dc-a0ae-5a750d599ce6",
            "{59a98b63-599f-49dc-a0ae-5a750d599ce6",
            "59a98b63-599f-49dc-a0ae-5a750d599c\u{e9}",
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(NotAUuid), "{text}");
        }
    }

    #[test]
    fn random_ones_differ_and_derived_ones_depend_on_every_part() {
        assert_ne!(Uuid::random(), Uuid::random());
        assert_eq!(Uuid::derived(&[b"a", b"b"]), Uuid::derived(&[b"a", b"b"]));
        assert_ne!(Uuid::derived(&[b"a", b"b"]), Uuid::derived(&[b"ab", b""]));
        assert_eq!(Uuid::random().to_string().as_bytes()[14], b'4');
    }
}
