//! Entries in memory while they are checked, and back in the file when they were changed.

use anydisk_core::{HostOffset, Result, Storage, StorageExt};

/// The entries of a table, or of a part of a directory.
#[derive(Debug)]
pub(super) struct Entries {
    at: HostOffset,
    entry_len: u64,
    values: Vec<u64>,
    changed: bool,
}

impl Entries {
    /// Reads `count` entries at `at`; those behind the end of the file are 0.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn read(
        store: &dyn Storage,
        at: HostOffset,
        count: u64,
        entry_len: u64,
    ) -> Result<Self> {
        let len = usize::try_from(count * entry_len).expect("a table is small");
        let mut bytes = vec![0; len];
        store.read_padded_at(at, &mut bytes)?;
        let values = match entry_len {
            4 => {
                bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry).into()).collect()
            }
            _ => bytes.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry)).collect(),
        };
        Ok(Self { at, entry_len, values, changed: false })
    }

    /// Entry number `index`; 0 behind the last.
    pub(super) fn get(&self, index: usize) -> u64 {
        self.values.get(index).copied().unwrap_or(0)
    }

    /// Changes an entry in memory.
    pub(super) fn set(&mut self, index: usize, value: u64) {
        if let Some(entry) = self.values.get_mut(index)
            && *entry != value
        {
            *entry = value;
            self.changed = true;
        }
    }

    /// Where entry number `index` is in the file.
    pub(super) fn place(&self, index: usize) -> HostOffset {
        self.at.saturating_add(index as u64 * self.entry_len)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Takes all entries of another table of the same length.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.changed |= self.values != other.values;
        self.values.clone_from(&other.values);
    }

    /// Whether an entry was changed in memory.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether any entry is something.
    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().all(|entry| *entry == 0)
    }

    /// Writes the entries back if any was changed. Says whether it did.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn write_back(&mut self, store: &dyn Storage) -> Result<bool> {
        if self.changed {
            store.write_at(self.at, &self.bytes())?;
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// As they are stored.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let len = usize::try_from(self.entry_len).expect("4 or 8");
        let bytes = self.values.iter().map(|entry| entry.to_le_bytes());
        bytes.flat_map(|bytes| bytes.into_iter().take(len)).collect()
    }
}
