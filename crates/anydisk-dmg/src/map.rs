//! All chunks of a disk, by sector. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{Error, GuestOffset, GuestRange, Invalid, Result, Value};

use crate::NAME;
use crate::layout::SECTOR;
use crate::table::{Chunk, ChunkKind, Table};

/// The chunks of all tables, rising and without overlap. What none of them has reads as zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMap(Vec<Chunk>);

impl ChunkMap {
    /// The chunks of these tables.
    ///
    /// # Errors
    /// [`Error::Invalid`] for two that have a sector in common.
    pub fn of(tables: &[Table]) -> Result<Self> {
        let mut all: Vec<Chunk> =
            tables.iter().flat_map(|table| table.chunks.iter().copied()).collect();
        all.sort_unstable_by_key(|chunk| chunk.sector);
        for (first, second) in all.iter().zip(all.iter().skip(1)) {
            if second.sector < first.end() {
                return Err(overlap(first, second));
            }
        }
        all.dedup_by(|next, before| joins(before, next));
        all.shrink_to_fit();
        Ok(Self(all))
    }

    /// The chunk that has the first byte of `range`; else how many bytes no chunk has.
    pub(crate) fn look(&self, range: GuestRange) -> Result<&Chunk, u64> {
        let sector = range.start().get() / SECTOR;
        let behind = self.0.partition_point(|chunk| chunk.sector <= sector);
        let last = behind.checked_sub(1).and_then(|index| self.0.get(index));
        match (last, self.0.get(behind)) {
            (Some(chunk), _) if chunk.end() > sector => Ok(chunk),
            (_, Some(next)) => {
                let end = GuestOffset(next.sector.saturating_mul(SECTOR));
                Err(range.before(end).len())
            }
            (_, None) => Err(range.len()),
        }
    }
}

/// Makes one chunk of two whose content goes on: zeroes, and plain sectors that follow each other in
/// the file too.
fn joins(before: &mut Chunk, next: &Chunk) -> bool {
    let plain = before.count.checked_mul(SECTOR).and_then(|len| before.at.checked_add(len));
    let goes_on = match (before.kind, next.kind) {
        (ChunkKind::Raw, ChunkKind::Raw) => plain == Some(next.at),
        (ChunkKind::Zero, ChunkKind::Zero) | (ChunkKind::Free, ChunkKind::Free) => true,
        _ => false,
    };
    let joins = goes_on && before.end() == next.sector;
    if joins {
        before.count = before.count.saturating_add(next.count);
    }
    joins
}

#[cold]
fn overlap(first: &Chunk, second: &Chunk) -> Error {
    Invalid {
        format: NAME,
        field: "first sector of a chunk".into(),
        at: second.at,
        found: Value::Number(second.sector),
        expected: format!("a sector from {} on, behind the chunk before", first.end()).into(),
    }
    .into()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "small numbers")]
mod tests {
    use super::*;
    use anydisk_core::HostOffset;
    use proptest::prelude::*;

    use crate::Checksum;

    fn table(chunks: Vec<Chunk>) -> Table {
        Table { at: HostOffset(9), sector: 0, end: 1 << 20, checksum: Checksum::None, chunks }
    }

    fn chunk(sector: u64, count: u64, kind: ChunkKind) -> Chunk {
        // Plain sectors lie as they do on the disk, so that some join.
        let at = HostOffset(1000 + sector * SECTOR);
        Chunk { sector, count, at, len: 10, kind }
    }

    const KINDS: [ChunkKind; 4] =
        [ChunkKind::Zero, ChunkKind::Free, ChunkKind::Raw, ChunkKind::Zlib];

    proptest! {
        #[test]
        fn every_sector_has_the_answer_of_its_chunk(
            steps in prop::collection::vec((0_u64..3, 1_u64..5, 0_usize..4), 1..40),
            tables in 1_usize..4,
        ) {
            let mut chunks = Vec::new();
            let mut at = 0;
            for (gap, count, kind) in steps {
                chunks.push(chunk(at + gap, count, KINDS[kind]));
                at += gap + count;
            }
            // In tables of any order.
            let parts: Vec<Table> = (0..tables)
                .map(|part| chunks.iter().skip(part).step_by(tables).rev().copied().collect())
                .map(table)
                .collect();
            let map = ChunkMap::of(&parts).expect("no two overlap");
            for sector in 0..at + 3 {
                let start = GuestOffset(sector * SECTOR);
                let range = GuestRange::between(start, GuestOffset((at + 3) * SECTOR));
                let own = chunks.iter().find(|c| c.sector <= sector && sector < c.end());
                match (map.look(range), own) {
                    (Ok(found), Some(own)) => {
                        prop_assert_eq!(found.kind, own.kind);
                        prop_assert!(found.sector <= own.sector && own.end() <= found.end());
                        if own.kind == ChunkKind::Raw {
                            let back = (own.sector - found.sector) * SECTOR;
                            prop_assert_eq!(found.at.get() + back, own.at.get());
                        }
                    }
                    (Err(len), None) => {
                        let next = chunks.iter().map(|c| c.sector).find(|next| *next > sector);
                        let end = next.unwrap_or(at + 3);
                        prop_assert_eq!(len, (end - sector) * SECTOR);
                    }
                    (found, own) => prop_assert!(false, "{sector}: {found:?}, {own:?}"),
                }
            }
        }
    }

    #[test]
    fn two_chunks_with_a_common_sector_are_refused() {
        let chunks = vec![chunk(8, 8, ChunkKind::Zlib), chunk(0, 9, ChunkKind::Zero)];
        let error = ChunkMap::of(&[table(chunks)]).unwrap_err().to_string();
        let expected = "dmg: first sector of a chunk at 0x13e8 is 8, expected a sector from 9 on, \
                        behind the chunk before";
        assert_eq!(error, expected);
    }
}
