//! Zero entries, which version 2 does not have: counted, and replaced.

use anydisk_core::{Result, Storage};

use super::Named;
use super::mend::write_changed;
use super::stream::Stream;
use super::tables::L2Table;
use crate::alloc::words_of;
use crate::entry::L2Entry;
use crate::layout::RawSnapshot;
use crate::layout::entry::{COPIED, ZERO};

/// What stands in the way of version 2.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    /// Entries that are zero.
    pub(crate) zero: u64,
    /// Entries that are compressed.
    pub(crate) compressed: u64,
    pub(crate) snapshots_of_other_size: u64,
    pub(crate) large_vm_states: u64,
}

fn is_zero(word: u64) -> bool {
    !L2Entry { word, bitmap: 0 }.is_compressed() && word & ZERO != 0
}

/// Counts them. `size`: the virtual size that the image is to have.
pub(super) fn census(image: &Named<'_>, size: u64) -> Result<Census> {
    let mut census = Census::default();
    for table in &image.tables {
        for word in words(image, table)? {
            census.zero += u64::from(is_zero(word));
            census.compressed += u64::from(L2Entry { word, bitmap: 0 }.is_compressed());
        }
    }
    let header = &image.subject.header;
    let mut stream = Stream::new(image.subject, header.snapshots_offset.get());
    for _ in 0..header.nb_snapshots {
        stream.skip(stream.at().next_multiple_of(8) - stream.at());
        let entry: RawSnapshot = stream.take_struct()?;
        let extra = stream.take(u64::from(entry.extra_data_size.get()).min(1024))?;
        let word =
            |index: usize| extra.as_chunks::<8>().0.get(index).copied().map(u64::from_be_bytes);
        census.large_vm_states +=
            u64::from(word(0).is_some_and(|size| u32::try_from(size).is_err()));
        census.snapshots_of_other_size +=
            u64::from(word(1).is_some_and(|of_snapshot| of_snapshot != size));
        stream.skip(u64::from(entry.id_str_size.get()) + u64::from(entry.name_size.get()));
    }
    Ok(census)
}

fn words(image: &Named<'_>, table: &L2Table) -> Result<Vec<u64>> {
    let len = image.subject.cluster_size();
    if image.subject.is_hole(table.at, len) {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    image.subject.read(table.at, &mut bytes)?;
    Ok(words_of(&bytes))
}

/// Makes zero entries absent where nothing lies below, else real clusters of zeroes behind the end
/// of the file. Refcounts are left for a repair: the image is marked dirty.
pub(super) fn replace(image: &Named<'_>) -> Result<()> {
    let subject = image.subject;
    let hides = subject.header.backing_file.is_some();
    let mut next = subject.end();
    for table in &image.tables {
        let old = words(image, table)?;
        let mut new = old.clone();
        for word in new.iter_mut().filter(|word| is_zero(**word)) {
            *word = 0;
            if hides {
                let own = table.times == 1 && table.active.is_some();
                *word = subject.offset(next).get() | if own { COPIED } else { 0 };
                next += 1;
            }
        }
        if new == old {
            continue;
        }
        // The new clusters are zero because the file was never so long.
        subject.store.set_len(subject.offset(next).get().max(subject.store.len()?))?;
        subject.store.flush()?;
        write_changed(subject, table.at, &old, &new)?;
    }
    Ok(subject.store.flush()?)
}
