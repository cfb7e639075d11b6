//! Finding and reading all tables of an image.

use anydisk_core::{HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value};

use crate::table::{Frame, Table};
use crate::{NAME, Trailer, fork, limits, plist};

/// The tables of the image in `store`, in the order in which they stand: those of the property list,
/// else of the resource fork.
///
/// # Errors
/// What is wrong with them; [`Invalid`] if there are none; [`Error::Limit`](anydisk_core::Error::Limit);
/// those of the store.
pub(crate) fn read(store: &dyn Storage, trailer: &Trailer, limits: &Limits) -> Result<Vec<Table>> {
    let (data_fork, _) = trailer.data_fork;
    let frame = Frame { data_fork, file_len: store.len()?, sectors: trailer.sectors, limits };
    let mut tables = Vec::new();
    let mut count: usize = 0;
    let found = |at: HostOffset, bytes: Vec<u8>| {
        let table = Table::parse(&bytes, at, &frame)?;
        // A table without chunks costs, too.
        count = count.saturating_add(table.chunks.len().max(1));
        limits::check_chunks(count, limits)?;
        tables.push(table);
        Ok(())
    };
    let (list, fork) = (trailer.property_list, trailer.resource_fork);
    match (list, fork) {
        ((at, 1..), _) => plist::tables(&text(store, list, limits)?, at, found)?,
        (_, (at, 1..)) => fork::tables(&text(store, fork, limits)?, at, found)?,
        _ => {}
    }
    if tables.is_empty() {
        return Err(Invalid {
            format: NAME,
            field: "tables".into(),
            at: trailer.at,
            found: Value::Missing,
            expected: "at least one, in a property list or resource fork".into(),
        }
        .into());
    }
    Ok(tables)
}

fn text(store: &dyn Storage, (at, len): (HostOffset, u64), limits: &Limits) -> Result<Vec<u8>> {
    let mut bytes = vec![0; limits::check_text(len, limits)?];
    store.read_exact_at(at, &mut bytes)?;
    Ok(bytes)
}
