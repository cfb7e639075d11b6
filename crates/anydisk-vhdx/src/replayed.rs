//! A file as it is when its log has been replayed, without writing to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anydisk_core::{HostOffset, Storage, StorageExt};
use anydisk_storage::{Error, Identity, Result};

use crate::layout::LOG_SECTOR;
use crate::log::{Change, Replay};

/// The file below, and what the log changes of it.
#[derive(Debug)]
pub(crate) struct Replayed {
    below: Arc<dyn Storage>,
    len: u64,
    /// First byte -> what is there. None lies on another.
    patches: BTreeMap<u64, Patch>,
}

#[derive(Debug)]
struct Patch {
    end: u64,
    /// `None`: zeroes.
    data: Option<Box<[u8]>>,
}

impl Replayed {
    pub(crate) fn new(below: Arc<dyn Storage>, replay: Replay) -> Self {
        let mut patches = BTreeMap::new();
        for change in replay.changes {
            match change {
                Change::Zero(place) if place.len == 0 => {}
                Change::Zero(place) => {
                    let (at, end) = (place.at.get(), place.at.saturating_add(place.len).get());
                    insert(&mut patches, at, Patch { end, data: None });
                }
                Change::Data(at, data) => {
                    let end = at.saturating_add(LOG_SECTOR).get();
                    insert(&mut patches, at.get(), Patch { end, data: Some(data) });
                }
            }
        }
        Self { below, len: replay.end, patches }
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly { store: self.name().into() }
    }
}

/// Puts a patch over those before it. Patches of data are one sector long, so none of them is cut.
fn insert(patches: &mut BTreeMap<u64, Patch>, at: u64, patch: Patch) {
    let end = patch.end;
    let over: Vec<u64> = patches
        .range(..end)
        .rev()
        .map_while(|(start, old)| (old.end > at).then_some(*start))
        .collect();
    for start in over {
        if let Some(old) = patches.remove(&start) {
            if start < at {
                patches.insert(start, Patch { end: at, data: None });
            }
            if old.end > end {
                patches.insert(end, Patch { end: old.end, data: None });
            }
        }
    }
    patches.insert(at, patch);
}

impl Storage for Replayed {
    fn len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let room = usize::try_from(self.len.saturating_sub(at.get())).unwrap_or(usize::MAX);
        let len = room.min(buf.len());
        let buf = &mut buf[..len];
        self.below.read_padded_at(at, buf)?;
        let (start, end) = (at.get(), at.get() + len as u64);
        let over = self.patches.range(..end).rev().take_while(|(_, patch)| patch.end > start);
        for (first, patch) in over {
            let (from, to) = ((*first).max(start), patch.end.min(end));
            let index = |place: u64, base: u64| usize::try_from(place - base).unwrap_or(len);
            let part = &mut buf[index(from, start)..index(to, start)];
            match &patch.data {
                None => part.fill(0),
                Some(data) => part.copy_from_slice(&data[index(from, *first)..index(to, *first)]),
            }
        }
        Ok(len)
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> Result<()> {
        Err(self.read_only())
    }

    fn set_len(&self, _: u64) -> Result<()> {
        Err(self.read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        self.below.name()
    }

    fn identity(&self) -> Option<Identity> {
        self.below.identity()
    }
}

#[cfg(test)]
mod tests {
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;

    use super::*;
    use crate::header::Place;

    proptest! {
        #[test]
        fn what_is_read_is_what_a_replay_into_the_bytes_would_leave(
            changes in proptest::collection::vec((0u64..12, 0u64..6, any::<bool>(), 1u8..255), 0..12),
            at in 0usize..60_000,
            len in 0usize..60_000,
        ) {
            let mut model = vec![7_u8; 8 * 4096];
            let mut replay = Replay { changes: Vec::new(), end: 14 * 4096 };
            let below: Arc<dyn Storage> = Arc::new(MemoryStorage::new(model.clone()));
            model.resize(20 * 4096, 0);
            for (sector, count, is_zero, byte) in changes {
                let (at, count) = (HostOffset(sector * 4096), if is_zero { count } else { 1 });
                let bytes = usize::try_from(count * 4096).unwrap();
                let first = usize::try_from(at.get()).unwrap();
                model[first..first + bytes].fill(if is_zero { 0 } else { byte });
                replay.changes.push(match is_zero {
                    true => Change::Zero(Place { at, len: count * 4096 }),
                    false => Change::Data(at, vec![byte; 4096].into()),
                });
            }
            let end = usize::try_from(replay.end).unwrap();
            let replayed = Replayed::new(below, replay);
            let mut buf = vec![9; len];
            let count = replayed.read_at(HostOffset(at as u64), &mut buf).unwrap();
            prop_assert_eq!(count, len.min(end.saturating_sub(at)));
            prop_assert!(buf[..count] == model[at.min(end)..at.min(end) + count]);
        }
    }
}
