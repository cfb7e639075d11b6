//! Several sectors that are changed at once: through the log.
//!
//! ```text
//!   entry -> flush -> headers that name the log -> the sectors -> flush -> headers without a log
//! ```
//!
//! Whoever opens the file in between replays the entry, so that all of them are as before or as wanted.

use std::collections::BTreeMap;
use std::mem::offset_of;

use anydisk_core::{HostOffset, Result, Storage, StorageExt, Uuid};
use zerocopy::IntoBytes;

use crate::header::{Place, unsupported};
use crate::layout::{
    DATA_SIGNATURE, LOG_SECTOR, LOG_SIGNATURE, MIB, RawDescriptor, RawLogEntry, SECTOR_SIGNATURE,
};
use crate::state::{HeaderState, seal};

const SECTOR: usize = 4096;

/// The number of the only entry.
const NUMBER: u64 = 1;

/// Sectors, as they are to be.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    sectors: BTreeMap<HostOffset, Vec<u8>>,
}

impl Journal {
    /// Changes bytes at a place, in one sector or two.
    ///
    /// # Errors
    /// Those of reading the rest of the sectors.
    pub(crate) fn put(&mut self, store: &dyn Storage, at: HostOffset, bytes: &[u8]) -> Result<()> {
        for (place, byte) in (at.get()..).zip(bytes) {
            let start = HostOffset(place / LOG_SECTOR * LOG_SECTOR);
            let sector = match self.sectors.entry(start) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mut sector = vec![0; SECTOR];
                    store.read_padded_at(start, &mut sector)?;
                    entry.insert(sector)
                }
            };
            let index = usize::try_from(place - start.get()).unwrap_or_default();
            if let Some(old) = sector.get_mut(index) {
                *old = *byte;
            }
        }
        Ok(())
    }

    /// Bytes of an entry for so many sectors.
    fn entry_len(count: usize) -> usize {
        (Self::descriptor_sectors(count) + count) * SECTOR
    }

    fn descriptor_sectors(count: usize) -> usize {
        let bytes = size_of::<RawLogEntry>() + count * size_of::<RawDescriptor>();
        bytes.div_ceil(SECTOR)
    }

    /// Whether the log can hold so many sectors more than there are.
    ///
    /// # Errors
    /// `Unsupported` where it cannot.
    pub(crate) fn check_room(&self, log: Place, more: usize) -> Result<()> {
        let needed = Self::entry_len(self.sectors.len() + more) as u64;
        if needed > log.len {
            return Err(unsupported(format!("a change of {needed} bytes of a log of {}", log.len)));
        }
        Ok(())
    }

    /// Changes all of them: durable.
    ///
    /// # Errors
    /// `Unsupported` for more than the log holds; those of the store, after which the file is as
    /// before or as wanted once its log is replayed, and not written any more.
    pub(crate) fn write_to(
        &self,
        store: &dyn Storage,
        state: &HeaderState,
        log: Place,
    ) -> Result<()> {
        self.check_room(log, 0)?;
        let guid = Uuid::random().to_mixed_endian();
        store.write_at(log.at, &self.entry(guid, store.len()?))?;
        store.flush()?;
        state.doubt.during(|| {
            state.name_log(guid, store)?;
            for (at, bytes) in &self.sectors {
                store.write_at(*at, bytes)?;
            }
            store.flush()?;
            state.forget_log(store)
        })
    }

    /// The entry, in a file of `len` bytes.
    fn entry(&self, guid: [u8; 16], len: u64) -> Vec<u8> {
        let count = self.sectors.len();
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let raw = RawLogEntry {
            Signature: LOG_SIGNATURE,
            Checksum: 0.into(),
            EntryLength: narrow(Self::entry_len(count)).into(),
            Tail: 0.into(),
            SequenceNumber: NUMBER.into(),
            DescriptorCount: narrow(count).into(),
            Reserved: 0.into(),
            LogGuid: guid,
            FlushedFileOffset: (len / MIB * MIB).into(),
            LastFileOffset: len.next_multiple_of(MIB).into(),
        };
        let mut bytes = raw.as_bytes().to_vec();
        for (at, sector) in &self.sectors {
            bytes.extend(descriptor(*at, sector).as_bytes());
        }
        bytes.resize(Self::descriptor_sectors(count) * SECTOR, 0);
        for sector in self.sectors.values() {
            bytes.extend(SECTOR_SIGNATURE);
            bytes.extend([0; 4]);
            bytes.extend(sector.get(8..SECTOR - 4).unwrap_or_default());
            bytes.extend(narrow(1).to_le_bytes());
        }
        seal(&mut bytes, offset_of!(RawLogEntry, Checksum));
        bytes
    }
}

fn descriptor(at: HostOffset, sector: &[u8]) -> RawDescriptor {
    RawDescriptor {
        Signature: DATA_SIGNATURE,
        TrailingBytes: sector.last_chunk().copied().unwrap_or_default(),
        LeadingBytes: sector.first_chunk().copied().unwrap_or_default(),
        FileOffset: at.get().into(),
        SequenceNumber: NUMBER.into(),
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;

    use super::*;
    use crate::log::Log;

    proptest! {
        #[test]
        fn what_is_written_to_the_log_is_what_a_replay_makes_of_the_file(
            changes in proptest::collection::vec((512u64..1000, 0u64..4096, 1usize..300, any::<u8>()), 1..200),
        ) {
            let store = MemoryStorage::new(vec![7; 4 << 20]);
            let mut expected = store.to_vec();
            let mut journal = Journal::default();
            for (sector, within, len, byte) in changes {
                let at = sector * 4096 + within;
                journal.put(&store, HostOffset(at), &vec![byte; len]).unwrap();
                let at = usize::try_from(at).unwrap();
                expected[at..at + len].fill(byte);
            }
            let log = Place { at: HostOffset(MIB), len: MIB };
            let mut bytes = journal.entry([9; 16], 4 << 20);
            bytes.resize(1 << 20, 0);
            let replay = Log::new(&bytes, [9; 16], log).replay(4 << 20).unwrap();
            replay.write_to(&store).unwrap();
            prop_assert!(store.to_vec() == expected);
        }
    }
}
