//! The codec of a fill chunk: four bytes, over and over.

use anydisk_codec::Decode;
use anydisk_core::{Codec, DecodeError, Decoded};

/// Four bytes that fill a unit.
pub(crate) const FILL: Codec = Codec::Custom(&Fill);

/// Bytes of the pattern.
pub(crate) const LEN: usize = 4;

const NAME: &str = "fill";

#[derive(Debug)]
struct Fill;

impl Decode for Fill {
    fn name(&self) -> &'static str {
        NAME
    }

    fn decode_prefix(&self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        let expected = out.len();
        let Some(pattern) = stream.first_chunk::<LEN>() else {
            return Err(DecodeError::Short { codec: NAME, came: 0, expected });
        };
        for piece in out.chunks_mut(LEN) {
            piece.copy_from_slice(&pattern[..piece.len()]);
        }
        Ok(Decoded::new(expected, Some(LEN)))
    }
}
