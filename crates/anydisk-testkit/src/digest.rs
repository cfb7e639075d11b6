//! Hashes of files and of what a disk holds.

use std::fs::File;
use std::io;
use std::path::Path;

use anydisk_core::{Disk, GuestOffset, GuestRange, Result, Source};
use sha2::{Digest, Sha256};

use crate::Random;
use crate::unpack::read_full;

/// Disks larger than this are not read where their map says zero.
const READ_WHOLLY: u64 = 64 << 20;

/// How a disk is read.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// In pieces of 1 MiB.
    Large,
    /// In pieces of all sizes, none of them a round number on purpose.
    Odd,
}

impl Reading {
    fn next_len(self, random: &mut Random) -> u64 {
        match self {
            Self::Large => 1 << 20,
            Self::Odd => {
                let bits = 4 + random.below(15);
                1 + random.below(1 << bits)
            }
        }
    }
}

/// The SHA-256 of the bytes of a file, in hexadecimal.
///
/// # Errors
/// Of reading it.
pub fn of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The CRC-32 of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    !crc(bytes, u32::MAX, 0xEDB8_8320)
}

/// The remainder of `bytes` with a reflected polynomial, begun with `seed`, not inverted.
#[must_use]
pub fn crc(bytes: &[u8], seed: u32, polynomial: u32) -> u32 {
    let mut table = [0_u32; 256];
    for (byte, entry) in (0_u32..).zip(&mut table) {
        *entry = (0..8).fold(
            byte,
            |rest, _| {
                if rest & 1 == 1 { rest >> 1 ^ polynomial } else { rest >> 1 }
            },
        );
    }
    bytes.iter().fold(seed, |rest, byte| {
        let [low, ..] = rest.to_le_bytes();
        rest >> 8 ^ table[usize::from(low ^ byte)]
    })
}

/// The SHA-256 of `bytes`, in hexadecimal.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of the whole content of `disk`, in hexadecimal.
///
/// Of a disk larger than 64 MiB the runs that the map calls zero are read at their ends only.
///
/// # Errors
/// What reading says.
pub fn content_sha256(disk: &Disk, how: Reading) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut random = Random::new(disk.size());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < disk.size() {
        let zeroes = skippable(disk, at)?;
        if zeroes > 0 {
            hash_zeroes(&mut hasher, zeroes);
            at += zeroes;
            continue;
        }
        let len = how.next_len(&mut random).min(disk.size() - at);
        let part = &mut buffer[..usize::try_from(len).expect("at most 1 MiB")];
        disk.read(GuestOffset(at), part)?;
        hasher.update(part);
        at += len;
    }
    Ok(hex(&hasher.finalize()))
}

/// How many bytes at `at` the map calls zero, if that is worth skipping; the last bytes of a run
/// are left to be read.
fn skippable(disk: &Disk, at: u64) -> Result<u64> {
    const LEFT: u64 = 1 << 20;
    let whole = GuestRange::whole(disk.size());
    if disk.size() <= READ_WHOLLY || at == 0 {
        return Ok(0);
    }
    let found = disk.status(whole.skip(at))?;
    let zero = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
    Ok(if zero { found.extent.len.saturating_sub(LEFT) } else { 0 })
}

fn hash_zeroes(hasher: &mut Sha256, mut len: u64) {
    static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
    while len > 0 {
        let part = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROES.len());
        hasher.update(&ZEROES[..part]);
        len -= part as u64;
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn file_sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = read_full(&mut file, &mut buffer)?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}
