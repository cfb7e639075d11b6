//! What an encoder packs, its codec unpacks.

use anydisk_codec::{Codec, Decoded, Decoder, Encode, deflate, zlib, zstd};
use proptest::prelude::*;

fn encoders() -> Vec<Box<dyn Encode>> {
    let mut all: Vec<Box<dyn Encode>> = Vec::new();
    for level in 1..=9 {
        all.push(Box::new(deflate(level, 12).unwrap()));
        all.push(Box::new(zlib(level).unwrap()));
    }
    for level in [-5, 1, 3, 12] {
        all.push(Box::new(zstd(level).unwrap()));
    }
    all
}

/// Units as disks have them: runs, repeats at some distance, and noise.
fn units() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 1..600);
    let run = (any::<u8>(), 1_usize..3000).prop_map(|(byte, len)| vec![byte; len]);
    let text = "[a-d ]{1,300}".prop_map(String::into_bytes);
    prop::collection::vec((prop_oneof![noise, run, text], 1_usize..4), 0..12).prop_map(|pieces| {
        pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_packed_unit_unpacks_to_itself_whatever_follows_it(unit in units(), tail in any::<[u8; 7]>()) {
        let mut decoder = Decoder::new();
        for encoder in encoders() {
            let mut packed = b"kept".to_vec();
            prop_assert!(encoder.encode(&unit, usize::MAX, &mut packed).unwrap());
            prop_assert_eq!(&packed[..4], b"kept");
            packed.extend(tail);
            let mut out = vec![0xaa; unit.len()];
            decoder.decode(encoder.codec(), &packed[4..], &mut out).unwrap();
            prop_assert_eq!(&out, &unit);
        }
    }

    #[test]
    fn what_does_not_get_below_the_limit_leaves_the_output_as_it_was(unit in units(), slack in 0_usize..3) {
        for encoder in encoders() {
            let mut packed = Vec::new();
            encoder.encode(&unit, usize::MAX, &mut packed).unwrap();
            let len = packed.len();
            prop_assert!(encoder.encode(&unit, len + 1 + slack, &mut packed).unwrap());
            prop_assert!(packed[len..] == packed[..len], "the bytes depend on the limit");
            packed.truncate(3);
            prop_assert!(!encoder.encode(&unit, len - slack.min(len), &mut packed).unwrap());
            prop_assert_eq!(packed.len(), 3);
        }
    }

    #[test]
    fn random_bytes_never_panic_and_never_fill_more_than_the_unit(
        stream in prop::collection::vec(any::<u8>(), 0..400), len in 0_usize..2000,
    ) {
        let mut out = vec![0; len];
        let apples = [Codec::Bzip2, Codec::Xz, Codec::Lzfse, Codec::Adc, Codec::Lz4, Codec::Lzo];
        for codec in [Codec::Deflate, Codec::Zlib, Codec::Zstd].into_iter().chain(apples) {
            if let Ok(decoded) = codec.decode_prefix(&stream, &mut out) {
                prop_assert!(decoded.len <= len);
                prop_assert!(decoded.used.is_none_or(|used| used <= stream.len()));
            }
        }
    }
}

/// Otherwise packed units could not be passed on, or not the whole of one.
#[test]
fn a_packed_unit_ends_where_its_encoder_ended_it() {
    let unit: Vec<u8> = (0..65_536_u32).flat_map(|n| (n / 300).to_le_bytes()).collect();
    for encoder in encoders() {
        let mut packed = Vec::new();
        assert!(encoder.encode(&unit, unit.len(), &mut packed).unwrap());
        let len = packed.len();
        packed.extend_from_slice(b"the next unit");
        let decoded = encoder.codec().decode(&packed, &mut vec![0; unit.len()]).unwrap();
        assert_eq!(decoded, Decoded::new(unit.len(), Some(len)), "{}", encoder.codec().name());
    }
}
