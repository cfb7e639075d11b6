//! The compression codecs of disk image formats, with their limits.

mod codec;
mod decode;
mod deflate;
mod encode;
mod error;
mod inflate;
mod pool;
mod zstd;

pub use codec::{Codec, Decode};
pub use decode::{Decoder, Decoders};
pub use deflate::{DeflateEncoder, ZlibEncoder};
pub use encode::Encode;
pub use error::{DecodeError, EncodeError};
pub use zstd::ZstdEncoder;

/// Packs deflate streams, see [`DeflateEncoder::new`].
///
/// # Errors
///
/// As there.
pub fn deflate(level: u32, window_bits: u8) -> Result<DeflateEncoder, EncodeError> {
    DeflateEncoder::new(level, window_bits)
}

/// Packs zlib streams, see [`ZlibEncoder::new`].
///
/// # Errors
///
/// As there.
pub fn zlib(level: u32) -> Result<ZlibEncoder, EncodeError> {
    ZlibEncoder::new(level)
}

/// Packs Zstandard frames, see [`ZstdEncoder::new`].
///
/// # Errors
///
/// As there.
pub fn zstd(level: i32) -> Result<ZstdEncoder, EncodeError> {
    ZstdEncoder::new(level)
}
