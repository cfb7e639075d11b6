//! What must hold before an image is written: every cluster that something names is in the file, and
//! named once. Else a write might land in another cluster, or in the table.

use anydisk_core::{
    BlockSpace, Error, HostOffset, NamedBlocks, Pace, Result, Storage, StorageExt,
    for_each_written_entry,
};

use crate::extension::Extension;
use crate::header::{Header, TABLE, limit};
use crate::table::Entries;
use crate::{NAME, limits};

/// Clusters that nothing names, of which is looked whether they hold data when an image is opened.
const LOOKED_AT: usize = 1 << 12;

/// The clusters of an image that is to be written. Those that nothing names and that hold no data,
/// which a damaged table may have named, are free. And when the table is to be written back.
///
/// # Errors
/// [`Error::ReadOnly`] for features that forbid it, [`Error::NeedsRepair`] for a place that is no
/// cluster of the file or another's, [`Error::Limit`] for a file that is too large to be looked
/// through.
pub(crate) fn space(
    header: &Header,
    extension: Option<&Extension>,
    store: &dyn Storage,
    len: u64,
    is_new: bool,
) -> Result<(BlockSpace, Pace)> {
    let features = extension.map_or(&[][..], |extension| &extension.others);
    if let Some(other) = features.iter().find(|other| other.is_necessary()) {
        let why = format!("its feature {:#x} is not known here", other.magic);
        return Err(Error::ReadOnly { why: why.into() });
    }
    let in_file = header.clusters_in(len);
    let end = header.cluster_at(in_file);
    let space = BlockSpace::new(header.cluster, end).with_old_bytes_to(HostOffset(len));
    if is_new {
        return Ok((space, Pace::default()));
    }
    let named = named_clusters(header, extension, store, in_file)?;
    for number in named.gaps(in_file).flatten().take(LOOKED_AT) {
        let at = header.cluster_at(number);
        if store.is_zero_at(at, header.cluster)? {
            space.give_back(at);
        }
    }
    let unnamed: u64 = named.gaps(in_file).map(|run| run.end - run.start).sum();
    let bytes = |clusters: u64| clusters.saturating_mul(header.cluster);
    Ok((space, Pace::new(bytes(in_file - unnamed), bytes(unnamed))))
}

/// Which of the clusters in the file are named, each once.
fn named_clusters(
    header: &Header,
    extension: Option<&Extension>,
    store: &dyn Storage,
    in_file: u64,
) -> Result<NamedBlocks> {
    if header.wrong_data_off {
        return Err(Error::needs_repair(NAME, "data_off is wrong"));
    }
    limit("number of clusters in the file", in_file, limits::CLUSTERS)?;
    let mut named = NamedBlocks::new(in_file);
    for at in extension.into_iter().flat_map(Extension::clusters) {
        let number = header.number_of(at).filter(|number| *number < in_file);
        if !number.is_some_and(|number| named.insert(number)) {
            let why =
                format!("the format extension takes the place {at}, which is no free cluster");
            return Err(Error::needs_repair(NAME, why));
        }
    }
    let entries = Entries::of(header);
    for_each_written_entry(TABLE, header.entries, store, |at, bytes| {
        let entry = u32::from_le_bytes(bytes);
        let Some(place) = entries.place(entry) else { return Ok(()) };
        let what = match header.number_of(place) {
            Some(number) if number < in_file && named.insert(number) => return Ok(()),
            Some(number) if number < in_file => "as another one",
            Some(_) => "and the file ends before that",
            None => "where no cluster begins",
        };
        let why = format!("the entry of the block table at {at} is {entry:#x}, {what}");
        Err(Error::needs_repair(NAME, why))
    })?;
    Ok(named)
}

pub(crate) fn read_only(why: &'static str) -> Error {
    Error::ReadOnly { why: why.into() }
}
