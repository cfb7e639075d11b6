//! What we refuse for its size. What a caller may set is in [`anydisk_core::Limits`].

use anydisk_core::{Limits, Result};

use crate::NAME;

/// A descriptor may be this many times as long as that of an image: it describes a whole machine.
const DESCRIPTOR_FACTOR: u64 = 8;

/// Elements inside each other.
pub(crate) const DEPTH: usize = 64;

/// Most bytes of a descriptor or a manifest.
pub(crate) fn descriptor(limits: &Limits) -> u64 {
    DESCRIPTOR_FACTOR * limits.descriptor as u64
}

/// Refuses `found` if it is more than `limit`.
pub(crate) fn check(what: &'static str, found: u64, limit: u64) -> Result<()> {
    anydisk_core::check_limit(NAME, what, found, limit)
}
