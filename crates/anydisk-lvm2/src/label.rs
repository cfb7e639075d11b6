//! The label of a physical volume: bytes to what it says. Pure.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{HostOffset, Invalid, Result, Value};
use zerocopy::FromBytes;

use crate::layout::{
    DiskArea, LABEL_ID, LABEL_SECTORS, LABEL_TYPE, LabelHeader, PvHeader, SECTOR_LEN,
};
use crate::{NAME, checksum, uuid};

/// Bytes at the start of a device in which a label is looked for.
pub(crate) const SEARCHED: usize = LABEL_SECTORS * SECTOR_LEN;

/// Places and sizes in bytes.
type Areas = Vec<(HostOffset, u64)>;

/// What a label says of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The identity of the physical volume, with dashes.
    pub(crate) id: String,
    /// Size of the device in bytes, as it was when the label was written.
    pub(crate) device_size: u64,
    /// Where metadata areas begin, and their sizes in bytes.
    pub(crate) areas: Areas,
}

/// Whether the first sectors of a device look like those of a physical volume. The checksum is not
/// looked at.
pub(crate) fn has_label(head: &[u8]) -> bool {
    let sectors = head.chunks(SECTOR_LEN).take(LABEL_SECTORS);
    sectors.filter_map(|sector| LabelHeader::read_from_prefix(sector).ok()).enumerate().any(
        |(number, (label, _))| {
            label.id == LABEL_ID && label.kind == LABEL_TYPE && label.sector.get() == number as u64
        },
    )
}

impl Label {
    /// The first good label in the first sectors of a device; `None` if there is none.
    ///
    /// # Errors
    /// [`Invalid`] for a label whose checksum is right and whose lists are not.
    pub(crate) fn find(head: &[u8]) -> Result<Option<Self>> {
        for (number, sector) in head.chunks_exact(SECTOR_LEN).take(LABEL_SECTORS).enumerate() {
            if let Some(header) = label_in(sector, number as u64) {
                return Ok(Some(Self::parse(sector, number as u64, header)?));
            }
        }
        Ok(None)
    }

    fn parse(sector: &[u8], number: u64, label: LabelHeader) -> Result<Self> {
        let base = HostOffset(number.saturating_mul(SECTOR_LEN as u64));
        let too_long = |field: &'static str| Invalid {
            format: NAME,
            field: field.into(),
            at: base.saturating_add(label.offset.get().into()),
            found: Value::Missing,
            expected: "inside the sector of the label".into(),
        };
        let at = usize::try_from(label.offset.get()).unwrap_or(usize::MAX);
        let rest = sector.get(at..).unwrap_or_default();
        let (header, rest) =
            PvHeader::read_from_prefix(rest).map_err(|_| too_long("physical volume header"))?;
        let (_, rest) = areas(rest).ok_or_else(|| too_long("list of data areas"))?;
        let (areas, _) = areas(rest).ok_or_else(|| too_long("list of metadata areas"))?;
        Ok(Self { id: uuid::dashed(&header.uuid), device_size: header.device_size.get(), areas })
    }
}

/// The label in this sector, if it is one and its checksum is right.
fn label_in(sector: &[u8], number: u64) -> Option<LabelHeader> {
    let (label, _) = LabelHeader::read_from_prefix(sector).ok()?;
    let covered = sector.get(20..)?;
    let good = label.id == LABEL_ID
        && label.kind == LABEL_TYPE
        && label.sector.get() == number
        && label.offset.get() >= 32
        && label.crc.get() == checksum::lvm(covered);
    good.then_some(label)
}

/// A list of areas up to its end, and what follows it. `None` if it has no end in the sector.
fn areas(mut bytes: &[u8]) -> Option<(Areas, &[u8])> {
    let mut areas = Vec::new();
    loop {
        let (area, rest) = DiskArea::read_from_prefix(bytes).ok()?;
        bytes = rest;
        match area.offset.get() {
            0 => return Some((areas, bytes)),
            offset => areas.push((HostOffset(offset), area.size.get())),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "buffers of the tests' own making"
)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// The first sectors of a device with a label in sector `number`.
    fn device(number: u64, areas: &[(u64, u64)]) -> Vec<u8> {
        let mut sector = vec![0; SECTOR_LEN];
        let label = LabelHeader {
            id: LABEL_ID,
            sector: number.into(),
            crc: 0.into(),
            offset: 32.into(),
            kind: LABEL_TYPE,
        };
        sector[..32].copy_from_slice(label.as_bytes());
        sector[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
        sector[64..72].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        for (index, word) in areas.iter().flat_map(|&(at, len)| [at, len]).enumerate() {
            let place = 72 + 8 * index;
            sector[place..place + 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = checksum::lvm(&sector[20..]);
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
        let mut head = vec![0; SEARCHED];
        let at = usize::try_from(number).unwrap() * SECTOR_LEN;
        head[at..at + SECTOR_LEN].copy_from_slice(&sector);
        head
    }

    #[test]
    fn a_label_in_any_of_the_four_sectors_is_found_with_its_areas() {
        for number in 0..4 {
            let head = device(number, &[(1 << 20, 0), (0, 0), (4096, 1_044_480), (0, 0)]);
            let label = Label::find(&head).unwrap().unwrap();
            assert_eq!(label.id, "abcdef-ghij-klmn-opqr-stuv-wxyz-012345");
            assert_eq!(label.device_size, 1 << 30);
            assert_eq!(label.areas, [(HostOffset(4096), 1_044_480)]);
            assert!(has_label(&head));
        }
    }

    #[test]
    fn a_label_with_a_wrong_checksum_or_in_the_wrong_sector_is_none() {
        let mut head = device(1, &[]);
        head[600] ^= 1;
        assert_eq!(Label::find(&head).unwrap(), None);
        let mut moved = vec![0; SEARCHED];
        moved[1024..1536].copy_from_slice(&device(1, &[])[512..1024]);
        assert_eq!(Label::find(&moved).unwrap(), None);
    }

    #[test]
    fn a_list_of_areas_without_an_end_is_refused() {
        let head = device(1, &[(1, 1); 27]);
        let error = Label::find(&head).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lvm2: list of data areas at 0x220 is missing, expected inside the sector of the label"
        );
    }
}
