//! What is done to a disk and to its model alike.

use anydisk_core::{Disk, GuestOffset, GuestRange};

use crate::{Aim, ByteModel, Operation};

/// The content of a disk.
///
/// # Panics
/// If it cannot be read, or is too large for memory.
#[must_use]
pub fn contents(disk: &Disk) -> Vec<u8> {
    // What is not filled in is not zero by chance.
    let mut bytes = vec![0x5a; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("it can be read");
    bytes
}

/// Plays random operations on disk and model: writes, zeroes and flushes, of whole sectors.
///
/// # Panics
/// If one of them fails.
pub fn play(disk: &Disk, model: &mut ByteModel, unit: u64, seed: u64, count: usize) {
    let aim = Aim { step: 512, ..Aim::at(disk.size(), unit) };
    for operation in aim.operations(seed).take(count) {
        let range = |at, len| GuestRange::new(GuestOffset(at), len).expect("on it");
        match operation {
            Operation::Write { at, .. } => disk.write(GuestOffset(at), &operation.data()),
            Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap),
            Operation::Flush => disk.flush(),
            _ => continue,
        }
        .unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        model.apply(&operation);
    }
}

/// Plays random operations of any bytes on disk and model, and compares what is read. What a discard
/// leaves is the disk's choice.
///
/// # Panics
/// If one of them fails, or something else is read than the model holds.
pub fn play_bytes(disk: &Disk, model: &mut ByteModel, seed: u64, count: usize) {
    let unit = disk.top().info().cluster_size.expect("it has clusters");
    let range = |at, len| GuestRange::new(GuestOffset(at), len).expect("on it");
    let read = |at, len| {
        let mut bytes = vec![0; usize::try_from(len).expect("small")];
        disk.read(GuestOffset(at), &mut bytes).expect("a read");
        bytes
    };
    for operation in Aim::at(disk.size(), unit).operations(seed).take(count) {
        match &operation {
            Operation::Read { at, len } => {
                assert!(read(*at, *len) == model.read(*at, *len), "{operation:?}");
            }
            Operation::Write { at, .. } => {
                disk.write(GuestOffset(*at), &operation.data()).expect("a write");
            }
            Operation::Zero { at, len, unmap } => {
                disk.zero(range(*at, *len), *unmap).expect("a zeroing");
            }
            Operation::Discard { at, len } => {
                disk.discard(range(*at, *len)).expect("a discard");
                model.write(*at, &read(*at, *len));
                continue;
            }
            Operation::Flush => disk.flush().expect("a flush"),
            _ => continue,
        }
        model.apply(&operation);
    }
}
