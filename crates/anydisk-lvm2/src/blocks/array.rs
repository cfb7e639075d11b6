//! Arrays: numbered blocks of packed values, found through a tree.

use anydisk_core::{HostOffset, Result, Value};

use super::tree::Tree;
use super::{BLOCK, Blocks, invalid, kind, number};

/// Bytes in front of the values.
const HEADER: usize = 24;
/// Bytes of a value.
const VALUE: usize = 8;
/// Values of a full block.
const FULL: u64 = ((BLOCK - HEADER) / VALUE) as u64;

/// Calls `take` with the number and value of the first `count` entries of an array of 8-byte
/// values.
///
/// # Errors
/// What `take` says; [`Invalid`](anydisk_core::Invalid) for an array that is too short or broken.
pub(crate) fn for_each(
    blocks: &Blocks,
    root: u64,
    count: u64,
    mut take: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let tree = Tree { blocks, root, value_size: VALUE };
    let (mut index, mut done) = (0, 0);
    while done < count {
        let Some(block) = tree.get(index)? else {
            let expected = format!("one that goes on: it has {count} entries");
            let found = Value::Number(done);
            return Err(invalid("array", HostOffset::ZERO, found, expected).into());
        };
        let bytes = blocks.read(block, kind::ARRAY, 16)?;
        // All but the last are full, so that the work is bounded by the entries.
        let wanted = (count - done).min(FULL);
        for value in values(&bytes[..], block, wanted)? {
            take(done, value)?;
            done += 1;
        }
        index += 1;
    }
    Ok(())
}

/// The first `wanted` values of a block.
fn values(bytes: &[u8], block: u64, wanted: u64) -> Result<impl Iterator<Item = u64>> {
    let (count, size) = (number::<4>(bytes, 8), number::<4>(bytes, 12));
    if size != VALUE as u64 || !(wanted..=FULL).contains(&count) {
        let at = HostOffset(block.saturating_mul(BLOCK as u64));
        let found = Value::Text(format!("{count} of {size} bytes").into_bytes());
        let expected = format!("{wanted} to {FULL} of 8 bytes");
        return Err(invalid("entries of an array", at, found, expected).into());
    }
    let count = usize::try_from(wanted).unwrap_or(0);
    Ok((0..count).map(move |index| number::<8>(bytes, HEADER + VALUE * index)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::checksum;
    use anydisk_core::Limits;
    use anydisk_storage::MemoryStorage;

    fn sealed(mut block: Vec<u8>, kind: u32) -> Vec<u8> {
        let sum = checksum::block(&block[4..], kind);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// A block of an array with so many values, each its own number.
    fn block(number: u64, first: u64, count: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        for (at, word) in [(8, count | 8 << 32), (16, number)] {
            block[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for index in 0..count {
            let at = HEADER + VALUE * usize::try_from(index).unwrap();
            block[at..at + 8].copy_from_slice(&(first + index).to_le_bytes());
        }
        sealed(block, kind::ARRAY)
    }

    /// An array of two blocks, with so many values in each.
    fn array(counts: [u64; 2]) -> Blocks {
        let mut root = vec![0; BLOCK];
        root[4] = 2;
        for (at, word) in
            [(16, 2 | 252 << 32), (24, 8), (40, 1), (32 + 8 * 252, 1), (40 + 8 * 252, 2)]
        {
            root[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
        }
        let root = sealed(root, kind::NODE);
        let blocks = [root, block(1, 0, counts[0]), block(2, FULL, counts[1])].concat();
        Blocks::new(Arc::new(MemoryStorage::new(blocks)), &Limits::default()).unwrap()
    }

    fn values_of(counts: [u64; 2], count: u64) -> Result<Vec<(u64, u64)>> {
        let mut taken = Vec::new();
        for_each(&array(counts), 0, count, |index, value| {
            taken.push((index, value));
            Ok(())
        })?;
        Ok(taken)
    }

    #[test]
    fn values_of_all_blocks_come_in_order_and_those_behind_the_count_do_not() {
        let expected: Vec<_> = (0..FULL + 3).map(|index| (index, index)).collect();
        assert_eq!(values_of([FULL, 3], FULL + 3).unwrap(), expected);
        assert_eq!(values_of([FULL, 9], FULL + 3).unwrap(), expected);
        assert_eq!(values_of([FULL, 9], 5).unwrap(), expected[..5]);
    }

    // One value in each block made a look-up in the tree of each value.
    #[test]
    fn a_block_that_is_not_full_though_others_follow_is_refused() {
        let error = values_of([1, 9], 10).unwrap_err().to_string();
        assert!(error.contains("is \"1 of 8 bytes\", expected 10 to 509"), "{error}");
        assert!(values_of([FULL, 2], FULL + 3).is_err());
    }
}
