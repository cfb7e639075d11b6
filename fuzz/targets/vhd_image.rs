//! A whole VHD, opened and read, and opened for writing and written.
#![no_main]

use std::sync::Arc;

use anydisk_core::{Access, Disk, Format, GuestOffset, Limits, Location, OpenRequest};
use anydisk_storage::MemoryStorage;
use anydisk_vhd::VHD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    anydisk_fuzz::explore(&VHD, data.to_vec());
    write(data.to_vec());
});

/// What is written is read back, whatever the table says.
fn write(bytes: Vec<u8>) {
    let (location, limits) = (Location::Other("input".into()), Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes));
    let mut request = OpenRequest::new(store, &location, &limits);
    request.access = Access::ReadWrite;
    let Ok(opened) = VHD.open(request) else { return };
    let disk = Disk::new(opened.image);
    for at in [0, 1 << 20, disk.size().saturating_sub(3)] {
        let at = GuestOffset(at.min(disk.size().saturating_sub(3)));
        if disk.size() < 3 || disk.write(at, b"abc").is_err() {
            return;
        }
        let mut back = [0; 3];
        disk.read(at, &mut back).expect("it was written");
        assert_eq!(&back, b"abc");
    }
    let _ = disk.flush();
}
