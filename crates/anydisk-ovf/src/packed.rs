//! Files packed with gzip: unpacked into memory, or into room that the caller has.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError};

use anydisk_core::{Error, Result, Storage};
use anydisk_storage::MemoryStorage;

use crate::descriptor::File;
use crate::{NAME, Package, gzip};

/// Has room for what must be unpacked and is too large for memory.
pub trait Scratch: Send + Sync + Debug {
    /// An empty store that can be written, of any length. It is gone when it is dropped.
    ///
    /// # Errors
    /// What making it says.
    fn make(&self) -> Result<Arc<dyn Storage>>;
}

/// What was unpacked and is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By name.
    stores: HashMap<String, Arc<dyn Storage>>,
    /// Bytes of them that are in memory.
    in_memory: u64,
}

impl Kept {
    /// Unpacks a file into memory, of which all that is kept may take `most` bytes.
    fn unpack(
        &mut self,
        file: &File,
        store: &Arc<dyn Storage>,
        most: u64,
    ) -> Result<Arc<dyn Storage>> {
        let memory = MemoryStorage::default();
        gzip::unpack(&file.href, store, &memory, most.saturating_sub(self.in_memory))?;
        self.in_memory = self.in_memory.saturating_add(memory.len()?);
        let memory: Arc<dyn Storage> = Arc::new(memory);
        self.stores.insert(file.href.clone(), Arc::clone(&memory));
        Ok(memory)
    }
}

impl Package {
    /// The same package, which unpacks what is too large for memory into room of this kind. Without
    /// any it is refused.
    #[must_use]
    pub fn with_scratch(mut self, scratch: Arc<dyn Scratch>) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// Unpacks a member that is packed with gzip into `target`, which is empty; the digest of the
    /// packed bytes is verified first. Whether the member is packed at all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Limit`] for more bytes than the disk can need, and as opening.
    pub fn unpack(&self, path: &str, target: &dyn Storage) -> Result<bool> {
        let file = self.file(path)?;
        if file.gzip {
            let most = self.most_of(file).unwrap_or(u64::MAX);
            gzip::unpack(path, &self.verified(file)?, target, most)?;
        }
        Ok(file.gzip)
    }

    /// Whether a member is packed with gzip.
    #[must_use]
    pub fn is_packed(&self, path: &str) -> bool {
        self.file(path).is_ok_and(|file| file.gzip)
    }

    /// A file of the package as it is in `store`, or out of its packing.
    pub(crate) fn unpacked(
        &self,
        file: &File,
        store: Arc<dyn Storage>,
    ) -> Result<Arc<dyn Storage>> {
        self.known_or(file, store, |kept, store| {
            match (kept.unpack(file, store, self.limits.unit), &self.scratch, self.most_of(file)) {
                (Err(Error::Limit { .. }), Some(scratch), Some(most)) => {
                    let room = scratch.make()?;
                    gzip::unpack(&file.href, store, &*room, most)?;
                    kept.stores.insert(file.href.clone(), Arc::clone(&room));
                    Ok(room)
                }
                // Alone it may fit. It is unpacked for whoever asks.
                (Err(Error::Limit { .. }), ..) => {
                    let memory = MemoryStorage::default();
                    let unpacked = gzip::unpack(&file.href, store, &memory, self.limits.unit);
                    unpacked.map_err(|error| match error {
                        Error::Limit { limit, .. } => too_large(&file.href, limit),
                        other => other,
                    })?;
                    Ok(Arc::new(memory))
                }
                (unpacked, ..) => unpacked,
            }
        })
    }

    /// As [`unpacked`](Self::unpacked), in what memory is left for all members together.
    pub(crate) fn unpacked_to_look(
        &self,
        file: &File,
        store: Arc<dyn Storage>,
    ) -> Result<Arc<dyn Storage>> {
        self.known_or(file, store, |kept, store| {
            kept.unpack(file, store, self.limits.unit).inspect_err(|_| {
                // Nor is there time for more: each of many would be unpacked up to here.
                kept.in_memory = self.limits.unit;
            })
        })
    }

    /// The file if it is not packed, or what is kept of it; else what `unpack` makes of it. Also a
    /// second one who asks waits until it is unpacked.
    fn known_or(
        &self,
        file: &File,
        store: Arc<dyn Storage>,
        unpack: impl FnOnce(&mut Kept, &Arc<dyn Storage>) -> Result<Arc<dyn Storage>>,
    ) -> Result<Arc<dyn Storage>> {
        if !file.gzip {
            return Ok(store);
        }
        let mut kept = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.stores.get(&file.href) {
            Some(known) => Ok(Arc::clone(known)),
            None => unpack(&mut kept, &store),
        }
    }

    /// Bytes that an unpacked file can have at most: the image of a disk is hardly larger than the
    /// disk. `None` if it is no disk's.
    fn most_of(&self, file: &File) -> Option<u64> {
        let disk = self.disks().iter().find(|disk| disk.file.as_ref() == Some(&file.href))?;
        let most = disk.capacity.saturating_add(disk.capacity / 10);
        Some(most.saturating_add(1 << 20))
    }
}

/// Why a packed file is too large for memory.
fn too_large(name: &str, limit: u64) -> Error {
    let what = format!("{name} is packed with gzip; to be read in place its unpacked bytes");
    Error::Limit { format: NAME, what: what.into(), found: limit + 1, limit }
}
