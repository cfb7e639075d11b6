//! A volume some of whose chunks lie on another one: snapshots and caches.

use anydisk_core::{MappedPiece, Mapping, Result};

use crate::plain::Part;
use crate::run_map::RunMap;

/// The chunks of `map` from `top`, all others from `base`.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) base: Part,
    pub(crate) top: Part,
    /// Bytes of a chunk, on both.
    pub(crate) chunk: u64,
    pub(crate) map: RunMap,
}

impl Mapping for Overlay {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let (number, within) = (at / self.chunk, at % self.chunk);
        let looked = self.map.look(number);
        let len = looked.len.saturating_mul(self.chunk).saturating_sub(within).min(limit);
        let from = match looked.to {
            Some(to) => self.top.place(to * self.chunk + within),
            None => self.base.place(at),
        };
        Ok(MappedPiece { len, from })
    }
}
