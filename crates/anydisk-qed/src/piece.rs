//! Pieces of the file, and the words of its tables.

use anydisk_core::{HostOffset, Result, Storage, StorageExt};
use anydisk_storage::Run;

use crate::table::ENTRY;

/// Bytes of tables that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// Consecutive bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) at: HostOffset,
    pub(crate) len: u64,
}

impl Piece {
    pub(crate) fn new(at: HostOffset, len: u64) -> Self {
        Self { at, len }
    }

    pub(crate) fn end(self) -> HostOffset {
        self.at.saturating_add(self.len)
    }

    /// Whether the two share a byte.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.at < other.end() && other.at < self.end()
    }
}

/// Calls `each` with the place and value of every entry, but 0, of a table. Holes of the file are not
/// read, and what lies behind its end is 0.
pub(crate) fn each_word(
    store: &dyn Storage,
    table: Piece,
    each: &mut impl FnMut(HostOffset, u64) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < table.len {
        let start = table.at.saturating_add(done);
        let run = match store.holes() {
            Some(holes) => holes.run_at(start, table.len - done)?,
            None => Run { len: table.len - done, hole: false },
        };
        if run.hole && run.len >= ENTRY {
            done += run.len - run.len % ENTRY;
            continue;
        }
        let part = run.len.next_multiple_of(ENTRY).min(table.len - done).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(part).expect("at most a mebibyte")];
        store.read_padded_at(start, &mut bytes)?;
        for (number, word) in (0..).zip(bytes.as_chunks().0) {
            let word = u64::from_le_bytes(*word);
            if word != 0 {
                each(start.saturating_add(number * ENTRY), word)?;
            }
        }
        done += part;
    }
    Ok(())
}
