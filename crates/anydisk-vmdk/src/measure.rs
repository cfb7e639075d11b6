//! How large a new image gets.

use anydisk_core::{GuestRange, Location, Measure, MeasureRequest, Result};

use crate::create::{
    GRAIN_SECTORS, Layout, Plan, Subformat, TABLE_ENTRIES, TABLE_SECTORS, cowd, extent_names,
    table_count,
};
use crate::layout::{COWD_ENTRIES, SECTOR};
use crate::limits;
use crate::table::ENTRY;

/// How large an image for the given data gets.
///
/// # Errors
/// Those of [`Plan::of`].
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let plan = Plan::of(request.options, request.size)?;
    let all = [GuestRange::whole(plan.capacity())];
    let size = |data: &[GuestRange]| match plan.subformat {
        Subformat::Stream => stream_size(&plan, data),
        Subformat::MonolithicFlat | Subformat::SplitFlat | Subformat::Vmfs => plan.capacity(),
        Subformat::VmfsSparse => redo_log_size(&plan, data),
        Subformat::MonolithicSparse | Subformat::SplitSparse => sparse_size(&plan, data),
    };
    let descriptor = match plan.subformat.is_embedded() {
        true => 0,
        false => {
            let names = extent_names(&plan, &Location::Other(String::new()))?;
            plan.descriptor(&names, None)?.len() as u64
        }
    };
    let whole = |size: u64| size.saturating_add(descriptor);
    Ok(Measure { required: whole(size(request.data)), fully_allocated: whole(size(&all)) })
}

/// What sparse extents take together. None begins inside a grain.
fn sparse_size(plan: &Plan<'_>, data: &[GuestRange]) -> u64 {
    let overhead: u64 = plan.extents().map(|sectors| Layout::of(sectors).overhead).sum();
    (overhead + grains(data).count() as u64 * GRAIN_SECTORS) * SECTOR
}

/// What a redo log takes, whose tables come with the first of their grains.
fn redo_log_size(plan: &Plan<'_>, data: &[GuestRange]) -> u64 {
    let count = |unit: u64| units(data, unit).count() as u64;
    let tables = count(cowd::GRAIN_SECTORS * SECTOR * u64::from(COWD_ENTRIES));
    let table = u64::from(COWD_ENTRIES) * ENTRY;
    let grains = count(cowd::GRAIN_SECTORS * SECTOR) * cowd::GRAIN_SECTORS * SECTOR;
    cowd::overhead(plan.sectors()) * SECTOR + tables * table + grains
}

/// The most that a stream can take: data that does not shrink.
fn stream_size(plan: &Plan<'_>, data: &[GuestRange]) -> u64 {
    let grain = (limits::packed(GRAIN_SECTORS * SECTOR) + 12).div_ceil(SECTOR);
    let mut tables = 0;
    let mut last = None;
    let mut count = 0;
    for number in grains(data) {
        let table = number / u64::from(TABLE_ENTRIES);
        tables += u64::from(last.replace(table) != Some(table));
        count += 1;
    }
    let directory = 1 + (table_count(plan.sectors()) * ENTRY).div_ceil(SECTOR);
    // Behind the directory: the footer between its marker and the end of the stream.
    let sectors = GRAIN_SECTORS + count * grain + tables * (1 + TABLE_SECTORS) + directory + 3;
    sectors * SECTOR
}

/// The numbers of the grains that hold data, each once.
fn grains(data: &[GuestRange]) -> impl Iterator<Item = u64> + '_ {
    units(data, GRAIN_SECTORS * SECTOR)
}

/// The numbers of the units of `grain` bytes that hold data, each once.
fn units(data: &[GuestRange], grain: u64) -> impl Iterator<Item = u64> + '_ {
    let mut next = 0;
    data.iter().filter(|range| !range.is_empty()).flat_map(move |range| {
        let first = (range.start().get() / grain).max(next);
        let end = range.end().get().div_ceil(grain);
        next = end.max(next);
        first..end
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::GuestOffset;

    #[test]
    fn a_grain_that_two_ranges_touch_is_counted_once() {
        let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
        let data = [range(0, 1), range(5, 65536), range(65540, 2), range(1 << 20, 1)];
        assert_eq!(grains(&data).collect::<Vec<_>>(), [0, 1, 16]);
    }
}
