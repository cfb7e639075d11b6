//! The image that is checked: its header, its file, and what lies inside the file.

use std::sync::Arc;

use anydisk_core::{HostOffset, Limits, Result, Storage, StorageExt};

use crate::guard::Clusters;
use crate::refcount::Width;
use crate::{Geometry, Header};

/// Bytes that are read at once.
pub(super) const PIECE: u64 = 1 << 20;

/// The image that is checked.
pub(super) struct Subject {
    pub(super) store: Arc<dyn Storage>,
    pub(super) header: Header,
    pub(super) geometry: Geometry,
    pub(super) width: Width,
    pub(super) file_len: u64,
    limits: Limits,
    /// The file has holes, so looking for them pays.
    sparse: bool,
}

/// A region that begins behind the end of the file, or reaches past it by a cluster or more.
#[derive(Clone, Copy, Debug)]
pub(super) struct PastEnd;

impl Subject {
    pub(super) fn open(store: &Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let (store, header) = (Arc::clone(store), Header::read_to_check(store, limits)?);
        let file_len = store.len()?;
        let allocated = store.holes().and_then(|holes| holes.allocated().ok());
        Ok(Self {
            geometry: Geometry::new(&header),
            width: Width::of_order(header.refcount_order),
            sparse: allocated.is_some_and(|allocated| allocated < file_len),
            store,
            header,
            file_len,
            limits: limits.clone(),
        })
    }

    /// The same image, after its header or its file have changed.
    pub(super) fn again(&self) -> Result<Self> {
        Self::open(&self.store, &self.limits)
    }

    /// The caller's limits.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Binary logarithm of the cluster size.
    pub(super) fn bits(&self) -> u32 {
        self.header.cluster_bits
    }

    /// Bytes in a cluster.
    pub(super) fn cluster_size(&self) -> u64 {
        self.header.cluster_size()
    }

    /// Behind the last cluster that may be named: the file may end in the middle of one, and a
    /// structure may overhang its end by less than another.
    pub(super) fn end(&self) -> u64 {
        self.file_len.div_ceil(self.cluster_size()) + 1
    }

    /// The clusters that `len` bytes at `at` touch.
    #[inline]
    pub(super) fn region(&self, at: u64, len: u64) -> Result<Clusters, PastEnd> {
        let end = at.checked_add(len).ok_or(PastEnd)?;
        // An empty structure names nothing, wherever it is.
        let overhang = end.saturating_sub(self.file_len);
        if len > 0 && (overhang >= self.cluster_size() || overhang >= len) {
            return Err(PastEnd);
        }
        Ok(Clusters::touched(at, len, self.bits()))
    }

    /// Bytes that lie behind the end of the file, of `len` that begin in it.
    pub(super) fn missing(&self, at: u64, len: u64) -> u64 {
        if at < self.file_len { at.saturating_add(len).saturating_sub(self.file_len) } else { 0 }
    }

    /// Place of a cluster in the file.
    pub(super) fn offset(&self, cluster: u64) -> HostOffset {
        HostOffset(cluster << self.bits())
    }

    /// Whether the bytes are known to be zero without reading them.
    pub(super) fn is_hole(&self, at: u64, len: u64) -> bool {
        if at >= self.file_len {
            return true;
        }
        let run = || self.store.holes()?.run_at(HostOffset(at), len).ok();
        self.sparse && run().is_some_and(|run| run.hole && run.len >= len)
    }

    /// Reads bytes; those past the end of the file are zero.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.store.read_padded_at(HostOffset(at), bytes)?)
    }

    /// Shows the words of a table of `len` bytes at `at` that are not zero to `visit`, each with its
    /// number in the table. Pieces that cannot be read are shown to `lost`.
    pub(super) fn words(
        &self,
        at: u64,
        len: u64,
        mut visit: impl FnMut(u64, u64) -> Result<()>,
        mut lost: impl FnMut(u64, anydisk_core::Error),
    ) -> Result<()> {
        let len = len.min(self.file_len.saturating_sub(at));
        let mut bytes = vec![0; usize::try_from(len.min(PIECE)).unwrap_or(0).next_multiple_of(8)];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(PIECE);
            let place = at + done;
            let piece = &mut bytes[..usize::try_from(part).unwrap_or(0).next_multiple_of(8)];
            if !self.is_hole(place, part) {
                match self.read(place, piece) {
                    Ok(()) => show_words(piece, done / 8, &mut visit)?,
                    Err(error) => lost(place, error),
                }
            }
            done += part;
        }
        Ok(())
    }
}

fn show_words(
    bytes: &[u8],
    first: u64,
    visit: &mut impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    for (number, word) in (first..).zip(bytes.as_chunks::<8>().0) {
        match u64::from_be_bytes(*word) {
            0 => {}
            word => visit(number, word)?,
        }
    }
    Ok(())
}
