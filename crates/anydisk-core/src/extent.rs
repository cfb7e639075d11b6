//! What an image says about a guest range.

use std::sync::Arc;

use anydisk_codec::Codec;
use anydisk_storage::{HostOffset, Storage};

use crate::{GuestRange, Lease};

/// One run of the guest disk with one answer.
#[derive(Debug)]
pub struct Extent<'a> {
    /// Bytes from the start of the range asked for; at least 1.
    pub len: u64,
    /// Where the bytes are.
    pub source: Source<'a>,
    /// Keeps the place from being given to other data.
    pub lease: Lease<'a>,
}

impl<'a> Extent<'a> {
    /// An extent without bytes of its own, which needs no lease.
    pub fn without_data(len: u64, source: Source<'a>) -> Self {
        Self { len, source, lease: Lease::eternal() }
    }

    /// The part of the extent behind its first `len` bytes: the place moves along.
    #[must_use]
    pub fn skip(mut self, len: u64) -> Self {
        self.len = self.len.saturating_sub(len);
        match &mut self.source {
            Source::Data { at, .. } => *at = at.saturating_add(len),
            Source::Zero { reserved: Some(at) } | Source::Absent { reserved: Some(at) } => {
                *at = at.saturating_add(len);
            }
            Source::Zero { .. } | Source::Absent { .. } | Source::Encoded(_) => {}
        }
        self
    }
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source<'a> {
    /// Plain bytes in `store`. Bytes past the end of the store are zero.
    Data {
        /// The store that holds them.
        store: &'a Arc<dyn Storage>,
        /// Position of the extent's first byte.
        at: HostOffset,
        /// Other references to the same place exist: it must not be written in place.
        shared: bool,
    },
    /// All zero, whatever lies below.
    Zero {
        /// Host space kept for the extent, if any; its content is undefined.
        reserved: Option<HostOffset>,
    },
    /// This image has nothing here: look below, or it is zero.
    Absent {
        /// Host space kept for the extent, if any; its content is undefined.
        reserved: Option<HostOffset>,
    },
    /// Packed bytes, as the image stores them.
    Encoded(Encoded<'a>),
}

/// A packed unit of the disk: kept packed so that it can be passed through as it is.
#[derive(Clone, Debug)]
pub struct Encoded<'a> {
    /// The store that holds the packed bytes.
    pub store: &'a Arc<dyn Storage>,
    /// Position of the first packed byte.
    pub at: HostOffset,
    /// Bytes that may belong to the packed unit. The stream ends itself and may be shorter; bytes
    /// past the end of the store are zero.
    pub len: usize,
    /// How it is packed.
    pub codec: Codec,
    /// The whole unit; the extent may be a part of it. It may reach past the end of the disk.
    pub unit: GuestRange,
}
