//! The image's own side of writing: fixed disks, and what becomes zero without being written.

use std::sync::Arc;

use anydisk_core::{
    Attempt, Below, Claims, Committed, GuestRange, Handled, HostOffset, Image, ImageWrite,
    Placement, Reserved, Result, Storage, WriteLease, Zeroing,
};

use crate::blocks::{Blocks, Look};
use crate::guard::read_only;
use crate::image::{Body, VhdImage};
use crate::layout::SECTOR;
use crate::write::Writer;

const NOT_WRITABLE: &str = "it was opened for reading";

impl VhdImage {
    /// The blocks and what writes them, of a disk in blocks.
    pub(crate) fn blocks(&self) -> Option<(&Blocks, &Writer)> {
        match &self.body {
            Body::Fixed(_) => None,
            Body::Blocks(blocks) => Some((blocks, blocks.writer.as_ref()?)),
        }
    }

    /// What the tables say of the start of the range, reading them as needed.
    pub(crate) fn look_now<'a>(&self, blocks: &'a Blocks, range: GuestRange) -> Result<Look<'a>> {
        loop {
            match blocks.look(range)? {
                Look::Need(need) => self.satisfy(&need)?,
                look => return Ok(look),
            }
        }
    }

    /// Makes a part of the disk zero where it is, or says that zeroes must be written.
    fn clear_in_place(&self, range: GuestRange, unmap: bool) -> Result<Handled> {
        // Placed as for a write: it changes the block.
        let Placement::InPlace { store, at, len, lease: _lease } = self.place(range)? else {
            return Ok(Handled::ByData(range.len()));
        };
        let Some(space) = store.space() else { return Ok(Handled::ByData(len)) };
        match space.zero(at, len, unmap) {
            Ok(()) => Ok(Handled::Done(len)),
            Err(anydisk_storage::Error::Unsupported { .. }) => Ok(Handled::ByData(len)),
            Err(error) => Err(error.into()),
        }
    }

    fn clear(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        let Some((blocks, writer)) = self.blocks() else {
            return self.clear_in_place(range, how.unmap);
        };
        let may_show = blocks.has_bitmaps() || how.below == Below::Image;
        match self.look_now(blocks, range)? {
            Look::NoBlock { len } if !may_show => Ok(Handled::Done(len)),
            Look::NoBlock { len } | Look::Unset { len, .. } => Ok(Handled::ByData(len)),
            Look::Here { len, .. } => {
                let block = blocks.shape().block_at(range.start());
                if how.unmap && !may_show && range.contains(block) {
                    return Ok(Handled::Done(blocks.free_block(writer, self, block.start())?));
                }
                self.clear_in_place(range.first(len), how.unmap)
            }
            Look::Need(_) => Ok(Handled::ByData(range.len())),
        }
    }
}

impl ImageWrite for VhdImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        match &self.body {
            Body::Fixed(fixed) if self.writable => {
                fixed.doubt.check()?;
                let (at, len) = (HostOffset(range.start().get()), range.len());
                let (store, lease) = (&fixed.store, WriteLease::eternal());
                Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
            }
            Body::Fixed(_) => Err(read_only(NOT_WRITABLE)),
            Body::Blocks(_) => match self.blocks() {
                Some((blocks, writer)) => blocks.try_place(writer, self, range),
                None => Err(read_only(NOT_WRITABLE)),
            },
        }
    }

    fn claims(&self) -> Option<&Claims> {
        self.blocks().map(|(_, writer)| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        match self.blocks() {
            Some((blocks, writer)) => Ok(blocks.try_commit(writer, reserved)),
            None => Err(read_only(NOT_WRITABLE)),
        }
    }

    fn abandon(&self, reserved: &Reserved) {
        if let Some((blocks, writer)) = self.blocks() {
            blocks.abandon(writer, reserved);
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.clear(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.clear(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        match (&self.body, self.blocks()) {
            (Body::Fixed(fixed), _) => {
                fixed.doubt.check()?;
                Ok(fixed.store.flush()?)
            }
            (_, Some((blocks, writer))) => blocks.write_back(writer),
            (_, None) => Err(read_only(NOT_WRITABLE)),
        }
    }

    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        match &self.body {
            Body::Fixed(fixed) => Some(&fixed.store),
            Body::Blocks(blocks) => Some(&blocks.store),
        }
    }

    fn unit(&self) -> u64 {
        match &self.body {
            Body::Fixed(_) => 1,
            Body::Blocks(blocks) if blocks.has_bitmaps() => SECTOR,
            Body::Blocks(blocks) => blocks.shape().block,
        }
    }
}
