//! Writers that cannot seek: a stream of units in guest order.

use std::fmt::Debug;

use anydisk_codec::Codec;

use crate::{GuestOffset, GuestRange, Packing, Result};

/// Takes a disk in one pass, first byte to last, and writes an image that is never read back.
///
/// The caller hands in pieces in rising order without overlap. What is never handed in is zero.
/// After [`finish`](Self::finish) the image is complete; a sink dropped before leaves a torso.
pub trait Sink: Send + Debug {
    /// Virtual size in bytes of the disk being written.
    fn size(&self) -> u64;

    /// Pieces of data must begin at multiples of this many bytes and be a multiple of it long,
    /// except the last of the disk.
    fn unit(&self) -> u64;

    /// How units are packed, if they are. Packing on many threads and handing in
    /// [`Piece::Encoded`] gives the same stream as handing in the data.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// Takes one piece.
    fn put(&mut self, at: GuestOffset, piece: Piece<'_>) -> Result<()>;

    /// Writes what belongs behind the data. Does not make it durable.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// What a sink is given.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Piece<'a> {
    /// Bytes of whole units.
    Data(&'a [u8]),
    /// So many bytes of zeroes.
    Zero(u64),
    /// One unit, packed as the sink's [`Packing`] says or as a codec it takes.
    Encoded {
        /// The packed bytes, without padding.
        bytes: &'a [u8],
        /// How they are packed.
        codec: Codec,
        /// The guest range they stand for.
        unit: GuestRange,
    },
}
