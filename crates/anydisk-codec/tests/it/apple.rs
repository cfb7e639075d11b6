//! The codecs of Apple's images and of cloop, judged by encoders from elsewhere.

use std::io::Write;

use anydisk_codec::{Codec, DecodeError, Decoded, Decoder};
use bzip2::{Action, Compress, Compression};
use lzma_rust2::{XzOptions, XzWriter};
use proptest::prelude::*;

const PACKED: [Codec; 3] = [Codec::Bzip2, Codec::Xz, Codec::Lzfse];

fn packed(codec: Codec, unit: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Bzip2 => bzip2(unit),
        Codec::Xz => xz(unit),
        _ => lzfse(unit),
    }
}

fn bzip2(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len() * 2 + 1000);
    let mut state = Compress::new(Compression::best(), 0);
    state.compress_vec(unit, &mut out, Action::Finish).expect("it has space");
    out
}

fn xz(unit: &[u8]) -> Vec<u8> {
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).expect("a preset");
    writer.write_all(unit).expect("memory");
    writer.finish().expect("memory")
}

fn lzfse(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    lzfse_rust::encode_bytes(unit, &mut out).expect("memory");
    out
}

fn decoded(codec: Codec, stream: &[u8], len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0xAA; len];
    codec.decode(stream, &mut out).map(|_| out)
}

