//! Checking: every chunk, and the checksums, where there are some.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, HostOffset, Result, Severity, Storage, StorageExt,
};
use crc32fast::Hasher;

use crate::layout::RawHeader;
use crate::{Chunk, Chunks, Content, NAME, SimgImage};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Checks the image.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    request.without_repair(NAME)?;
    let store = Arc::clone(&request.open.store);
    let image = SimgImage::open(Arc::clone(&store), request.open.limits)?;
    let header = image.header();
    let chunks = || Chunks::new(&*store, header);
    let is_sum =
        |chunk: &Result<Chunk>| matches!(chunk, Ok(Chunk { content: Content::Crc32(_), .. }));
    let mut report = CheckReport::default();
    if header.checksum == 0 && !chunks()?.any(|chunk| is_sum(&chunk)) {
        return Ok(report); // There is nothing to compare.
    }
    let mut sum = Sum { store: &*store, block_size: header.block_size, hasher: Hasher::new() };
    let mut compare = |said: u32, is: u32, at: HostOffset| {
        if said != is {
            let text =
                format!("the CRC-32 of what comes before is {is:#010x}, expected {said:#010x}");
            let finding = Finding::new(Severity::Corruption, "checksum", at, text);
            report.count(&finding);
            found(finding);
        }
    };
    for chunk in chunks()? {
        let chunk = chunk?;
        match chunk.content {
            Content::Crc32(said) => compare(said, sum.hasher.clone().finalize(), header.chunks_at),
            _ => sum.add(&chunk)?,
        }
        let done = u64::from(chunk.block + chunk.blocks) * u64::from(header.block_size);
        if request.progress.is_some_and(|tell| !tell(done, header.size())) {
            return Err(Error::Cancelled);
        }
    }
    if header.checksum != 0 {
        let at = HostOffset(std::mem::offset_of!(RawHeader, image_checksum) as u64);
        compare(header.checksum, sum.hasher.finalize(), at);
    }
    Ok(report)
}

/// The CRC-32 of the blocks so far; blocks of any content count as zeroes.
struct Sum<'a> {
    store: &'a dyn Storage,
    block_size: u32,
    hasher: Hasher,
}

impl Sum<'_> {
    fn add(&mut self, chunk: &Chunk) -> Result<()> {
        let len = u64::from(chunk.blocks) * u64::from(self.block_size);
        match chunk.content {
            Content::Raw(at) => self.add_data(at, len)?,
            Content::Fill(_, pattern) => self.hasher.combine(&of_pattern(pattern, len)),
            Content::DontCare => self.hasher.combine(&of_pattern([0; 4], len)),
            Content::Crc32(_) => {}
        }
        Ok(())
    }

    fn add_data(&mut self, at: HostOffset, len: u64) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(PIECE).min(PIECE)];
        let mut done = 0;
        while done < len {
            let most = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..most];
            self.store.read_exact_at(at.saturating_add(done), piece)?;
            self.hasher.update(piece);
            done += piece.len() as u64;
        }
        Ok(())
    }
}

/// The CRC-32 of `len` bytes of a pattern, a multiple of it, in no time.
fn of_pattern(pattern: [u8; 4], len: u64) -> Hasher {
    let mut all = Hasher::new();
    let mut piece = Hasher::new();
    piece.update(&pattern);
    let mut pieces = len / 4;
    while pieces > 0 {
        if pieces % 2 == 1 {
            all.combine(&piece);
        }
        let half = piece.clone();
        piece.combine(&half);
        pieces /= 2;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_the_checksum_that_hashing_it_gives() {
        for count in [0, 1, 3, 1024, 10_000] {
            let mut slow = Hasher::new();
            slow.update(&[1, 2, 3, 4].repeat(count));
            let fast = of_pattern([1, 2, 3, 4], 4 * count as u64);
            assert_eq!(fast.finalize(), slow.finalize(), "{count}");
        }
    }
}
