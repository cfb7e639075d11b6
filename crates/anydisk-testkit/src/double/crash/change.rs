//! One change of a store, and its making.

use std::fmt;
use std::ops::Range;

use anydisk_storage::{HostOffset, MemoryStorage, Result, Space, Storage};

/// What a discarded byte reads as: anything may be there, so it is neither old nor zero.
const GARBAGE: u8 = 0xDB;

/// The unit that a medium writes wholly or not at all, in bytes.
const SECTOR: u64 = 512;

#[derive(Debug)]
pub(super) enum Change {
    Write { at: HostOffset, data: Vec<u8> },
    Zero { at: HostOffset, len: u64, unmap: bool },
    Discard { at: HostOffset, len: u64 },
    SetLen { len: u64 },
    Grow { len: u64 },
}

impl Change {
    pub(super) fn apply(&self, store: &MemoryStorage) -> Result<()> {
        match self {
            Self::Write { at, data } => store.write_at(*at, data),
            Self::Zero { at, len, unmap } => store.zero(*at, *len, *unmap),
            Self::Discard { at, len } => spoil(store, *at, *len),
            Self::SetLen { len } => store.set_len(*len),
            Self::Grow { len } => store.set_len(store.len()?.max(*len)),
        }
    }

    /// Where it is made; `None` for a change of the length.
    pub(super) fn place(&self) -> Option<u64> {
        match self {
            Self::Write { at, .. } | Self::Zero { at, .. } | Self::Discard { at, .. } => {
                Some(at.get())
            }
            Self::SetLen { .. } | Self::Grow { .. } => None,
        }
    }

    /// The pieces of which each may be kept or lost: of a write its sectors, else all in one.
    pub(super) fn pieces(&self, torn: bool) -> Vec<Range<usize>> {
        match self {
            Self::Write { at, data } if torn => sectors(at.get(), data.len()),
            Self::Write { data, .. } => std::iter::once(0..data.len()).collect(),
            _ => std::iter::once(0..0).collect(),
        }
    }

    pub(super) fn apply_piece(&self, store: &MemoryStorage, piece: &Range<usize>) -> Result<()> {
        match self {
            Self::Write { at, data } => {
                store.write_at(at.saturating_add(piece.start as u64), &data[piece.clone()])
            }
            whole => whole.apply(store),
        }
    }
}

fn spoil(store: &MemoryStorage, at: HostOffset, len: u64) -> Result<()> {
    let len = len.min(store.len()?.saturating_sub(at.get()));
    let garbage = vec![GARBAGE; usize::try_from(len.min(1 << 16)).unwrap_or(0)];
    let mut done = 0;
    while done < len {
        let part = usize::try_from(len - done).unwrap_or(usize::MAX).min(garbage.len());
        store.write_at(at.saturating_add(done), &garbage[..part])?;
        done += part as u64;
    }
    Ok(())
}

/// Cuts `len` bytes that lie at `at` where sectors of the medium meet.
fn sectors(at: u64, len: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < len {
        let room = SECTOR - (at + start as u64) % SECTOR;
        let end = len.min(start + usize::try_from(room).unwrap_or(len));
        pieces.push(start..end);
        start = end;
    }
    pieces
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { at, data } => write!(f, "write {:#x} at {at}", data.len()),
            Self::Zero { at, len, .. } => write!(f, "zero {len:#x} at {at}"),
            Self::Discard { at, len } => write!(f, "discard {len:#x} at {at}"),
            Self::SetLen { len } => write!(f, "set the length to {len:#x}"),
            Self::Grow { len } => write!(f, "grow to {len:#x}"),
        }
    }
}
