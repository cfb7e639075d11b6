//! Arrays: numbered blocks of packed values, found through a tree.

use anydisk_core::{HostOffset, Result, Value};

use super::tree::Tree;
use super::{BLOCK, Blocks, invalid, kind, number};

/// Bytes in front of the values.
const HEADER: usize = 24;
/// Bytes of a value.
const VALUE: usize = 8;

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
        for value in values(&bytes[..], block)?.take(usize::try_from(count - done).unwrap_or(0)) {
            take(done, value)?;
            done += 1;
        }
        index += 1;
    }
    Ok(())
}

/// The values of a block, at least one.
fn values(bytes: &[u8], block: u64) -> Result<impl Iterator<Item = u64>> {
    let (count, size) = (number::<4>(bytes, 8), number::<4>(bytes, 12));
    let most = ((BLOCK - HEADER) / VALUE) as u64;
    if size != VALUE as u64 || !(1..=most).contains(&count) {
        let at = HostOffset(block.saturating_mul(BLOCK as u64));
        let found = Value::Text(format!("{count} of {size} bytes").into_bytes());
        return Err(invalid("entries of an array", at, found, "some of 8 bytes").into());
    }
    let count = usize::try_from(count).unwrap_or(0);
    Ok((0..count).map(move |index| number::<8>(bytes, HEADER + VALUE * index)))
}
