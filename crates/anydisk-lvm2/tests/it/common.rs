//! What several tests use.

use std::sync::Arc;

use anydisk_core::{
    Changes, GuestOffset, HostOffset, Limits, Members, Result, Storage, StorageExt,
};
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

/// All changed ranges, joined, as start and length.
pub(crate) fn ranges(mut changes: Box<dyn Changes + '_>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    let mut at = GuestOffset::ZERO;
    while let Some(range) = changes.next(at).expect("changes are told") {
        at = range.end();
        match joined.last_mut() {
            Some((start, len)) if *start + *len == range.start().get() => *len += range.len(),
            _ => joined.push((range.start().get(), range.len())),
        }
    }
    joined
}

/// The ranges of a `thin_delta` that are not the same, joined, in chunks.
pub(crate) fn delta(xml: &str) -> Vec<(u64, u64)> {
    let number = |line: &str, name: &str| -> u64 {
        let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the attribute");
        rest.split('"').next().and_then(|text| text.parse().ok()).expect("a number")
    };
    let mut joined: Vec<(u64, u64)> = Vec::new();
    let kinds = ["<different", "<left_only", "<right_only"];
    for line in xml.lines().filter(|line| kinds.iter().any(|kind| line.contains(kind))) {
        let (begin, len) = (number(line, "begin"), number(line, "length"));
        match joined.last_mut() {
            Some((start, all)) if *start + *all == begin => *all += len,
            _ => joined.push((begin, len)),
        }
    }
    joined
}
