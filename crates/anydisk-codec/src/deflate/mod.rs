//! Encoding of deflate and zlib streams.
//!
//! Our own encoder, because those of the libraries either cannot keep to a small window or get
//! slow and large when they do. A unit goes through it in one pass of short strides:
//!
//! ```text
//!   unit --(matches: find repeats; pack: literal or match?)--> tokens and their counts
//!        --(split: does a new block pay?)--> blocks --(huffman, block: codes, header)--> bits
//! ```

mod bits;
mod block;
mod huffman;
mod matches;
mod pack;
mod split;

use self::bits::BitWriter;
use self::pack::Packer;
use crate::encode::pack;
use crate::pool::Pool;
use crate::{Codec, Encode, EncodeError};

/// What both wrappings share: parameters and states.
#[derive(Debug)]
struct Deflater {
    codec: Codec,
    level: u32,
    window_bits: u8,
    states: Pool<Packer>,
}

impl Deflater {
    fn new(codec: Codec, level: u32, window_bits: u8) -> Result<Self, EncodeError> {
        let refuse = |parameter, found: u32, expected| EncodeError::Parameter {
            codec: codec.name(),
            parameter,
            found: i64::from(found),
            expected,
        };
        if !(1..=9).contains(&level) {
            return Err(refuse("level", level, "1 to 9"));
        }
        if !(9..=15).contains(&window_bits) {
            return Err(refuse("window_bits", u32::from(window_bits), "9 to 15"));
        }
        Ok(Self { codec, level, window_bits, states: Pool::new() })
    }

    /// Checks that places in a unit of `len` bytes can be counted.
    fn check(&self, len: usize) -> Result<(), EncodeError> {
        if i32::try_from(len).is_ok() {
            return Ok(());
        }
        let reason = "a unit must be below 2 GiB".into();
        Err(EncodeError::Failed { codec: self.codec.name(), len, reason })
    }

    /// Writes the stream of `unit` to `space`, returns its length in bytes.
    fn write(&self, unit: &[u8], space: &mut [u8]) -> usize {
        let mut bits = BitWriter::new(space);
        let new = || Packer::new(self.level, self.window_bits);
        self.states.with(new, |state| state.pack(unit, &mut bits));
        bits.len()
    }
}

/// No stream is longer than this: a block that does not shrink is stored, at a cost of 5 bytes
/// for 1024 at least. The writer of bits wants 8 more.
fn bound(len: usize) -> usize {
    len + len / 128 + 64
}

/// Packs units as [`Codec::Deflate`].
#[derive(Debug)]
pub struct DeflateEncoder(Deflater);

impl DeflateEncoder {
    /// The level at which streams get no larger than those of zlib's default level.
    pub const DEFAULT_LEVEL: u32 = 6;

    /// An encoder of `level` 1 (fastest) to 9 (smallest), whose distances stay below
    /// 2^`window_bits` bytes: 9 to 15.
    ///
    /// Readers of qcow2 inflate with a window of 12 bits.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Parameter`] if the level or the window is outside these.
    pub fn new(level: u32, window_bits: u8) -> Result<Self, EncodeError> {
        Deflater::new(Codec::Deflate, level, window_bits).map(Self)
    }
}

impl Encode for DeflateEncoder {
    fn codec(&self) -> Codec {
        self.0.codec
    }

    fn encode(&self, unit: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        self.0.check(unit.len())?;
        pack(bound(unit.len()), limit, out, |space| Ok(self.0.write(unit, space)))
    }
}

/// A zlib stream with a window of 32 KiB and no dictionary (RFC 1950, 2.2).
const HEADER: [u8; 2] = [0x78, 0x9c];

/// The checksum of a zlib stream (RFC 1950, 8.2).
fn adler32(unit: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    // So many bytes that neither sum can overflow before it is reduced.
    const PIECE: usize = 5552;
    let (a, b) = unit.chunks(PIECE).fold((1, 0), |sums, piece| {
        let add = |(a, b), &byte| {
            let a: u32 = a + u32::from(byte);
            (a, b + a)
        };
        let (a, b): (u32, u32) = piece.iter().fold(sums, add);
        (a % MODULUS, b % MODULUS)
    });
    b << 16 | a
}

/// Packs units as [`Codec::Zlib`], with a window of 32 KiB.
#[derive(Debug)]
pub struct ZlibEncoder(Deflater);

impl ZlibEncoder {
    /// The level at which streams get no larger than those of zlib's default level.
    pub const DEFAULT_LEVEL: u32 = 6;

    /// An encoder of `level` 1 (fastest) to 9 (smallest).
    ///
    /// # Errors
    ///
    /// [`EncodeError::Parameter`] if there is no such level.
    pub fn new(level: u32) -> Result<Self, EncodeError> {
        Deflater::new(Codec::Zlib, level, 15).map(Self)
    }
}

impl Encode for ZlibEncoder {
    fn codec(&self) -> Codec {
        self.0.codec
    }

    fn encode(&self, unit: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        self.0.check(unit.len())?;
        pack(bound(unit.len()), limit, out, |space| {
            space[..2].copy_from_slice(&HEADER);
            let end = 2 + self.0.write(unit, &mut space[2..]);
            space[end..end + 4].copy_from_slice(&adler32(unit).to_be_bytes());
            Ok(end + 4)
        })
    }
}
