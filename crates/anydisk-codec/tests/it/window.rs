//! What the deflate encoder promises to readers that keep a small window.

use anydisk_codec::{Encode, deflate};
use proptest::prelude::*;

fn packed(unit: &[u8], level: u32, window_bits: u8) -> Vec<u8> {
    let mut stream = Vec::new();
    deflate(level, window_bits).unwrap().encode(unit, usize::MAX, &mut stream).unwrap();
    stream
}

fn noise(len: usize) -> Vec<u8> {
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes that repeat what stood 1 to 40000 bytes before, so that every distance is tempting.
fn units() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec((1_usize..40_000, 4_usize..400, any::<[u8; 5]>()), 1..300);
    pieces.prop_map(|pieces| {
        let mut unit = Vec::new();
        for (distance, len, noise) in pieces {
            unit.extend(noise);
            let from = unit.len().saturating_sub(distance);
            unit.extend_from_within(from..unit.len().min(from + len));
        }
        unit
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_distance_is_longer_than_the_window_and_a_plain_reader_gets_the_unit(
        unit in units(), level in 1_u32..=9, window_bits in 9_u8..=15,
    ) {
        let encoder = deflate(level, window_bits).unwrap();
        // Twice: the encoder keeps the places of the first unit while it packs the second.
        for unit in [&unit[..], &unit[unit.len() / 3..]] {
            let mut stream = Vec::new();
            encoder.encode(unit, usize::MAX, &mut stream).unwrap();
            prop_assert!(stream == packed(unit, level, window_bits));
            let inflated = crate::slow::inflate(&stream);
            prop_assert!(inflated.unit == unit);
            prop_assert!(inflated.farthest <= 1 << window_bits, "{}", inflated.farthest);
        }
    }
}

#[test]
fn the_plain_reader_does_notice_a_distance_beyond_the_window() {
    assert_eq!(crate::slow::inflate(include_bytes!("../data/zlib-window15.bin")).farthest, 20_000);
}

#[test]
fn repeats_within_the_window_are_found_and_those_beyond_it_are_not() {
    let len = |between: usize| {
        let unit = [&noise(1000)[..], &vec![0; between], &noise(1000)].concat();
        packed(&unit, 6, 12).len()
    };
    assert!(len(3000) < 1200, "{}", len(3000));
    assert!(len(3200) > 2000, "{}", len(3200));
}

#[test]
fn bytes_that_do_not_shrink_are_stored_at_five_bytes_a_block() {
    let unit = noise(200_000);
    for level in 1..=9 {
        let stream = packed(&unit, level, 12);
        assert!(stream.len() <= unit.len() + 25, "{}", stream.len());
        assert!(crate::slow::inflate(&stream).unit == unit);
    }
}
