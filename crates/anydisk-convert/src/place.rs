//! Where bytes come from: the same place means the same bytes, and saves reading them.

use std::sync::Arc;

use anydisk_core::{Extent, GuestOffset, HostOffset, Source};
use anydisk_storage::{Identity, Storage};

/// Where the bytes of an extent come from.
#[derive(PartialEq, Eq)]
pub(crate) enum Place {
    Zero,
    /// A place of a file; for what is packed with the guest offset of its unit.
    At(Identity, HostOffset, Option<GuestOffset>),
    Unknown,
}

impl Place {
    /// The place of the start of an extent.
    pub(crate) fn of(extent: &Extent<'_>) -> Self {
        match &extent.source {
            Source::Zero { .. } | Source::Absent { .. } => Self::Zero,
            Source::Data { store, at, .. } => Self::in_store(store, *at, None),
            Source::Encoded(packed) => {
                Self::in_store(packed.store, packed.at, Some(packed.unit.start()))
            }
            _ => Self::Unknown,
        }
    }

    /// Whether both are known, and the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self == other && *self != Self::Unknown
    }

    /// A place of the file itself, where the store is one or a window into one. A store that
    /// transforms its bytes, or has no file, tells where they are in nothing but itself.
    fn in_store(store: &Arc<dyn Storage>, at: HostOffset, unit: Option<GuestOffset>) -> Self {
        #[cfg(unix)]
        if let (Some(identity), Some(file)) = (store.identity(), store.fd())
            && let Some(at) = file.start.checked_add(at.get())
        {
            return Self::At(identity, at, unit);
        }
        Self::At(Identity::Memory(Arc::as_ptr(store).addr()), at, unit)
    }
}
