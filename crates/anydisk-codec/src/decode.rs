//! Decoding with the state kept from unit to unit.

use std::fmt;

use crate::inflate::Inflater;
use crate::pool::Pool;
use crate::zstd::Unzstd;
use crate::{Codec, DecodeError, Decoded, adc, bunzip, lz4, lzfse, lzo, unxz};

/// Decodes unit after unit with any [`Codec`], keeping the state of each it has met.
///
/// For one thread; threads that share use [`Decoders`]. Keeps about 50 KiB for deflate and zlib
/// each and 100 KiB for zstd, whatever the streams say; nothing for the others.
#[derive(Default)]
pub struct Decoder {
    deflate: Option<Inflater>,
    zlib: Option<Inflater>,
    zstd: Option<Unzstd>,
}

impl Decoder {
    /// A decoder without any state yet: costs nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { deflate: None, zlib: None, zstd: None }
    }

    /// Decodes one unit: fills `out` exactly, see [`Codec::decode`].
    ///
    /// # Errors
    ///
    /// As [`Codec::decode`].
    pub fn decode(
        &mut self,
        codec: Codec,
        stream: &[u8],
        out: &mut [u8],
    ) -> Result<Decoded, DecodeError> {
        let decoded = self.decode_prefix(codec, stream, out)?;
        if decoded.len == out.len() {
            Ok(decoded)
        } else {
            Err(DecodeError::Short { codec: codec.name(), came: decoded.len, expected: out.len() })
        }
    }

    /// Decodes one unit that may be shorter than `out`, see [`Codec::decode_prefix`].
    ///
    /// # Errors
    ///
    /// As [`Codec::decode_prefix`].
    pub fn decode_prefix(
        &mut self,
        codec: Codec,
        stream: &[u8],
        out: &mut [u8],
    ) -> Result<Decoded, DecodeError> {
        match codec {
            Codec::Deflate => self.deflate.get_or_insert_with(Inflater::deflate).run(stream, out),
            Codec::Zlib => self.zlib.get_or_insert_with(Inflater::zlib).run(stream, out),
            Codec::Zstd => self.zstd.get_or_insert_with(Unzstd::new).run(stream, out),
            Codec::Bzip2 => bunzip::run(stream, out),
            Codec::Xz => unxz::run(stream, out),
            Codec::Lzfse => lzfse::run(stream, out),
            Codec::Adc => adc::run(stream, out),
            Codec::Lz4 => lz4::run(stream, out),
            Codec::Lzo => lzo::run(stream, out),
            Codec::Custom(codec) => codec.decode_prefix(stream, out),
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// [`Decoder`]s that threads share: holds as many as were ever in use at once.
#[derive(Debug)]
pub struct Decoders(Pool<Decoder>);

impl Decoders {
    /// No decoder yet: costs nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Pool::new())
    }

    /// Decodes one unit: fills `out` exactly, see [`Codec::decode`].
    ///
    /// # Errors
    ///
    /// As [`Codec::decode`].
    pub fn decode(
        &self,
        codec: Codec,
        stream: &[u8],
        out: &mut [u8],
    ) -> Result<Decoded, DecodeError> {
        self.0.with(Decoder::new, |decoder| decoder.decode(codec, stream, out))
    }

    /// Decodes one unit that may be shorter than `out`, see [`Codec::decode_prefix`].
    ///
    /// # Errors
    ///
    /// As [`Codec::decode_prefix`].
    pub fn decode_prefix(
        &self,
        codec: Codec,
        stream: &[u8],
        out: &mut [u8],
    ) -> Result<Decoded, DecodeError> {
        self.0.with(Decoder::new, |decoder| decoder.decode_prefix(codec, stream, out))
    }
}

impl Default for Decoders {
    fn default() -> Self {
        Self::new()
    }
}