/// Text, runs and noise: long and short literals and copies, near and far.
fn units() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 1..3000);
    let run = (any::<u8>(), 1_usize..9000).prop_map(|(byte, len)| vec![byte; len]);
    let text = "[a-h ]{1,600}".prop_map(String::into_bytes);
    prop::collection::vec((prop_oneof![noise, run, text], 1_usize..5), 0..14).prop_map(|pieces| {
        let mut unit: Vec<u8> =
            pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect();
        // The beginning once more at the end: as far back as it gets.
        unit.extend_from_within(..unit.len().min(700));
        unit
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_others_pack_is_unpacked_and_its_end_is_known(unit in units(), tail in any::<[u8; 9]>()) {
        let mut decoder = Decoder::new();
        for codec in PACKED {
            let mut stream = packed(codec, &unit);
            let len = stream.len();
            stream.extend(tail);
            let mut out = vec![0xAA; unit.len()];
            let found = decoder.decode(codec, &stream, &mut out).expect("a good stream");
            prop_assert_eq!(found, Decoded::new(unit.len(), Some(len)), "{}", codec.name());
            prop_assert!(out == unit, "{}", codec.name());
        }
    }

    #[test]
    fn a_stream_that_is_cut_or_of_another_length_is_refused(unit in units(), cut in any::<prop::sample::Index>()) {
        for codec in PACKED {
            let stream = packed(codec, &unit);
            let cut = cut.index(stream.len());
            let error = decoded(codec, &stream[..cut], unit.len());
            prop_assert!(error.is_err(), "{} cut at {cut} of {}", codec.name(), stream.len());
            let short = decoded(codec, &stream, unit.len() + 1);
            prop_assert!(matches!(short, Err(DecodeError::Short { .. })), "{short:?}");
            if !unit.is_empty() {
                let long = decoded(codec, &stream, unit.len() - 1);
                prop_assert!(matches!(long, Err(DecodeError::Long { .. })), "{long:?}");
            }
        }
    }

    #[test]
    fn damage_to_a_stream_never_panics(unit in units(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        for codec in PACKED.into_iter().chain([Codec::Adc, Codec::Lz4, Codec::Lzo]) {
            let mut stream = packed(codec, &unit);
            for (index, byte) in &damage {
                let at = index.index(stream.len());
                stream[at] = *byte;
            }
            let _ = decoded(codec, &stream, unit.len());
        }
    }
}

#[test]
fn lzfse_unpacks_blocks_of_all_kinds() {
    let noise: Vec<u8> = (0..9000_u32).map(|n| (n.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
    let text: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    for (unit, kind) in [(&noise[..7], "bvx-"), (&text[..600], "bvxn"), (&text[..], "bvx2")] {
        let stream = lzfse(unit);
        assert_eq!(&stream[..4], kind.as_bytes());
        assert!(decoded(Codec::Lzfse, &stream, unit.len()).expect(kind) == unit, "{kind}");
    }
}

#[test]
fn adc_unpacks_literals_and_copies_that_reach_into_themselves() {
    // Three literals, three bytes from one back, five from six back, four from far.
    let stream = [0x82, b'a', b'b', b'c', 0x00, 0x00, 0x08, 0x05, 0x40, 0x00, 0x0A];
    assert_eq!(decoded(Codec::Adc, &stream, 15).expect("it is good"), b"abccccabcccabcc");
    let refusals = [
        (&stream[..], 16, "adc: the stream ends after 15 bytes, expected 16"),
        (&stream[..], 14, "adc: the stream holds more than the 14 bytes expected"),
        (&stream[..3], 15, "adc: the stream ends after 0 bytes, expected 15"),
        (&stream[..5], 15, "adc: the stream ends after 3 bytes, expected 15"),
        (&[0x80, 1, 0, 1], 4, "adc: invalid data after 1 of 4 bytes: a copy from before the start"),
    ];
    for (stream, len, expected) in refusals {
        assert_eq!(decoded(Codec::Adc, stream, len).unwrap_err().to_string(), expected);
    }
}

/// What lzop packed: text, noise, zeroes, repeats near and far.
fn lzo_unit() -> Vec<u8> {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..3000)
        .map(|_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            state.to_le_bytes()[2]
        })
        .collect();
    let text: Vec<u8> =
        (0..4000).flat_map(|n| format!("line {n:06} of text\n").into_bytes()).collect();
    let parts =
        [&text[..20_000], &noise, &[0; 20_000], &text[..3000], &noise[..700], &[7; 300], &text];
    parts.concat()[..65_536].to_vec()
}

#[test]
fn lzo_unpacks_what_lzop_packed_and_refuses_what_is_cut_or_of_another_length() {
    let unit = lzo_unit();
    for stream in [
        include_bytes!("../data/lzo-level-1.bin").as_slice(),
        include_bytes!("../data/lzo-level-9.bin"),
    ] {
        let padded = [stream, b"padding"].concat();
        let mut out = vec![0xAA; unit.len()];
        let found = Codec::Lzo.decode(&padded, &mut out).expect("a good stream");
        assert_eq!(found, Decoded::new(unit.len(), Some(stream.len())));
        assert!(out == unit);
        for cut in [0, 1, 100, stream.len() / 2, stream.len() - 1] {
            assert!(decoded(Codec::Lzo, &stream[..cut], unit.len()).is_err(), "cut at {cut}");
        }
        let long = decoded(Codec::Lzo, stream, unit.len() - 1);
        assert!(matches!(long, Err(DecodeError::Long { .. })), "{long:?}");
        for at in 0..200 {
            let mut damaged = stream.to_vec();
            damaged[at * stream.len() / 200] ^= 0x55;
            let _ = decoded(Codec::Lzo, &damaged, unit.len());
        }
    }
}

#[test]
fn lzo_unpacks_the_streams_of_its_description() {
    // Four literals and the end; a copy of two bytes, with a literal behind it, between.
    assert_eq!(decoded(Codec::Lzo, b"\x15abcd\x11\0\0", 4).expect("it is good"), b"abcd");
    let few = b"\x13ab\x01\x00c\x11\0\0";
    assert_eq!(decoded(Codec::Lzo, few, 5).expect("it is good"), b"abbbc");
}

#[test]
fn streams_of_other_codecs_are_refused() {
    for codec in PACKED {
        for other in PACKED.iter().filter(|other| other.name() != codec.name()) {
            let stream = packed(*other, &[7; 5000]);
            assert!(decoded(codec, &stream, 5000).is_err(), "{} as {}", other.name(), codec.name());
        }
    }
}
