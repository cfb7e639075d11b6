//! A stranger's image, opened for writing and made longer, shorter and longer: the format is chosen by
//! the first byte, the sizes by six more.
#![no_main]

use std::sync::Arc;

use anydisk_core::{
    Access, CheckRequest, Disk, Error, Format, GuestOffset, Limits, Location, OpenRequest,
    Preallocation, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use anydisk_vdi::VDI;
use anydisk_vhd::VHD;
use anydisk_vhdx::VHDX;
use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

const FORMATS: [&dyn Format; 5] = [&QCOW2, &VMDK, &VDI, &VHD, &VHDX];

/// Bytes that are compared at the start and at the end of the disk.
const PIECE: u64 = 16 << 10;

/// A size stands for up to 256 MiB.
const UNIT: u64 = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((head, bytes)) = data.split_first_chunk::<7>() else { return };
    let [format, sizes @ ..] = head;
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(bytes.to_vec()));
    // Where the tables contradict each other, what is new may lie on what there is.
    let is_in_order = is_in_order(format, &store);
    let Some(disk) = open(format, store) else { return };
    for size in sizes.as_chunks().0 {
        let size = u64::from(u16::from_le_bytes(*size)) * UNIT;
        match is_in_order {
            true => resize(&disk, size),
            false => drop(disk.resize(size, Preallocation::Off)),
        }
    }
    let _ = disk.flush();
});

fn is_in_order(format: &dyn Format, store: &Arc<dyn Storage>) -> bool {
    let (location, limits) = (location(), Limits::strict());
    let request = CheckRequest::new(OpenRequest::new(Arc::clone(store), &location, &limits));
    format.check(&request, &mut |_| {}).is_ok_and(|report| report.is_clean())
}

fn open(format: &dyn Format, store: Arc<dyn Storage>) -> Option<Disk> {
    let (location, limits) = (location(), Limits::strict());
    let request = OpenRequest::new(store, &location, &limits);
    let opened = format.open(OpenRequest { access: Access::ReadWrite, ..request });
    Some(Disk::new(opened.ok()?.image))
}

fn location() -> Location {
    Location::Other("input".into())
}

/// What can be read before and after is the same, and what is new is zero.
fn resize(disk: &Disk, size: u64) {
    let old = disk.size();
    let before = read(disk, 0, old.min(size).min(PIECE));
    match disk.resize(size, Preallocation::Off) {
        Ok(()) => assert_eq!(disk.size(), size),
        Err(Error::Unsupported { .. }) => assert_eq!(disk.size(), old),
        Err(_) => assert!([old, size].contains(&disk.size()), "{} of {old}, {size}", disk.size()),
    }
    let after = read(disk, 0, disk.size().min(old).min(size).min(PIECE));
    if let (Some(before), Some(after)) = (before, after) {
        assert!(before.iter().zip(&after).all(|(old, new)| old == new), "the start has changed");
    }
    if disk.size() > old {
        let len = PIECE.min(size - old);
        for at in [old, size - len] {
            let zero = read(disk, at, len).is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
            assert!(zero, "{len} bytes at {at}, which are new, are not zero");
        }
    }
}

fn read(disk: &Disk, at: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).expect("a small piece")];
    disk.read(GuestOffset(at), &mut bytes).ok().map(|()| bytes)
}
