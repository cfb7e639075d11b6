//! Decoding of any bytes by every codec: into a unit of any length, whole or in part.
#![no_main]

use anydisk_codec::{Codec, Decoder};
use libfuzzer_sys::fuzz_target;

const CODECS: [Codec; 9] = [
    Codec::Deflate,
    Codec::Zlib,
    Codec::Zstd,
    Codec::Bzip2,
    Codec::Xz,
    Codec::Lzfse,
    Codec::Adc,
    Codec::Lz4,
    Codec::Lzo,
];

fuzz_target!(|data: &[u8]| {
    let Some(([kind, low, high], stream)) = data.split_first_chunk::<3>() else { return };
    let codec = CODECS[usize::from(*kind) % CODECS.len()];
    let mut out = vec![0; usize::from(u16::from_le_bytes([*low, *high])) + 1];
    let mut again = out.clone();
    let first = Decoder::new().decode_prefix(codec, stream, &mut out);

    // A decoder that has seen a broken stream decodes the next one like a new one.
    let mut used = Decoder::new();
    let _ = used.decode(codec, &stream[stream.len() / 2..], &mut again);
    again.fill(0);
    let second = used.decode_prefix(codec, stream, &mut again);
    assert_eq!(first.is_ok(), second.is_ok());
    if let Ok(decoded) = first {
        assert!(decoded.len <= out.len());
        assert!(out[..decoded.len] == again[..decoded.len]);
        // What can be passed on is the same without what follows it.
        if let Some(packed) = decoded.used {
            again.fill(0);
            let third = used.decode_prefix(codec, &stream[..packed], &mut again);
            assert_eq!(third, Ok(decoded));
            assert!(out[..decoded.len] == again[..decoded.len]);
        }
    }
});
