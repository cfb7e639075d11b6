//! What several tests use.

use std::sync::Arc;

use anydisk_core::{HostOffset, Limits, Members, Result, Storage, StorageExt};
use anydisk_lvm2::VolumeGroups;

pub(crate) fn open_volume(disks: &[Arc<dyn Storage>], volume: &str) -> Result<Arc<dyn Storage>> {
    let groups = VolumeGroups::open(disks, &Limits::default())?;
    Members::open(&groups, volume)
}

/// All bytes of a volume.
pub(crate) fn bytes(volume: &dyn Storage) -> Vec<u8> {
    let len = usize::try_from(volume.len().expect("a length")).expect("a small volume");
    let mut bytes = vec![0; len];
    volume.read_exact_at(HostOffset::ZERO, &mut bytes).expect("it reads");
    bytes
}
