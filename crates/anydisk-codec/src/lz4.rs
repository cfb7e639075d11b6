//! Decoding of blocks of LZ4, without a frame.

use lz4_flex::block::{DecompressError, decompress_into};

use crate::{DecodeError, Decoded};

const NAME: &str = "lz4";

/// Decodes a block. Nothing marks its end: the stream must end with it.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let expected = out.len();
    match decompress_into(stream, out) {
        Ok(came) => Ok(Decoded::new(came, Some(stream.len()))),
        Err(DecompressError::OutputTooSmall { .. }) => {
            Err(DecodeError::Long { codec: NAME, expected })
        }
        Err(error) => {
            let reason = error.to_string().into();
            Err(DecodeError::Invalid { codec: NAME, came: 0, expected, reason })
        }
    }
}
