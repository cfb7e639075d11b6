//! The MBR and the chain of logical partitions.

use anydisk_core::{HostOffset, Invalid, Result, Storage, StorageExt, Value};
use zerocopy::FromBytes;

use crate::layout::{Mbr, MbrEntry, SECTOR, SIGNATURE};
use crate::{NAME, Partition, kinds};

/// Logical partitions of one disk. Linux knows fewer.
const LOGICAL: usize = 256;

/// The four entries of a sector that is an MBR; `None` for one that is not. Pure.
///
/// The boot sector of a file system ends with the same two bytes; but it has code where the entries
/// are.
pub(crate) fn parse(sector: &[u8]) -> Option<[MbrEntry; 4]> {
    let (mbr, _) = Mbr::read_from_prefix(sector).ok()?;
    let plausible = |entry: &MbrEntry| matches!(entry.status, 0 | 0x80);
    let used = mbr.entries.iter().any(MbrEntry::is_used);
    (mbr.signature == SIGNATURE && mbr.entries.iter().all(plausible) && used).then_some(mbr.entries)
}

impl MbrEntry {
    pub(crate) fn is_used(&self) -> bool {
        self.kind != 0 && self.count.get() != 0
    }

    /// The partition, whose sectors count from `base`.
    fn partition(&self, number: u32, base: u64) -> Partition {
        Partition {
            number,
            start: (base + u64::from(self.start.get())) * SECTOR,
            len: u64::from(self.count.get()) * SECTOR,
            kind: kinds::of_mbr(self.kind),
            name: None,
            extended: kinds::is_extended(self.kind),
        }
    }
}

/// All partitions of a disk with these entries, the logical ones behind the others.
///
/// # Errors
/// [`Invalid`] for a chain that comes back to itself or leads to what is no link of it.
pub(crate) fn partitions(disk: &dyn Storage, entries: &[MbrEntry; 4]) -> Result<Vec<Partition>> {
    let used = (1..).zip(entries).filter(|(_, entry)| entry.is_used());
    let mut partitions: Vec<_> = used.map(|(number, entry)| entry.partition(number, 0)).collect();
    // Linux follows the first one only.
    if let Some(extended) = entries.iter().find(|e| e.is_used() && kinds::is_extended(e.kind)) {
        partitions.extend(logical(disk, extended.start.get().into())?);
    }
    Ok(partitions)
}

/// Follows the chain of the extended partition that begins at sector `start`.
fn logical(disk: &dyn Storage, start: u64) -> Result<Vec<Partition>> {
    let mut partitions = Vec::new();
    let mut seen = Vec::new();
    let mut link = start;
    loop {
        if seen.contains(&link) || seen.len() >= LOGICAL {
            let expected = format!("a chain of at most {LOGICAL} links that does not come back");
            return Err(broken(link, Value::Number(link), expected).into());
        }
        seen.push(link);
        let mut sector = [0; 512];
        let at = HostOffset(link * SECTOR);
        if disk.read_at(at, &mut sector)? < sector.len() {
            return Err(broken(link, Value::Missing, "a sector of the disk".into()).into());
        }
        let (mbr, _) = Mbr::read_from_prefix(&sector[..])
            .map_err(|_| broken(link, Value::Missing, "512 bytes".into()))?;
        if mbr.signature != SIGNATURE {
            let found = Value::from(&mbr.signature[..]);
            return Err(broken(link, found, "55 aa at the end".into()).into());
        }
        let [own, next, ..] = mbr.entries;
        // An empty link may stand at the start of the chain.
        if own.is_used() && !kinds::is_extended(own.kind) {
            let number = 5 + u32::try_from(partitions.len()).unwrap_or(0);
            partitions.push(own.partition(number, link));
        }
        if !next.is_used() || !kinds::is_extended(next.kind) {
            return Ok(partitions);
        }
        // Two numbers of 32 bits: their sum and the byte it names fit.
        link = start + u64::from(next.start.get());
    }
}

fn broken(link: u64, found: Value, expected: String) -> Invalid {
    Invalid {
        format: NAME,
        field: "link of the logical partitions".into(),
        at: HostOffset(link * SECTOR),
        found,
        expected: expected.into(),
    }
}

/// What [`StorageExt`] reads of the first sector; shorter disks have zeroes behind their end.
pub(crate) fn first_sector(disk: &dyn Storage) -> Result<[u8; 512]> {
    let mut sector = [0; 512];
    disk.read_padded_at(HostOffset::ZERO, &mut sector)?;
    Ok(sector)
}
