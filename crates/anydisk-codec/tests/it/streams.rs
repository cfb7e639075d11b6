//! Streams as writers of qcow2 and VMDK left them, with the verdict of qemu-img about each.
//!
//! A file in `data` is one compressed cluster of an image: all sectors that its L2 entry names, so
//! that padding, garbage or the next stream follow where they did in the image.

use anydisk_codec::{Codec, DecodeError, Encode, deflate, zlib};

const CLUSTER: usize = 65536;

macro_rules! stream {
    ($name:literal) => {
        include_bytes!(concat!("../data/", $name, ".bin")).as_slice()
    };
}

/// The content of most of them.
fn text() -> Vec<u8> {
    let lines = (0..).flat_map(|n| format!("line {n:06} of text\n").into_bytes());
    lines.take(CLUSTER).collect()
}

/// The payload of stored blocks (RFC 1951, 3.2.4) up to the final one.
fn stored(mut stream: &[u8]) -> Vec<u8> {
    let mut unit = Vec::new();
    while let [last, low, high, _, _, rest @ ..] = stream {
        let (block, behind) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        unit.extend_from_slice(block);
        stream = if *last == 1 { &[] } else { behind };
    }
    unit
}

fn decoded(codec: Codec, stream: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0xaa; CLUSTER];
    codec.decode(stream, &mut out).map(|_| out)
}

fn refusal(codec: Codec, stream: &[u8]) -> String {
    decoded(codec, stream).unwrap_err().to_string()
}

#[test]
fn a_deflate_stream_followed_by_padding_or_garbage_is_the_unit() {
    for stream in [
        stream!("zlib-window12"),
        stream!("zlib-unaligned"),
        stream!("zlib-eof-tail"),
        stream!("zlib-garbage-after"),
    ] {
        assert!(decoded(Codec::Deflate, stream).unwrap() == text());
    }
}

#[test]
fn a_deflate_stream_of_two_units_counts_as_the_first() {
    assert_eq!(decoded(Codec::Deflate, stream!("zlib-overlong")).unwrap(), text());
}

#[test]
fn units_of_the_smallest_and_the_largest_cluster_size_are_decoded() {
    let (mut small, mut large) = ([0; 512], vec![0; 2 << 20]);
    Codec::Deflate.decode(stream!("zlib-512"), &mut small).unwrap();
    Codec::Deflate.decode(stream!("zlib-2m"), &mut large).unwrap();
    assert!(small.iter().all(|&byte| byte == b'B'));
    assert!(large.iter().all(|&byte| byte == b'C'));
}

#[test]
fn stored_blocks_may_make_a_stream_longer_than_the_unit() {
    let stream = stream!("zlib-stored");
    assert!(decoded(Codec::Deflate, stream).unwrap() == stored(stream));
}

#[test]
fn distances_above_a_window_of_twelve_bits_are_followed() {
    let unit = decoded(Codec::Deflate, stream!("zlib-window15")).unwrap();
    assert!(unit == stored(stream!("zlib-stored")));
}

#[test]
fn a_deflate_stream_with_too_few_bytes_is_refused_with_their_number() {
    let short = refusal(Codec::Deflate, stream!("zlib-short"));
    assert_eq!(short, "deflate: the stream ends after 65535 bytes, expected 65536");
    let cut = refusal(Codec::Deflate, stream!("zlib-cut"));
    assert_eq!(cut, "deflate: the stream ends after 61809 bytes, expected 65536");
    let none = refusal(Codec::Deflate, &[]);
    assert_eq!(none, "deflate: the stream ends after 0 bytes, expected 65536");
}

#[test]
fn a_full_unit_without_a_final_block_is_refused_if_padding_follows() {
    assert_eq!(
        refusal(Codec::Deflate, stream!("zlib-no-final")),
        "deflate: invalid data after 65536 of 65536 bytes: invalid stored block lengths"
    );
}

#[test]
fn other_wrappings_are_no_deflate_streams() {
    for (stream, reason) in [
        (stream!("zlib-gzip"), "invalid block type"),
        (stream!("zlib-wrapped"), "invalid stored block lengths"),
        (stream!("zstd-in-zlib-image"), "invalid stored block lengths"),
    ] {
        let expected = format!("deflate: invalid data after 0 of 65536 bytes: {reason}");
        assert_eq!(refusal(Codec::Deflate, stream), expected);
    }
}

#[test]
fn the_wrapped_stream_is_a_zlib_stream_and_the_gzip_one_is_not() {
    assert_eq!(decoded(Codec::Zlib, stream!("zlib-wrapped")).unwrap(), text());
    let gzip = refusal(Codec::Zlib, stream!("zlib-gzip"));
    assert_eq!(gzip, "zlib: invalid data after 0 of 65536 bytes: incorrect header check");
}

