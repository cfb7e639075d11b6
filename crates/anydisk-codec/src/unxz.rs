//! Decoding of .xz streams.

use std::io::{self, Read};

use lzma_rust2::XzReader;

use crate::{DecodeError, Decoded};

const NAME: &str = "xz";

/// A dictionary of 64 MiB, the largest that any preset of xz has, and the decoder's own state. Only
/// what a unit fills of it is ever touched.
const MEMORY_KIB: u32 = (64 << 10) + 512;

/// Decodes the unit at the start of `stream`, one .xz stream of any number of blocks.
pub(crate) fn run(stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
    let expected = out.len();
    let mut reader = XzReader::new_mem_limit(stream, false, MEMORY_KIB);
    let mut came = 0;
    loop {
        // Behind a full unit the stream must end; only then is its checksum looked at.
        let mut more = [0];
        let space = if came < expected { &mut out[came..] } else { &mut more[..] };
        match reader.read(space) {
            Ok(0) => {
                let used = stream.len().saturating_sub(reader.into_inner().len());
                return Ok(Decoded::new(came, Some(used)));
            }
            Ok(_) if came == expected => {
                return Err(DecodeError::Long { codec: NAME, expected });
            }
            Ok(count) => came += count,
            Err(error) => return Err(refusal(&error, came, expected)),
        }
    }
}

fn refusal(error: &io::Error, came: usize, expected: usize) -> DecodeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Short { codec: NAME, came, expected },
        _ => {
            let reason = error.to_string().into();
            DecodeError::Invalid { codec: NAME, came, expected, reason }
        }
    }
}
