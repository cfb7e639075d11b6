//! Kinds of files.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Whether it is one of the devices that have no bytes to read at a place: `/dev/null` and its like.
#[cfg(target_os = "linux")]
pub(super) fn has_no_bytes(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    /// The kernel's numbers of `null`, `zero` and `full`.
    const DEVICES: [u64; 3] = [0x103, 0x105, 0x107];
    let device = |meta: fs::Metadata| meta.file_type().is_char_device().then(|| meta.rdev());
    fs::metadata(path).ok().and_then(device).is_some_and(|device| DEVICES.contains(&device))
}

/// Whether it is one of the devices that have no bytes to read at a place: none is known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn has_no_bytes(_: &Path) -> bool {
    false
}

/// Whether something is there, and is no device.
pub(super) fn is_no_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        !kind.is_block_device() && !kind.is_char_device()
    })
}
