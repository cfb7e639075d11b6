//! Pieces of the file, and the words of its tables.

use anydisk_core::{HostOffset, Result, StorageExt};
use anydisk_storage::Run;

use crate::QcowImage;
use crate::table::ENTRY;

/// Bytes of tables that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// Consecutive bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl Piece {
    pub(crate) fn new(at: HostOffset, len: u64) -> Self {
        Self { at: at.get(), end: at.get().saturating_add(len) }
    }

    /// Its first byte.
    pub(crate) fn at(self) -> HostOffset {
        HostOffset(self.at)
    }

    /// Whether the two share a byte.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.at < other.end && other.at < self.end
    }
}

/// Calls `each` with the place and value of every entry, but 0, of a table of `len` bytes. Holes
/// of the file are not read.
pub(crate) fn each_word(
    image: &QcowImage,
    at: HostOffset,
    len: u64,
    each: &mut impl FnMut(HostOffset, u64) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let start = at.saturating_add(done);
        let run = match image.store.holes() {
            Some(holes) => holes.run_at(start, len - done)?,
            None => Run { len: len - done, hole: false },
        };
        if run.hole && run.len >= ENTRY {
            done += run.len - run.len % ENTRY;
            continue;
        }
        let part = run.len.next_multiple_of(ENTRY).min(len - done).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(part).expect("at most a mebibyte")];
        image.store.read_padded_at(start, &mut bytes)?;
        for (number, word) in (0..).zip(bytes.as_chunks().0) {
            let word = u64::from_be_bytes(*word);
            if word != 0 {
                each(start.saturating_add(number * ENTRY), word)?;
            }
        }
        done += part;
    }
    Ok(())
}
