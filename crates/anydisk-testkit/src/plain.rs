//! The simplest image there is: something to lay other images on.

use std::sync::Arc;

use anydisk_core::{
    Extent, GuestRange, HostOffset, Image, ImageInfo, Lease, Lookup, Need, Result, Source, Storage,
    Supplied,
};

/// A store as an image that is only read: byte for byte, all of it data.
#[derive(Debug)]
pub struct PlainImage {
    store: Arc<dyn Storage>,
    size: u64,
}

impl PlainImage {
    /// The whole of `store`.
    ///
    /// # Errors
    /// What asking for its length says.
    pub fn new(store: Arc<dyn Storage>) -> Result<Self> {
        Ok(Self { size: store.len()?, store })
    }
}

impl Image for PlainImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let at = HostOffset(range.start().get());
        let source = Source::Data { store: &self.store, at, shared: false };
        Ok(Lookup::Found(Extent { len: range.len(), source, lease: Lease::eternal() }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken)
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new("plain")
    }
}
