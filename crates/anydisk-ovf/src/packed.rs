//! Files packed with gzip: unpacked into memory, or into room that the caller has.

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

    /// A file of the package as it is in `store`, or out of its packing.
    pub(crate) fn unpacked(
        &self,
        file: &File,
        store: Arc<dyn Storage>,
    ) -> Result<Arc<dyn Storage>> {
        if !file.gzip {
            return Ok(store);
        }
        // Also a second one who asks waits until it is unpacked.
        let mut kept = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&file.href) {
            return Ok(Arc::clone(known));
        }
        let memory = MemoryStorage::default();
        match gzip::unpack(&file.href, &store, &memory, self.limits.unit) {
            Err(Error::Limit { .. }) => {}
            outcome => return outcome.map(|()| Arc::new(memory) as Arc<dyn Storage>),
        }
        drop(memory);
        let room = self.room_for(file, &store)?;
        kept.insert(file.href.clone(), Arc::clone(&room));
        Ok(room)
    }

    /// A file that is too large for memory.
    fn room_for(&self, file: &File, store: &Arc<dyn Storage>) -> Result<Arc<dyn Storage>> {
        let (Some(scratch), Some(most)) = (&self.scratch, self.most_of(file)) else {
            return Err(too_large(&file.href, self.limits.unit));
        };
        let room = scratch.make()?;
        gzip::unpack(&file.href, store, &*room, most)?;
        Ok(room)
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
