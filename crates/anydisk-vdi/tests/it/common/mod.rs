//! What several tests use.
use anydisk_core::{HostOffset, Storage, StorageExt, Uuid};

/// The UUID of the image below, where there is one.
pub(crate) const PARENT: Uuid = Uuid::from_bytes([0x11; 16]);

/// The UUID of its content.
pub(crate) const PARENT_MODIFY: Uuid = Uuid::from_bytes([0x22; 16]);

/// A VDI made by hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByHand {
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// Bytes of a block.
    pub(crate) block: u32,
    /// Bytes before the data of a block.
    pub(crate) extra: u32,
    /// It lies over another image.
    pub(crate) has_parent: bool,
    /// The header is that of version 0.
    pub(crate) is_old: bool,
}

impl ByHand {
    pub(crate) const SMALL: Self =
        Self { size: 64 << 10, block: 1024, extra: 0, has_parent: false, is_old: false };

    fn blocks(self) -> u32 {
        u32::try_from(self.size.div_ceil(self.block.into())).expect("a small disk")
    }

    /// Where the map is.
    pub(crate) fn table(self) -> usize {
        if self.is_old { 420 } else { 512 }
    }

    /// Where the first block is.
    pub(crate) fn first(self) -> usize {
        let end = self.table() + 4 * usize::try_from(self.blocks()).expect("small");
        if self.is_old { end } else { end.next_multiple_of(512) }
    }

    /// The file: header and map, no block.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut file = b"<<< by hand >>>".to_vec();
        file.resize(64, 0);
        file.extend(0xBEDA_107F_u32.to_le_bytes());
        if self.is_old {
            self.old_header(&mut file)
        } else {
            self.header(&mut file)
        }
        file.resize(self.table() + 4 * usize::try_from(self.blocks()).expect("small"), 0xFF);
        file.resize(self.first(), 0);
        file
    }

    fn header(self, file: &mut Vec<u8>) {
        let kind = if self.has_parent { 4 } else { 1 };
        let number = |place: usize| u32::try_from(place).expect("small");
        put(file, &[0x0001_0001, 400, kind, 0]);
        file.resize(340, 0);
        put(file, &[number(self.table()), number(self.first()), 0, 0, 0, 512, 0]);
        file.extend(self.size.to_le_bytes());
        put(file, &[self.block, self.extra, self.blocks(), 0]);
        let (parent, modify) =
            if self.has_parent { (PARENT, PARENT_MODIFY) } else { (Uuid::NIL, Uuid::NIL) };
        for uuid in [Uuid::from_bytes([7; 16]), Uuid::from_bytes([8; 16]), parent, modify] {
            file.extend(uuid.to_mixed_endian());
        }
        file.resize(512, 0);
    }

    fn old_header(self, file: &mut Vec<u8>) {
        put(file, &[2, 1, 0]);
        file.resize(352 - 16, 0);
        put(file, &[0, 0, 0, 512]);
        file.extend(self.size.to_le_bytes());
        put(file, &[self.block, self.blocks(), 0]);
        for uuid in [Uuid::from_bytes([7; 16]), Uuid::from_bytes([8; 16]), Uuid::NIL] {
            file.extend(uuid.to_mixed_endian());
        }
        assert_eq!(file.len(), 420);
    }
}

fn put(file: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
}

/// The number of four bytes at `at`.
pub(crate) fn number_at(store: &dyn Storage, at: u64) -> u32 {
    let mut bytes = [0; 4];
    store.read_exact_at(HostOffset(at), &mut bytes).expect("it is in the file");
    u32::from_le_bytes(bytes)
}

/// Looks for damage in an image of version 1, with a reader of its own: every block that is named
/// lies in the file before `cBlocksAllocated`, and is named once.
pub(crate) fn damage(store: &dyn Storage) -> Result<(), String> {
    let (table, first) = (number_at(store, 340), number_at(store, 344));
    let (block, extra) = (number_at(store, 376), number_at(store, 380));
    let (blocks, allocated) = (number_at(store, 384), number_at(store, 388));
    let len = store.len().map_err(|error| error.to_string())?;
    let mut seen = std::collections::HashSet::new();
    for number in 0..blocks {
        let entry = number_at(store, u64::from(table) + 4 * u64::from(number));
        if entry >= 0xFFFF_FFFE {
            continue;
        }
        let end = u64::from(first) + (u64::from(entry) + 1) * u64::from(block + extra);
        if entry >= allocated || end > len || !seen.insert(entry) {
            return Err(format!("block {number} is at {entry} of {allocated}, {len} bytes"));
        }
    }
    Ok(())
}
