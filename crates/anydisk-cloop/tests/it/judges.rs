//! qemu-img and create_compressed_fs as judges, and blocks of codecs that no golden image has.

use std::process::{Command, Stdio};

use anydisk_cloop::CLOOP;
use anydisk_core::Access;
use anydisk_testkit::golden::{OpenVerdict, cases};
use anydisk_testkit::oracle::{Qemu, is_installed};
use anydisk_testkit::{ImageFolder, Random, contents};

#[test]
fn qemu_img_reads_the_same() {
    let Some(qemu) = Qemu::find() else { return };
    let mut tried = 0;
    for case in cases("cloop") {
        // qemu knows version 2 only.
        if case.expect.open != OpenVerdict::Ok || !case.name.starts_with("v2") {
            continue;
        }
        tried += 1;
        let folder = ImageFolder::new(&CLOOP);
        std::fs::copy(case.unpack().path, folder.path("disk.cloop")).expect("a file");
        let ours = contents(&folder.open("disk.cloop", Access::Read));
        std::fs::write(folder.path("ours.raw"), ours).expect("a file");
        qemu.assert_same((&folder.path("disk.cloop"), "cloop"), (&folder.path("ours.raw"), "raw"));
    }
    assert_eq!(tried, 3);
}

/// Sectors of noise, of text and of zeroes.
fn disk(len: usize) -> Vec<u8> {
    let mut random = Random::new(5);
    let mut disk = vec![0; len];
    for (number, sector) in disk.chunks_mut(512).enumerate() {
        match random.below(3) {
            0 => sector.fill_with(|| u8::try_from(random.below(256)).expect("a byte")),
            1 => sector.fill(u8::try_from(number % 251).expect("a byte")),
            _ => {}
        }
    }
    disk
}

#[test]
fn what_create_compressed_fs_packs_is_read() {
    if !is_installed("create_compressed_fs") {
        return;
    }
    let folder = ImageFolder::new(&CLOOP);
    let disk = disk(1_000_000);
    std::fs::write(folder.path("disk"), &disk).expect("a file");
    let made = Command::new("create_compressed_fs")
        .args(["-q", "-B", "8192"])
        .args([folder.path("disk"), folder.path("disk.cloop")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("it starts").success());
    let read = contents(&folder.open("disk.cloop", Access::Read));
    assert!(read[..disk.len()] == disk[..], "the disk");
    assert_eq!(read.len(), disk.len().next_multiple_of(8192), "whole blocks");
    assert!(read[disk.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn blocks_of_lz4_are_read_and_what_is_no_block_of_it_is_not() {
    let disk = disk(16 << 10);
    let blocks: Vec<Vec<u8>> = disk.chunks(4096).map(lz4_flex::block::compress).collect();
    let mut file = b"#!/bin/sh\n#V4.0 Format\n".to_vec();
    file.resize(128, 0);
    file.extend([0, 0, 16, 0, 0, 0, 0, 4]);
    let mut at = 136 + 5 * 8;
    for block in blocks.iter().map(Vec::len).chain([0]) {
        file.extend((3 << 60 | at as u64).to_be_bytes());
        at += block;
    }
    file.extend(blocks.concat());
    let folder = ImageFolder::new(&CLOOP);
    std::fs::write(folder.path("disk"), &file).expect("a file");
    assert!(contents(&folder.open("disk", Access::Read)) == disk);
    // A block of five bytes less.
    file[136 + 7] += 5;
    std::fs::write(folder.path("disk"), &file).expect("a file");
    let mut block = [0; 4096];
    let damaged = folder.open("disk", Access::Read);
    let error = damaged.read(anydisk_core::GuestOffset(0), &mut block).unwrap_err().to_string();
    assert!(error.contains("lz4: "), "{error}");
}
