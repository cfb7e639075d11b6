//! Where the metadata of an image lies, found out when it is opened for writing.

use anydisk_core::{Error, HostOffset, Result, Storage, StorageExt};

use crate::alloc::{overlapping, words_of};
use crate::entry::L1Entry;
use crate::guard::{Clusters, Guard, Metadata};
use crate::{Header, NAME, snapshot};

/// Most clusters of metadata that are noted one by one, refcount blocks and L2 tables apart.
const LIMIT: u64 = 1 << 24;
/// Bytes of the L1 table that are read at once.
const PIECE: u64 = 1 << 20;

/// Notes where header, tables and snapshots lie.
///
/// # Errors
/// [`Error::NeedsRepair`] if two of them claim the same cluster: such an image is not written.
pub(crate) fn survey(store: &dyn Storage, header: &Header) -> Result<Guard> {
    let survey =
        Survey { guard: Guard::new(u64::from(header.l1_size)), cluster_bits: header.cluster_bits };
    let bytes_of_l1 = u64::from(header.l1_size) * 8;
    let table = u64::from(header.refcount_table_clusters) << header.cluster_bits;
    survey.note(HostOffset::ZERO, 1, Metadata::Header)?;
    survey.note(header.l1_table_offset, bytes_of_l1, Metadata::L1Table)?;
    if let Some((at, len)) = header.crypto_header() {
        survey.note(at, len, Metadata::CryptoHeader)?;
    }
    survey.note(header.refcount_table_offset, table, Metadata::RefcountTable)?;
    survey.note_snapshots(store, header)?;
    survey.note_l2_tables(store, header.l1_table_offset, bytes_of_l1)?;
    Ok(survey.guard)
}

struct Survey {
    guard: Guard,
    cluster_bits: u32,
}

impl Survey {
    fn note(&self, at: HostOffset, len: u64, holds: Metadata) -> Result<()> {
        let clusters = Clusters::touched(at.get(), len, self.cluster_bits);
        if clusters.count == 0 {
            return Ok(());
        }
        self.guard.add(clusters, holds).map_err(overlapping)
    }

    fn note_snapshots(&self, store: &dyn Storage, header: &Header) -> Result<()> {
        let mut noted = 0;
        let len = snapshot::walk(store, header, |_, entry| {
            let at = HostOffset(entry.l1_table_offset.get());
            let len = u64::from(entry.l1_size.get()) * 8;
            noted += Clusters::touched(at.get(), len, self.cluster_bits).count;
            if noted > LIMIT {
                let what = "clusters in L1 tables of snapshots".into();
                return Err(Error::Limit { format: NAME, what, found: noted, limit: LIMIT });
            }
            self.note(at, len, Metadata::SnapshotL1Table)
        })?;
        self.note(header.snapshots_offset, len, Metadata::SnapshotTable)
    }

    fn note_l2_tables(&self, store: &dyn Storage, table: HostOffset, len: u64) -> Result<()> {
        let mut done = 0;
        let mut bytes = vec![0; usize::try_from(len.min(PIECE)).unwrap_or(0)];
        while done < len {
            let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(bytes.len());
            let part = &mut bytes[..part];
            store.read_padded_at(table.saturating_add(done), part)?;
            for word in words_of(part) {
                // One that is not aligned is refused when it is used; it is never written.
                let aligned = |at: &HostOffset| at.is_aligned(1 << self.cluster_bits);
                if let Some(at) = L1Entry(word).table().filter(aligned) {
                    self.note(at, 1, Metadata::L2Table)?;
                }
            }
            done += part.len() as u64;
        }
        Ok(())
    }
}
