//! What an encoder packs, its decoder unpacks.
#![no_main]

use anydisk_codec::{Codec, Encode, deflate, zlib, zstd};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, u8, Vec<u8>)| {
    let (kind, level, window, unit) = input;
    let (codec, encoder): (Codec, Box<dyn Encode>) = match kind % 3 {
        0 => match deflate(u32::from(level % 10), 9 + window % 7) {
            Ok(encoder) => (Codec::Deflate, Box::new(encoder)),
            Err(_) => return,
        },
        1 => match zlib(u32::from(level % 10)) {
            Ok(encoder) => (Codec::Zlib, Box::new(encoder)),
            Err(_) => return,
        },
        _ => match zstd(i32::from(level % 10)) {
            Ok(encoder) => (Codec::Zstd, Box::new(encoder)),
            Err(_) => return,
        },
    };
    let mut packed = Vec::new();
    let fits = encoder.encode(&unit, unit.len(), &mut packed).expect("any bytes can be packed");
    if !fits {
        return;
    }
    assert!(packed.len() <= unit.len());
    packed.resize(packed.len().next_multiple_of(512), 0);
    let mut out = vec![0; unit.len()];
    codec.decode(&packed, &mut out).expect("our own stream");
    assert!(out == unit);
});
