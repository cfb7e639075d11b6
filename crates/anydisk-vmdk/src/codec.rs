//! How grains are packed; the last one of an extent, in two forms.

use anydisk_codec::Decode;
use anydisk_core::{Codec, DecodeError, Decoded};

/// A zlib stream of the sectors that are left, or of a whole grain filled up with zeroes.
///
/// The unit to decode is the short form. qemu writes that one, VirtualBox the other.
const SHORT_OR_WHOLE: Codec = Codec::Custom(&ShortOrWhole);

/// Bytes of a zlib stream before the deflate data (RFC 1950).
const ZLIB_HEAD: usize = 2;

/// How a grain is packed of which the extent has `stored` bytes, where whole ones have `grain`.
pub(crate) fn of_grain(stored: u64, grain: u64) -> Codec {
    if stored == grain { Codec::Zlib } else { SHORT_OR_WHOLE }
}

#[derive(Debug)]
struct ShortOrWhole;

impl Decode for ShortOrWhole {
    fn name(&self) -> &'static str {
        "zlib, the last grain"
    }

    fn decode_prefix(&self, stream: &[u8], out: &mut [u8]) -> Result<Decoded, DecodeError> {
        match Codec::Zlib.decode_prefix(stream, out) {
            // Longer than the unit: its first bytes are the unit. The checksum goes unchecked.
            Err(DecodeError::Long { .. }) => {
                Codec::Deflate.decode_prefix(stream.get(ZLIB_HEAD..).unwrap_or_default(), out)
            }
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::Encode;

    #[test]
    fn both_forms_of_the_last_grain_give_its_sectors() {
        let whole: Vec<u8> = (0..1024_u32).flat_map(|n| n.to_le_bytes()).collect();
        let encoder = anydisk_codec::zlib(6).expect("a level");
        for len in [1536, 4096] {
            let mut stream = Vec::new();
            assert!(encoder.encode(&whole[..len], usize::MAX, &mut stream).expect("packs"));
            let mut out = vec![0; 1536];
            SHORT_OR_WHOLE.decode(&stream, &mut out).expect("decodes");
            assert_eq!(out, whole[..1536]);
        }
    }

    #[test]
    fn a_last_grain_that_is_too_short_is_refused() {
        let mut stream = Vec::new();
        let encoder = anydisk_codec::zlib(6).expect("a level");
        assert!(encoder.encode(&[7; 100], usize::MAX, &mut stream).expect("packs"));
        assert!(SHORT_OR_WHOLE.decode(&stream, &mut [0; 512]).is_err());
    }
}
