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

/// An image of version 4 of these blocks, all packed in one way.
fn image(packed: u64, blocks: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(blocks.len()).expect("a few");
    let mut file = b"#!/bin/sh\n#V4.0 Format\n".to_vec();
    file.resize(128, 0);
    file.extend([0, 0, 16, 0, 0, 0, 0, count]);
    let mut at = 136 + (blocks.len() + 1) * 8;
    for len in blocks.iter().map(Vec::len).chain([0]) {
        file.extend((packed << 60 | at as u64).to_be_bytes());
        at += len;
    }
    file.extend(blocks.concat());
    file
}

/// A block as a stream of LZO1X: all of it literals, in one piece.
fn lzo(block: &[u8]) -> Vec<u8> {
    let mut rest = block.len() - 18;
    let mut stream = vec![0];
    while rest > 255 {
        stream.push(0);
        rest -= 255;
    }
    stream.push(u8::try_from(rest).expect("a byte"));
    stream.extend(block);
    stream.extend([0x11, 0, 0]);
    stream
}

/// Packs a block.
type Pack = fn(&[u8]) -> Vec<u8>;

#[test]
fn blocks_of_lz4_and_lzo_are_read_and_what_is_no_block_of_them_is_not() {
    let disk = disk(16 << 10);
    let packers: [(u64, &str, Pack); 2] =
        [(3, "lz4: ", lz4_flex::block::compress), (4, "lzo1x: ", lzo)];
    for (packed, name, pack) in packers {
        let blocks: Vec<Vec<u8>> = disk.chunks(4096).map(pack).collect();
        let mut file = image(packed, &blocks);
        let folder = ImageFolder::new(&CLOOP);
        std::fs::write(folder.path("disk"), &file).expect("a file");
        assert!(contents(&folder.open("disk", Access::Read)) == disk, "{name}");
        // A block that begins five bytes later.
        file[136 + 7] += 5;
        std::fs::write(folder.path("disk"), &file).expect("a file");
        let mut block = [0; 4096];
        let damaged = folder.open("disk", Access::Read);
        let error = damaged.read(anydisk_core::GuestOffset(0), &mut block).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
