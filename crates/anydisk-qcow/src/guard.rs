//! What must hold before an image is written: no two pieces of metadata share a byte, no cluster
//! lies in the metadata, and everything that is named lies in the file. Else a write might land in
//! the metadata, or new data where old data is named.

use anydisk_core::{Error, HostOffset, Result, StorageExt};

use anydisk_storage::Run;

use crate::layout::RawHeader;
use crate::table::{Cluster, ENTRY};
use crate::{NAME, QcowImage, limits};

/// Bytes of tables that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// Consecutive bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl Piece {
    pub(crate) fn new(at: HostOffset, len: u64) -> Self {
        Self { at: at.get(), end: at.get().saturating_add(len) }
    }
}

/// Checks an image and returns where the space begins in which nothing is and nothing is named.
///
/// # Errors
/// [`Error::NeedsRepair`], [`Error::Limit`] for too large an L1 table, those of the store.
pub(crate) fn end_of_space(image: &QcowImage) -> Result<HostOffset> {
    let len = image.store.len()?;
    let file_end = len.next_multiple_of(image.geometry.cluster());
    let tables = tables(image)?;
    let metadata = metadata(image, &tables)?;
    let mut end = len;
    for piece in &metadata {
        inside(*piece, file_end, "metadata")?;
        end = end.max(piece.end);
    }
    let cluster = image.geometry.cluster();
    each_entry(image, &tables, &mut |at, entry| {
        let piece = match image.geometry.decode(entry) {
            Some(Cluster::Absent) => return Ok(()),
            Some(Cluster::Data(place)) => Piece::new(place, cluster),
            Some(Cluster::Packed { at, len }) => Piece::new(at, len.into()),
            None => return Err(needs_repair(format!("the L2 entry at {at} is {entry:#x}"))),
        };
        inside(piece, file_end, "a cluster")?;
        if let Some(other) = overlapping(&metadata, piece) {
            let (found, other) = (HostOffset(piece.at), HostOffset(other.at));
            return Err(needs_repair(format!(
                "the cluster at {found} lies on metadata at {other}"
            )));
        }
        end = end.max(piece.end);
        Ok(())
    })?;
    Ok(HostOffset(end))
}

/// The places of all L2 tables, rising.
pub(crate) fn tables(image: &QcowImage) -> Result<Vec<HostOffset>> {
    let len = image.geometry.l1_entries() * ENTRY;
    let mut tables = Vec::new();
    each_word(image, image.geometry.l1_table(), len, &mut |at, entry| {
        match image.geometry.table(entry) {
            Ok(table) => tables.extend(table),
            Err(entry) => return Err(needs_repair(format!("the L1 entry at {at} is {entry:#x}"))),
        }
        check_count(tables.len())
    })?;
    tables.sort_unstable();
    Ok(tables)
}

fn check_count(tables: usize) -> Result<()> {
    let (found, limit) = (tables as u64, limits::TABLES);
    if found <= limit {
        return Ok(());
    }
    let what = "number of L2 tables of an image to be written".into();
    Err(Error::Limit { format: NAME, what, found, limit })
}

/// Header, name of the backing file, L1 table and L2 tables, rising.
pub(crate) fn metadata(image: &QcowImage, tables: &[HostOffset]) -> Result<Vec<Piece>> {
    let geometry = &image.geometry;
    let mut pieces = vec![
        Piece::new(HostOffset::ZERO, size_of::<RawHeader>() as u64),
        Piece::new(geometry.l1_table(), geometry.l1_entries() * ENTRY),
    ];
    pieces.extend(image.header.backing_file.map(|(at, len)| Piece::new(at, len.into())));
    pieces.extend(tables.iter().map(|at| Piece::new(*at, geometry.l2_len())));
    pieces.sort_unstable();
    for (first, second) in pieces.iter().zip(pieces.iter().skip(1)) {
        if second.at < first.end {
            let (first, second) = (HostOffset(first.at), HostOffset(second.at));
            return Err(needs_repair(format!("metadata at {second} lies on that at {first}")));
        }
    }
    Ok(pieces)
}

/// Calls `each` with the place and value of all entries, but 0, of the tables.
pub(crate) fn each_entry(
    image: &QcowImage,
    tables: &[HostOffset],
    each: &mut impl FnMut(HostOffset, u64) -> Result<()>,
) -> Result<()> {
    let len = image.geometry.l2_len();
    let mut rest = tables;
    while let Some(first) = rest.first() {
        let follows = |(n, at): &(u64, &HostOffset)| {
            first.saturating_add(n * len) == **at && n * len < AT_ONCE
        };
        let count = (0..).zip(rest).take_while(follows).count();
        each_word(image, *first, count as u64 * len, each)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// Calls `each` with the place and value of every entry, but 0, of a table of `len` bytes. Holes
/// of the file are not read.
pub(crate) fn each_word(
    image: &QcowImage,
    at: HostOffset,
    len: u64,
    each: &mut impl FnMut(HostOffset, u64) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < len {
        let start = at.saturating_add(done);
        let run = match image.store.holes() {
            Some(holes) => holes.run_at(start, len - done)?,
            None => Run { len: len - done, hole: false },
        };
        if run.hole && run.len >= ENTRY {
            done += run.len - run.len % ENTRY;
            continue;
        }
        let part = run.len.next_multiple_of(ENTRY).min(len - done).min(AT_ONCE);
        let mut bytes = vec![0; usize::try_from(part).expect("at most a mebibyte")];
        image.store.read_padded_at(start, &mut bytes)?;
        for (number, word) in (0..).zip(bytes.as_chunks().0) {
            let word = u64::from_be_bytes(*word);
            if word != 0 {
                each(start.saturating_add(number * ENTRY), word)?;
            }
        }
        done += part;
    }
    Ok(())
}

/// The piece of `pieces`, which rise and do not overlap, that shares a byte with `piece`.
pub(crate) fn overlapping(pieces: &[Piece], piece: Piece) -> Option<Piece> {
    let before = pieces.partition_point(|other| other.at < piece.end);
    pieces.get(before.checked_sub(1)?).copied().filter(|other| other.end > piece.at)
}

/// What begins behind the end of the file would be handed out again. Its end may lie there: the
/// last cluster need not be whole, and programs leave tables unwritten when they die.
fn inside(piece: Piece, file_end: u64, what: &str) -> Result<()> {
    if piece.at <= file_end {
        return Ok(());
    }
    let (at, end) = (HostOffset(piece.at), HostOffset(file_end));
    Err(needs_repair(format!("{what} at {at} lies behind the end of the file at {end}")))
}

fn needs_repair(why: String) -> Error {
    Error::NeedsRepair { format: NAME, why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_shared_byte_is_found_as_if_all_were_compared(
            gaps in proptest::collection::vec((0u64..9, 1u64..9), 0..9),
            at in 0u64..90,
            len in 1u64..20,
        ) {
            let mut end = 0;
            let pieces: Vec<_> = gaps
                .iter()
                .map(|(gap, len)| {
                    let at = end + gap;
                    end = at + len;
                    Piece { at, end }
                })
                .collect();
            let piece = Piece { at, end: at + len };
            let meets = |other: &&Piece| other.at < piece.end && piece.at < other.end;
            let found = overlapping(&pieces, piece);
            prop_assert_eq!(found.is_some(), pieces.iter().any(|other| meets(&other)));
            prop_assert!(found.iter().all(|other| meets(&other)));
        }
    }
}
