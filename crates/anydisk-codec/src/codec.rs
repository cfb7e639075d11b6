//! The list of codecs.

use std::fmt::Debug;

use crate::{DecodeError, Decoder, lzfse, lzo};

/// How the bytes of one encoded unit (a cluster, a grain, a chunk) are packed.
///
/// Each unit is packed by itself: none refers to the bytes of another.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Codec {
    /// A raw deflate stream (RFC 1951), as in qcow2 ("Compressed Clusters", type 0).
    ///
    /// Padding or garbage may follow it, and a stream that holds more than the unit counts as the
    /// unit's first bytes.
    Deflate,
    /// A zlib stream (RFC 1950), as in a streamOptimized VMDK: checked by its Adler-32, and an
    /// error if it holds more than the unit. Padding may follow.
    Zlib,
    /// Zstandard frames (RFC 8878) until the unit is full, as in qcow2 (type 1).
    ///
    /// The last frame must end where the unit does; padding or garbage may follow.
    Zstd,
    /// A bzip2 stream, as in a DMG: checked by its CRC-32, and an error if it holds more than the
    /// unit. Padding may follow.
    Bzip2,
    /// An .xz stream with LZMA2 and a dictionary of up to 64 MiB, as in a DMG: checked as the stream
    /// says, and an error if it holds more than the unit. Padding may follow.
    Xz,
    /// An LZFSE stream up to the mark of its end, as in a DMG. Padding may follow.
    Lzfse,
    /// Apple data compression, as in a DMG. Nothing marks its end: no byte may follow.
    Adc,
    /// A block of LZ4 without a frame, as in cloop. Nothing marks its end: no byte may follow.
    Lz4,
    /// An LZO1X stream up to the mark of its end, as in cloop. Padding may follow.
    Lzo,
    /// A codec from elsewhere.
    Custom(&'static dyn Decode),
}

/// A codec that is not in this crate.
///
/// The caller guarantees nothing about `stream`: it comes from a file that a stranger made. In
/// exchange the implementation never panics, and takes memory and time bounded by the lengths of
/// `stream` and `out`.
pub trait Decode: Send + Sync + Debug {
    /// Its name, in the words of the format: distinct from those of [`Codec`].
    fn name(&self) -> &'static str;

    /// Decodes one unit, or what there is of it: returns how many bytes of `out` were filled.
    ///
    /// # Errors
    ///
    /// As [`Codec::decode_prefix`].
    fn decode_prefix(&self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError>;
}

/// What came out of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decoded {
    /// Bytes of the unit.
    pub len: usize,
    /// Bytes of the stream that hold it, if the packed unit ends with the unit itself. `None` where
    /// it goes on behind it, or where that is not known: then it cannot be passed on as it is.
    pub used: Option<usize>,
}

impl Decoded {
    /// So many bytes of the unit, out of so many of the stream.
    #[must_use]
    pub const fn new(len: usize, used: Option<usize>) -> Self {
        Self { len, used }
    }
}

impl Codec {
    /// Its name as formats and tools spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzfse => lzfse::NAME,
            Self::Adc => "adc",
            Self::Lz4 => "lz4",
            Self::Lzo => lzo::NAME,
            Self::Custom(codec) => codec.name(),
        }
    }

    /// Whether the bytes of one can be stored as the other without packing them again.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    /// Decodes one unit: fills `out` exactly. `stream` may reach past the packed bytes.
    ///
    /// For one unit now and then; a [`Decoder`] keeps the codec's state for the next.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the stream is broken, holds too few bytes, or too many where that is not
    /// allowed.
    pub fn decode(&self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        Decoder::new().decode(*self, stream, out)
    }

    /// Decodes one unit that may be shorter than `out`, and tells its length in bytes.
    ///
    /// For the last grain of a VMDK, of which the short and the full form occur.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the stream is broken, does not end, or holds too many bytes where that
    /// is not allowed.
    pub fn decode_prefix(&self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        Decoder::new().decode_prefix(*self, stream, out)
    }
}
