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
            problem: None,
        }
    }
}

/// All partitions of a disk with these entries, the logical ones behind the others; and what is
/// wrong with the chain of the logical ones behind those that were found.
///
/// # Errors
/// What the store says.
pub(crate) fn partitions(
    disk: &dyn Storage,
    entries: &[MbrEntry; 4],
) -> Result<(Vec<Partition>, Option<Invalid>)> {
    let used = (1..).zip(entries).filter(|(_, entry)| entry.is_used());
    let mut partitions: Vec<_> = used.map(|(number, entry)| entry.partition(number, 0)).collect();
    // Linux follows the first one only.
    let extended = entries.iter().find(|entry| entry.is_used() && kinds::is_extended(entry.kind));
    let problem = match extended {
        Some(extended) => logical(disk, extended.start.get().into(), &mut partitions)?,
        None => None,
    };
    Ok((partitions, problem))
}

/// Follows the chain of the extended partition that begins at sector `start`; where it breaks.
fn logical(
    disk: &dyn Storage,
    start: u64,
    partitions: &mut Vec<Partition>,
) -> Result<Option<Invalid>> {
    let mut seen = Vec::new();
    let mut number = 5;
    let mut link = start;
    loop {
        if seen.contains(&link) || seen.len() >= LOGICAL {
            let expected = format!("a chain of at most {LOGICAL} links that does not come back");
            return Ok(Some(broken(link, Value::Number(link), expected)));
        }
        seen.push(link);
        let [own, next, ..] = match read_link(disk, link)? {
            Ok(entries) => entries,
            Err(problem) => return Ok(Some(problem)),
        };
        // An empty link may stand at the start of the chain.
        if own.is_used() && !kinds::is_extended(own.kind) {
            partitions.push(own.partition(number, link));
            number += 1;
        }
        if !next.is_used() || !kinds::is_extended(next.kind) {
            return Ok(None);
        }
        // Two numbers of 32 bits: their sum and the byte it names fit.
        link = start + u64::from(next.start.get());
    }
}

/// The entries of a link, or why it is none.
fn read_link(disk: &dyn Storage, link: u64) -> Result<Result<[MbrEntry; 4], Invalid>> {
    let mut sector = [0; 512];
    if disk.read_at(HostOffset(link * SECTOR), &mut sector)? < sector.len() {
        return Ok(Err(broken(link, Value::Missing, "a sector of the disk".into())));
    }
    Ok(match Mbr::read_from_prefix(&sector[..]) {
        Ok((mbr, _)) if mbr.signature == SIGNATURE => Ok(mbr.entries),
        _ => Err(broken(link, Value::from(&sector[510..]), "55 aa at the end".into())),
    })
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
