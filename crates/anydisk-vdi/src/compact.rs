//! Closing gaps: units of zeroes give their blocks back, and the last blocks of the file move into
//! what is free before them.
//!
//! ```text
//!   entries of zero blocks -> zero        written, flushed     readers of before are gone
//!   last blocks copied into the gaps      flushed
//!   their entries                         written, flushed     readers of before are gone
//!   cBlocksAllocated                      written, flushed
//!   the file is cut
//! ```
//!
//! At each moment every entry on the medium names a block that holds its bytes: nothing is written
//! to a block before the map without it is durable, and nobody writes to the disk meanwhile.

use anydisk_core::{
    Block, Compact, Error, GuestOffset, HostOffset, Image, ImageWrite, NamedBlocks, Result, Still,
    Storage, StorageExt,
};

use crate::guard::for_each_entry;
use crate::header::limit;
use crate::image::VdiImage;
use crate::layout::{ENTRY, FREE, ZERO};
use crate::limits;

/// Bytes that are read or copied at once.
const AT_ONCE: u64 = 1 << 20;

/// Blocks that are moved between two flushes.
const MOVES: usize = 1 << 12;

/// A block of the file that is to be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// The block of the disk.
    guest: u64,
    from: u64,
    pub(crate) to: u64,
}

impl Compact for VdiImage {
    fn compact(&self, progress: &dyn Fn(u64, u64) -> bool) -> Result<u64> {
        let still = self.table.hold_still()?;
        self.flush()?;
        self.drop_zeroes(&still, progress)?;
        self.close_gaps(&still)
    }
}

impl VdiImage {
    /// Lets every block of zeroes be an entry.
    fn drop_zeroes(&self, still: &Still<'_>, progress: &dyn Fn(u64, u64) -> bool) -> Result<()> {
        let mut zeroes = Vec::new();
        let (mut done, total) = (0, self.size());
        self.for_each_block(|guest, number| {
            if !progress(done, total) {
                return Err(Error::Cancelled);
            }
            done = (guest + 1).saturating_mul(self.header.block).min(total);
            if self.is_zero_block(number)? {
                zeroes.push(guest);
            }
            Ok(())
        })?;
        for guest in zeroes {
            self.table.set_still(self, still, self.unit_start(guest), Block::Zero)?;
        }
        self.flush()
    }

    /// Moves the last blocks into the gaps and cuts the file behind them. Returns the bytes by
    /// which it became shorter.
    pub(crate) fn close_gaps(&self, still: &Still<'_>) -> Result<u64> {
        let before = self.table.store().len()?;
        self.flush()?;
        let count = self.blocks_used();
        let mut named = NamedBlocks::new(count);
        let mut used = 0;
        self.for_each_block(|_, number| {
            used += u64::from(named.insert(number));
            Ok(())
        })?;
        // Readers of blocks that were given up before must be gone before these are written to.
        still.drain()?;
        let mut gaps = named.gaps(used).flatten();
        loop {
            let moves = self.next_moves(used, &mut gaps)?;
            if moves.is_empty() {
                break;
            }
            self.move_blocks(still, &moves)?;
        }
        still.drain()?;
        self.cut(used)?;
        Ok(before.saturating_sub(self.table.store().len()?))
    }

    /// Closes the gaps of an image that nobody else uses.
    pub(crate) fn close_all_gaps(&self) -> Result<u64> {
        self.close_gaps(&self.table.hold_still()?)
    }

    /// The next blocks behind the first `used` ones, each with a gap.
    fn next_moves(&self, used: u64, gaps: &mut impl Iterator<Item = u64>) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        self.for_each_block(|guest, from| {
            if from >= used
                && moves.len() < MOVES
                && let Some(to) = gaps.next()
            {
                moves.push(Move { guest, from, to });
            }
            Ok(())
        })?;
        Ok(moves)
    }

    /// The blocks of the file whose numbers are `wanted`, their new places still to be chosen.
    pub(crate) fn moves_of(&self, wanted: impl Fn(u64) -> bool) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        self.for_each_block(|guest, from| {
            if wanted(from) {
                moves.push(Move { guest, from, to: from });
            }
            Ok(())
        })?;
        Ok(moves)
    }

    /// Copies blocks to places that nothing names, and then names these.
    pub(crate) fn move_blocks(&self, still: &Still<'_>, moves: &[Move]) -> Result<()> {
        moves.iter().try_for_each(|one| self.copy_block(one.from, one.to))?;
        self.table.store().flush()?;
        for one in moves {
            let to = self.block_at(one.to).saturating_add(self.header.extra);
            self.table.set_still(self, still, self.unit_start(one.guest), Block::At(to))?;
        }
        self.flush()
    }

    /// All of a block, with what precedes its data.
    fn copy_block(&self, from: u64, to: u64) -> Result<()> {
        let store = self.table.store();
        let stride = self.header.stride();
        let mut done = 0;
        while done < stride {
            let len = (stride - done).min(AT_ONCE);
            let mut bytes = vec![0; usize::try_from(len).expect("1 MiB at most")];
            store.read_padded_at(self.block_at(from).saturating_add(done), &mut bytes)?;
            store.write_at(self.block_at(to).saturating_add(done), &bytes)?;
            done += len;
        }
        Ok(())
    }

    /// Ends the file behind its first `used` blocks.
    fn cut(&self, used: u64) -> Result<()> {
        let _round = self.lock_round();
        let store = self.table.store();
        self.state.set_allocated(used, &**store)?;
        store.flush()?;
        let end = self.block_at(used);
        if store.len()? > end.get() {
            store.set_len(end.get())?;
            store.flush()?;
        }
        self.table.space().reset(end);
        Ok(())
    }

    fn is_zero_block(&self, number: u64) -> Result<bool> {
        let at = self.block_at(number).saturating_add(self.header.extra);
        Ok(self.table.store().is_zero_at(at, self.header.block)?)
    }

    /// Calls `each` with every block of the disk that has one in the file, and its number, as the
    /// map on the medium says.
    fn for_each_block(&self, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let shape = self.table.shape();
        limit("number of blocks", shape.entries, limits::BLOCKS)?;
        let store = &**self.table.store();
        for_each_entry(shape.table, shape.entries, store, |at, entry| match entry {
            FREE | ZERO => Ok(()),
            number => each((at.get() - shape.table.get()) / ENTRY, number.into()),
        })
    }

    /// Blocks of the file up to the last one in use.
    pub(crate) fn blocks_used(&self) -> u64 {
        self.number_at(self.table.space().used_end())
    }

    pub(crate) fn block_at(&self, number: u64) -> HostOffset {
        let first = self.table.shape().first;
        first.saturating_add(number.saturating_mul(self.header.stride()))
    }

    pub(crate) fn number_at(&self, at: HostOffset) -> u64 {
        at.get().saturating_sub(self.table.shape().first.get()) / self.header.stride()
    }

    fn unit_start(&self, guest: u64) -> GuestOffset {
        GuestOffset(guest.saturating_mul(self.header.block))
    }
}
