//! A whole Parallels image, opened and read, and opened for writing and written. The checksum of its
//! format extension is put right, so that what lies behind is looked at.
#![no_main]

use anydisk_parallels::PARALLELS;
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};

fuzz_target!(|data: &[u8]| {
    let mut file = data.to_vec();
    sum(&mut file);
    anydisk_fuzz::explore(&PARALLELS, file.clone());
    anydisk_fuzz::write_and_read(&PARALLELS, file);
});

/// Puts the checksum into the cluster that the header names as the extension.
fn sum(file: &mut [u8]) -> Option<()> {
    let tracks = u32::from_le_bytes(*file.get(28..)?.first_chunk()?);
    let sector = u64::from_le_bytes(*file.get(56..)?.first_chunk()?);
    let at = usize::try_from(sector.checked_mul(512)?).ok()?;
    let cluster = file.get_mut(at..)?.get_mut(..usize::try_from(tracks).ok()?.checked_mul(512)?)?;
    let sum = Md5::digest(cluster.get(24..)?);
    cluster.get_mut(8..24)?.copy_from_slice(&sum);
    Some(())
}
