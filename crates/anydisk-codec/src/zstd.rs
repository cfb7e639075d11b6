//! Decoding and encoding of Zstandard frames.

use std::ops::RangeInclusive;

use ::zstd::compression_level_range;
use ::zstd::zstd_safe::{self, CCtx, DCtx, ErrorCode};

use crate::encode::pack;
use crate::pool::Pool;
use crate::{Codec, DecodeError, Decoded, Encode, EncodeError};

const NAME: &str = "zstd";

// Error codes of the library that we tell apart; it returns them negated.
const DESTINATION_TOO_SMALL: ErrorCode = 70_usize.wrapping_neg();
const SOURCE_SIZE_WRONG: ErrorCode = 72_usize.wrapping_neg();

/// The state of a Zstandard decoder.
pub(crate) struct Unzstd(DCtx<'static>);

impl Unzstd {
    pub(crate) fn new() -> Self {
        Self(DCtx::create())
    }

    /// Decodes frames from the start of `stream` until `out` is full or no frame is left.
    ///
    /// Each frame is decoded in one go with its history in `out` itself: no memory is taken for
    /// the window, so that it does not matter what size a frame header claims for it.
    pub(crate) fn run(&mut self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        let expected = out.len();
        let (mut rest, mut came) = (stream, 0);
        while came < expected && (came == 0 || starts_frame(rest)) {
            let fail = |code| decode_error(code, came, expected);
            let len = zstd_safe::find_frame_compressed_size(rest).map_err(fail)?;
            let (frame, behind) = rest.split_at_checked(len).ok_or(fail(SOURCE_SIZE_WRONG))?;
            came += self.0.decompress(&mut out[came..], frame).map_err(fail)?;
            rest = behind;
        }
        Ok(Decoded::new(came, Some(stream.len() - rest.len())))
    }
}

/// Whether a data frame or a skippable frame begins here (RFC 8878, 3.1), by its magic number.
fn starts_frame(stream: &[u8]) -> bool {
    matches!(stream, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn decode_error(code: ErrorCode, came: usize, expected: usize) -> DecodeError {
    match code {
        DESTINATION_TOO_SMALL => DecodeError::Long { codec: NAME, expected },
        SOURCE_SIZE_WRONG => DecodeError::Short { codec: NAME, came, expected },
        _ => {
            let reason = zstd_safe::get_error_name(code).into();
            DecodeError::Invalid { codec: NAME, came, expected, reason }
        }
    }
}

/// Packs units as one [`Codec::Zstd`] frame each, with its content size and no checksum.
#[derive(Debug)]
pub struct ZstdEncoder {
    level: i32,
    states: Pool<CCtx<'static>>,
}

impl ZstdEncoder {
    /// The level that writers of images use when they are not told one.
    pub const DEFAULT_LEVEL: i32 = ::zstd::DEFAULT_COMPRESSION_LEVEL;

    /// An encoder of `level`: 1 is fast, 22 small, below 0 ever faster and larger.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Parameter`] if the library has no such level.
    pub fn new(level: i32) -> Result<Self, EncodeError> {
        let levels: RangeInclusive<i32> = compression_level_range();
        if !levels.contains(&level) {
            let (found, expected) = (i64::from(level), "-131072 to 22");
            return Err(EncodeError::Parameter {
                codec: NAME,
                parameter: "level",
                found,
                expected,
            });
        }
        Ok(Self { level, states: Pool::new() })
    }
}

impl Encode for ZstdEncoder {
    fn codec(&self) -> Codec {
        Codec::Zstd
    }

    fn encode(&self, unit: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        pack(zstd_safe::compress_bound(unit.len()), limit, out, |space| {
            let packed =
                self.states.with(CCtx::create, |state| state.compress(space, unit, self.level));
            packed.map_err(|code| {
                let reason = zstd_safe::get_error_name(code).into();
                EncodeError::Failed { codec: NAME, len: unit.len(), reason }
            })
        })
    }
}
