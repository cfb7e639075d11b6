//! The image: a translation that translates nothing.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, Extent, GuestRange, Handled, HostOffset, Image,
    ImageInfo, ImageWrite, Lease, Lookup, Need, NewSize, Placement, Reserved, Resize, Result,
    Source, Storage, Supplied, WriteLease, Zeroing,
};
use anydisk_storage::Space;

use crate::NAME;
use crate::reserve::{check, reserve};

/// A raw image over one store.
#[derive(Debug)]
pub struct RawImage {
    store: Arc<dyn Storage>,
    size: AtomicU64,
    writable: bool,
}

impl RawImage {
    /// The whole of `store` as a disk.
    ///
    /// # Errors
    /// What asking for its length says; [`Error::ReadOnly`] if `writable` and the store is not.
    pub fn open(store: Arc<dyn Storage>, writable: bool) -> Result<Self> {
        if writable && !store.is_writable() {
            return Err(Error::ReadOnly { why: "its file was opened for reading".into() });
        }
        Ok(Self { size: store.len()?.into(), store, writable })
    }

    /// Zeroes by changing the file's space, or says that bytes must be written.
    fn change_space(
        &self,
        range: GuestRange,
        change: impl FnOnce(&dyn Space, HostOffset) -> anydisk_storage::Result<()>,
    ) -> Result<Handled> {
        let Some(space) = self.store.space() else { return Ok(Handled::ByData(range.len())) };
        match change(space, HostOffset(range.start().get())) {
            Ok(()) => Ok(Handled::Done(range.len())),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(range.len())),
            Err(error) => Err(error.into()),
        }
    }
}

impl Image for RawImage {
    fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let at = HostOffset(range.start().get());
        Ok(Lookup::Found(Extent {
            len: range.len(),
            source: Source::Data { store: &self.store, at, shared: false },
            lease: Lease::eternal(),
        }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // There is no metadata, so nothing was asked for.
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new(NAME)
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writable.then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writable.then_some(self)
    }
}

impl ImageWrite for RawImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        Ok(Attempt::Placed(Placement::InPlace {
            store: &self.store,
            at: HostOffset(range.start().get()),
            len: range.len(),
            lease: WriteLease::eternal(),
        }))
    }

    fn try_place_encoded(&self, _: GuestRange, _: usize) -> Result<Attempt<'_>> {
        Err(Error::Unsupported { format: NAME, feature: "compressed data".into() })
    }

    fn claims(&self) -> Option<&Claims> {
        None
    }

    fn try_commit(&self, _: &Reserved) -> Result<Committed<'_>> {
        Ok(Committed::Done) // Every place is in place: there are no reservations.
    }

    fn abandon(&self, _: &Reserved) {}

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.change_space(range, |space, at| space.zero(at, range.len(), how.unmap))
    }

    fn discard(&self, range: GuestRange, _: Below) -> Result<Handled> {
        // A plain discard leaves the content undefined; zeroing with unmap does not.
        self.change_space(range, |space, at| space.zero(at, range.len(), true))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.store.flush()?)
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        Some(&self.store)
    }

    fn unit(&self) -> u64 {
        1
    }
}

impl Resize for RawImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let (old, size) = (self.size.load(Acquire), new.size);
        check(&*self.store, new.preallocation)?;
        self.store.set_len(size)?;
        if size > old {
            let reserved = reserve(&*self.store, HostOffset(old), size - old, new.preallocation);
            if let Err(error) = reserved {
                // There is no room. If the old length cannot be had either, the first error tells more.
                let _ = self.store.set_len(old);
                return Err(error);
            }
        }
        self.size.store(size, Release);
        Ok(())
    }
}
