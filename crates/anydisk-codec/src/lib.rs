//! The compression codecs of disk image formats, with their limits.
//!
//! A format packs whole units (qcow2 clusters, VMDK grains), each by itself. It stores where the
//! packed bytes begin, and often only about how many there are: what follows may be padding, or the
//! next unit. This crate decodes one unit as the programs that wrote it do, and packs units so that
//! those programs read them. It knows nothing of the formats themselves.
//!
//! ```text
//!   stream, as much as the image names        unit
//!   [ packed bytes | padding, garbage ] --> [ exactly so many bytes ]   Codec, Decoder, Decoders
//!   [ packed bytes ] <--------------------- [ ...                   ]   Encode
//! ```
//!
//! | codec | bytes | used by | more than the unit | fewer | checked |
//! |---|---|---|---|---|---|
//! | [`Codec::Deflate`] | RFC 1951 | qcow2, type 0 | first bytes taken | refused | no |
//! | [`Codec::Zlib`] | RFC 1950 | streamOptimized VMDK | refused | refused | Adler-32 |
//! | [`Codec::Zstd`] | RFC 8878, one or more frames | qcow2, type 1 | refused | refused | if the frame has a checksum |
//! | [`Codec::Bzip2`] | bzip2 | DMG | refused | refused | CRC-32 |
//! | [`Codec::Xz`] | .xz, of LZMA2 | DMG | refused | refused | as the stream says |
//! | [`Codec::Lzfse`] | LZFSE | DMG | refused | refused | no |
//! | [`Codec::Adc`] | ADC | DMG | refused | refused | no |
//! | [`Codec::Lz4`] | a block of LZ4 | cloop | refused | refused | no |
//! | [`Codec::Lzo`] | LZO1X | cloop | refused | refused | no |
//! | [`Codec::Custom`] | | formats with a codec of their own | | | |
//!
//! All but bzip2 and .xz decode with their history in the output itself. So distances of any length are
//! followed, whatever window a writer used, and no stream makes a decoder take memory for a window: beside
//! the output it keeps a fixed state. bzip2 takes up to 4 MiB while it works, .xz as much as the unit
//! is long. Time is bounded by the stream and the unit together, and a
//! stream that would inflate to gigabytes ends with the unit.
//!
//! [`DeflateEncoder`] takes its window as a parameter, because readers of qcow2 may keep no more
//! than 4 KiB, and never reaches further back.
//!
//! ```
//! use anydisk_codec::{Codec, Decoders, Encode, deflate};
//!
//! let cluster = b"as it lies on the disk. ".repeat(2731)[..65536].to_vec();
//!
//! // Threads share an encoder. What does not shrink is to be stored plainly: Ok(false).
//! let encoder = deflate(6, 12)?;
//! let mut packed = Vec::new();
//! assert!(encoder.encode(&cluster, cluster.len(), &mut packed)?);
//!
//! // Threads share decoders too. The image pads to the sector; the codec does not mind.
//! packed.resize(packed.len().next_multiple_of(512), 0);
//! let decoders = Decoders::new();
//! let mut out = vec![0; cluster.len()];
//! decoders.decode(Codec::Deflate, &packed, &mut out)?;
//! assert_eq!(out, cluster);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: streams longer than one unit, dictionaries, seeking inside a unit.

mod adc;
mod bunzip;
mod codec;
mod decode;
mod deflate;
mod encode;
mod error;
mod inflate;
mod lz4;
mod lzfse;
mod lzo;
mod output;
mod pool;
mod unxz;
mod zstd;

pub use codec::{Codec, Decode, Decoded};
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
