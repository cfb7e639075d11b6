//! Checking: the whole map, and that no two entries name one extent.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Finding, GuestOffset, GuestRange, Result, Severity, Storage,
    StorageExt, check_by_reading, check_limit,
};

use crate::layout::NONE;
use crate::{BochsImage, Header, NAME};

/// Bytes of the catalog that are read at a time.
const PIECE: usize = 64 << 10;

/// Checks the image.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let image = BochsImage::open(Arc::clone(&request.open.store), request.open.limits)?;
    let header = image.header().clone();
    let used = used(&*request.open.store, &header, request)?;
    let unit = u64::from(header.extent);
    let mut report = check_by_reading(Arc::new(image), unit, request, found)?;
    for ((number, first), (_, second)) in used.iter().zip(used.iter().skip(1)).filter(same) {
        let text = format!("extent {number} is named by the entries {first} and {second}");
        let at = header.catalog.saturating_add(u64::from(*second) * 4);
        let finding = Finding::new(Severity::Corruption, "extent-shared", at, text);
        let finding = finding.costing(range(&header, *second));
        report.count(&finding);
        found(finding);
    }
    report.total_clusters = Some(header.size.div_ceil(unit));
    report.allocated_clusters = Some(used.len() as u64);
    Ok(report)
}

type Used = (u32, u32);

fn same(pair: &(&Used, &Used)) -> bool {
    pair.0.0 == pair.1.0
}

/// The extents that are named, each with its entry, rising.
fn used(store: &dyn Storage, header: &Header, request: &CheckRequest<'_>) -> Result<Vec<Used>> {
    let mut used = Vec::new();
    let mut buffer = vec![0; PIECE];
    let (mut entry, mut at) = (0, header.catalog);
    // What lies behind the end of the disk counts for nothing.
    let extents = header.size.div_ceil(header.extent.into());
    let mut rest = usize::try_from(extents.saturating_mul(4)).unwrap_or(usize::MAX);
    while rest > 0 {
        let piece = &mut buffer[..rest.min(PIECE)];
        store.read_padded_at(at, piece)?;
        let (words, _) = piece.as_chunks();
        for number in words.iter().map(|word| u32::from_le_bytes(*word)) {
            if number != NONE {
                used.push((number, entry));
            }
            entry += 1;
        }
        let bytes = (used.len() * size_of::<Used>()) as u64;
        check_limit(NAME, "bytes of a list of extents", bytes, limit(request))?;
        (at, rest) = (at.saturating_add(piece.len() as u64), rest - piece.len());
    }
    used.sort_unstable();
    Ok(used)
}

fn limit(request: &CheckRequest<'_>) -> u64 {
    request.open.limits.table_cache as u64
}

/// What an entry has of the disk.
fn range(header: &Header, entry: u32) -> GuestRange {
    let extent = u64::from(header.extent);
    let start = GuestOffset(u64::from(entry) * extent);
    GuestRange::between(start, GuestOffset(header.size.min(start.get() + extent)))
}
