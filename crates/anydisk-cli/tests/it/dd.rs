//! `anydisk dd`.

use crate::common::Bench;

/// A disk whose blocks of 4 KiB are told apart by their first byte.
fn numbered() -> (Bench, Vec<u8>) {
    let bench = Bench::new();
    let bytes: Vec<u8> = (0..64_u8).flat_map(|number| [number; 4096]).collect();
    std::fs::write(bench.path("disk"), &bytes).unwrap();
    (bench, bytes)
}

/// qemu-img counts the skipped blocks too, and copies too little.
#[test]
fn as_many_blocks_as_are_counted_are_copied_from_behind_those_skipped() {
    let (bench, bytes) = numbered();
    bench.prints(&["dd", "-f", "raw", "if=disk", "of=part", "bs=4k", "skip=3", "count=5"]);
    assert!(std::fs::read(bench.path("part")).unwrap() == bytes[3 * 4096..8 * 4096]);
}

#[test]
fn zeroes_are_not_written() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, &[0; 1 << 20])]);
    bench.prints(&["dd", "-f", "raw", "if=disk", "of=copy"]);
    let meta = std::fs::metadata(bench.path("copy")).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (1 << 20, 0));
}

/// qemu-img empties the file before it reads it.
#[test]
fn a_disk_is_not_copied_onto_itself() {
    let (bench, bytes) = numbered();
    let error = bench.fails(&["dd", "-f", "raw", "if=disk", "of=disk", "bs=4k", "count=8"], 1);
    assert!(error.contains("Failed to get \"write\" lock"), "{error}");
    assert!(std::fs::read(bench.path("disk")).unwrap() == bytes);
}

#[test]
fn the_copy_may_be_named_with_the_file_protocol_and_is_told_about() {
    let (bench, bytes) = numbered();
    let line = ["dd", "-f", "raw", "--output=json", "if=disk", "of=file:a", "bs=4k", "count=1"];
    let text = bench.prints(&line);
    assert!(
        text.contains("\"filename\": \"a\"") && text.contains("\"virtual-size\": 4096"),
        "{text}"
    );
    assert!(std::fs::read(bench.path("a")).unwrap() == bytes[..4096]);
}

#[test]
fn counts_may_have_suffixes() {
    let (bench, bytes) = numbered();
    bench.prints(&[
        "dd", "-f", "raw", "-O", "qcow2", "if=disk", "of=a", "bs=4", "count=1k", "skip=1k",
    ]);
    bench.prints(&["convert", "a", "a.raw"]);
    assert!(std::fs::read(bench.path("a.raw")).unwrap() == bytes[4096..8192]);
}