#[test]
fn frames_in_all_their_forms_are_the_unit() {
    for stream in [
        stream!("zstd-plain"),
        stream!("zstd-checksum"),
        stream!("zstd-empty-last-block"),
        stream!("zstd-garbage-after"),
        stream!("zstd-skippable"),
        stream!("zstd-two-frames"),
    ] {
        assert!(decoded(Codec::Zstd, stream).unwrap() == text());
    }
}

#[test]
fn a_frame_larger_than_the_unit_is_refused() {
    let error = decoded(Codec::Zstd, stream!("zstd-overlong")).unwrap_err();
    assert_eq!(error, DecodeError::Long { codec: "zstd", expected: CLUSTER });
}

#[test]
fn a_frame_one_byte_short_is_refused_with_its_length() {
    let short = refusal(Codec::Zstd, stream!("zstd-short"));
    assert_eq!(short, "zstd: the stream ends after 65535 bytes, expected 65536");
}

#[test]
fn a_frame_that_fills_the_unit_and_is_cut_before_its_end_is_refused() {
    // The empty last block is what the cut takes away; all bytes of the unit are there.
    let stream = stream!("zstd-empty-last-block");
    let end = stream.iter().rposition(|&byte| byte != 0).unwrap();
    let error = decoded(Codec::Zstd, &stream[..end]).unwrap_err();
    assert_eq!(error, DecodeError::Short { codec: "zstd", came: 0, expected: CLUSTER });
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut stream = stream!("zstd-checksum").to_vec();
    let last = stream.iter().rposition(|&byte| byte != 0).unwrap();
    stream[last] ^= 1;
    assert!(refusal(Codec::Zstd, &stream).contains("checksum"));

    let mut stream = Vec::new();
    zlib(6).unwrap().encode(&text(), usize::MAX, &mut stream).unwrap();
    *stream.last_mut().unwrap() ^= 1;
    let error = refusal(Codec::Zlib, &stream);
    assert_eq!(error, "zlib: invalid data after 65536 of 65536 bytes: incorrect data check");
}

#[test]
fn a_frame_that_claims_a_window_of_gigabytes_is_decoded_without_one() {
    // Magic number, no content size, window descriptor of 2^31 bytes; one last run block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0x00, 0x08, b'Z'];
    assert!(decoded(Codec::Zstd, &frame) == Ok(vec![b'Z'; CLUSTER]));
}

#[test]
fn a_zlib_stream_that_goes_on_behind_the_unit_is_refused_without_inflating_it() {
    let mut bomb = Vec::new();
    zlib(9).unwrap().encode(&vec![0; 64 << 20], usize::MAX, &mut bomb).unwrap();
    let error = decoded(Codec::Zlib, &bomb).unwrap_err();
    assert_eq!(error, DecodeError::Long { codec: "zlib", expected: CLUSTER });
}

#[test]
fn a_zlib_stream_cut_inside_its_checksum_is_refused() {
    let mut stream = Vec::new();
    zlib(6).unwrap().encode(&text(), usize::MAX, &mut stream).unwrap();
    for cut in 1..=4 {
        let error = refusal(Codec::Zlib, &stream[..stream.len() - cut]);
        let reason = "the stream is cut before its end";
        assert_eq!(error, format!("zlib: invalid data after 65536 of 65536 bytes: {reason}"));
    }
}

#[test]
fn a_zlib_stream_that_needs_a_dictionary_is_refused() {
    let error = refusal(Codec::Zlib, &[0x78, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0]);
    let reason = "it needs a preset dictionary";
    assert_eq!(error, format!("zlib: invalid data after 0 of 65536 bytes: {reason}"));
}

#[test]
fn a_shorter_last_grain_is_decoded_with_its_length() {
    let mut stream = Vec::new();
    zlib(6).unwrap().encode(&text()[..5120], usize::MAX, &mut stream).unwrap();
    let mut out = vec![0; CLUSTER];
    assert_eq!(Codec::Zlib.decode_prefix(&stream, &mut out).expect("decodes").len, 5120);
    assert_eq!(out[..5120], text()[..5120]);
    let error = DecodeError::Short { codec: "zlib", came: 5120, expected: CLUSTER };
    assert_eq!(Codec::Zlib.decode(&stream, &mut out), Err(error));
}

#[test]
fn an_encoder_refuses_levels_and_windows_that_do_not_exist() {
    let level = deflate(10, 12).unwrap_err().to_string();
    assert_eq!(level, "deflate: level is 10, expected 1 to 9");
    let window = deflate(6, 16).unwrap_err().to_string();
    assert_eq!(window, "deflate: window_bits is 16, expected 9 to 15");
}
