//! What a client of a server sends, in one go: no panic, and an answer or an error.
#![no_main]

use std::io;
use std::sync::Arc;

use anydisk_core::{Disk, GuestOffset};
use anydisk_nbd::{Export, Server};
use anydisk_raw::RawImage;
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, sent)) = data.split_first() else { return };
    let store = Arc::new(MemoryStorage::new(vec![7; 64 << 10]));
    let disk = Arc::new(Disk::new(Arc::new(RawImage::open(store, true).expect("it opens"))));
    let export = Export::new(Arc::clone(&disk), "disk").with_depth();
    let exports = vec![Export::new(Arc::clone(&disk), "other").read_only(), export];
    let server = Server::new(exports).with_threads(1);
    // Past the handshake, which is rarely found by chance.
    let start: &[u8] = match choice % 4 {
        0 => b"",
        1 => b"\0\0\0\x03",
        2 => b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk",
        _ => b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x04disk\0\0",
    };
    let client = [start, sent].concat();
    if let Ok(()) = server.serve(&client[..], io::sink()) {
        disk.read(GuestOffset::ZERO, &mut [0; 512]).expect("the disk is as it was");
    }
});
