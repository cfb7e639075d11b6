//! Files laid end to end as one store.

use std::sync::Arc;

use anydisk_core::{HostOffset, MappedFrom, MappedPiece, MappedStorage, Mapping, Result, Storage};

/// Stores laid end to end.
#[derive(Debug)]
struct Row {
    /// Where each begins, in rising order, and the store.
    parts: Vec<(u64, Arc<dyn Storage>)>,
}

/// The stores laid end to end as one, which is called `name`.
///
/// # Errors
/// Of asking for the lengths.
pub(crate) fn joined(name: &str, stores: Vec<Arc<dyn Storage>>) -> Result<MappedStorage> {
    let mut parts = Vec::with_capacity(stores.len());
    let mut len = 0_u64;
    for store in stores {
        let own = store.len()?;
        if own > 0 {
            parts.push((len, store));
        }
        // Each is a file, so that the sum of a few thousand is far below 2^64 for all that exist; a
        // store that lies about its length is cut here.
        len = len.saturating_add(own);
    }
    Ok(MappedStorage::new(name.to_owned(), len, Box::new(Row { parts })))
}

impl Mapping for Row {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let next = self.parts.partition_point(|(start, _)| *start <= at);
        let room = self.parts.get(next).map_or(limit, |(start, _)| limit.min(start - at));
        // The first one begins at 0.
        let from = match next.checked_sub(1).and_then(|index| self.parts.get(index)) {
            Some((start, store)) => MappedFrom::Store(store, HostOffset(at - start)),
            None => MappedFrom::Zero,
        };
        Ok(MappedPiece { len: room, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    #[test]
    fn reading_goes_on_from_one_part_to_the_next() {
        let part = |bytes: &[u8]| Arc::new(MemoryStorage::new(bytes.to_vec())) as Arc<dyn Storage>;
        let parts = vec![part(b""), part(b"abc"), part(b""), part(b"defg")];
        let chunks = joined("chunks", parts).unwrap();
        assert_eq!(chunks.len().unwrap(), 7);
        for at in 0..9_usize {
            for len in 0..9 {
                let mut buf = vec![b'.'; len];
                let count = chunks.read_at(HostOffset(at as u64), &mut buf).unwrap();
                let expected = &b"abcdefg"[at.min(7)..(at + len).min(7).max(at.min(7))];
                assert_eq!(&buf[..count], expected, "{len} at {at}");
            }
        }
    }
}
