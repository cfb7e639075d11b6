//! Encoding of deflate and zlib streams.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::encode::pack;
use crate::pool::Pool;
use crate::{Codec, Encode, EncodeError};

/// What both wrappings share: parameters and states.
#[derive(Debug)]
struct Deflater {
    codec: Codec,
    level: u32,
    window_bits: u8,
    states: Pool<Compress>,
}

impl Deflater {
    fn new(codec: Codec, level: u32, window_bits: u8) -> Result<Self, EncodeError> {
        let refuse = |parameter, found: u32, expected| EncodeError::Parameter {
            codec: codec.name(),
            parameter,
            found: i64::from(found),
            expected,
        };
        if level > 9 {
            return Err(refuse("level", level, "0 to 9"));
        }
        if !(9..=15).contains(&window_bits) {
            return Err(refuse("window_bits", u32::from(window_bits), "9 to 15"));
        }
        Ok(Self { codec, level, window_bits, states: Pool::new() })
    }

    fn state(&self) -> Compress {
        let zlib = matches!(self.codec, Codec::Zlib);
        Compress::new_with_window_bits(Compression::new(self.level), zlib, self.window_bits)
    }

    fn encode(&self, unit: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        pack(bound(unit.len()), limit, out, |space| {
            self.states.with(
                || self.state(),
                |state| {
                    state.reset();
                    match state.compress(unit, space, FlushCompress::Finish) {
                        Ok(Status::StreamEnd) => Ok(length(state)),
                        _ => Err(EncodeError::Failed {
                            codec: self.codec.name(),
                            len: unit.len(),
                            reason: "the stream does not end".into(),
                        }),
                    }
                },
            )
        })
    }
}

fn length(state: &Compress) -> usize {
    usize::try_from(state.total_out()).expect("it lies in memory")
}

/// No stream is longer than this: a unit that does not shrink takes nine bits a byte at level 1.
fn bound(len: usize) -> usize {
    len + len / 4 + 64
}

/// Packs units as [`Codec::Deflate`].
#[derive(Debug)]
pub struct DeflateEncoder(Deflater);

impl DeflateEncoder {
    /// An encoder of `level` 0 (stored) to 9 (smallest), whose distances reach back
    /// 2^`window_bits` bytes at most: 9 to 15.
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
        self.0.encode(unit, limit, out)
    }
}

/// Packs units as [`Codec::Zlib`], with a window of 32 KiB.
#[derive(Debug)]
pub struct ZlibEncoder(Deflater);

impl ZlibEncoder {
    /// An encoder of `level` 0 (stored) to 9 (smallest).
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
        self.0.encode(unit, limit, out)
    }
}
