//! COWD extents: redo logs of ESX.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use anydisk_core::{HostOffset, KnownTables, Result, Storage, StorageExt, Value};

use super::{check_inside, text_invalid};
use crate::extent::{Entries, Packed, Shape, Sparse};
use crate::header::Cowd;
use crate::layout::{
    COWD_ENTRIES, COWD_FREE_SECTOR, COWD_HEADER, COWD_MAGIC, COWD_UNCLEAN, SECTOR,
};
use crate::second::Survey;
use crate::table::Geometry;

/// The extent in file number `file`.
///
/// # Errors
/// Those of [`Cowd::parse`], and `Invalid` for a directory that is not in the file.
pub(super) fn extent(file: usize, store: &dyn Storage) -> Result<Sparse> {
    let mut bytes = [0; 32];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    let bytes = &bytes[..count];
    if !bytes.starts_with(&COWD_MAGIC) {
        let found = Value::from(&bytes[..count.min(4)]);
        return Err(text_invalid("magic", HostOffset::ZERO, found, "\"COWD\"").into());
    }
    let header = Cowd::parse(bytes)?;
    let mut unclean = [0; 4];
    store.read_padded_at(HostOffset(COWD_UNCLEAN), &mut unclean)?;
    let geometry = Geometry::new(header.grain, COWD_ENTRIES, header.capacity);
    let directory_len = geometry.directory_len();
    let sparse = Sparse {
        file,
        shape: Shape::new(geometry, header.directory, None),
        damaged: false,
        entries: Entries::Sectors { zeroed: false },
        packed: Packed::No,
        // Tables and grains are allocated in turn, behind the directory; that of a disk that has
        // grown lies among them.
        overhead: match header.directory == HostOffset(COWD_HEADER) {
            true => header.directory.saturating_add(directory_len),
            false => HostOffset(COWD_HEADER),
        },
        unclean: unclean != [0; 4],
        unclean_at: HostOffset(COWD_UNCLEAN),
        free_sector_at: Some(HostOffset(COWD_FREE_SECTOR)),
        misled: Box::default(),
        header_len: COWD_HEADER,
        end: AtomicU64::new(store.len()?),
        known: KnownTables::new(geometry.tables(), SECTOR),
        survey: Survey::default(),
        writer: OnceLock::new(),
    };
    check_inside("gdOffset", header.directory, directory_len, &sparse)?;
    Ok(sparse)
}
