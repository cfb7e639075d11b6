//! What a file holds of what its tables name: of a file that was cut off, less than all.

use anydisk_storage::{HostOffset, Storage};

use crate::disk::Padding;
use crate::{DiskExtent, Encoded, Error, Invalid, Layer, Need, Result, Source, Value};

/// That the file holds all of a table that is to be read.
pub(crate) fn check_table(layer: &Layer, need: &Need<'_>) -> Result<()> {
    let end = need.store.len()?;
    if need.at.get().saturating_add(need.least as u64) <= end {
        return Ok(());
    }
    Err(cut(layer, "table", need.at, end))
}

/// As much of the start of an extent as the file holds.
pub(crate) fn first_part<'a>(
    layers: &[Layer],
    mut found: DiskExtent<'a>,
    padding: Padding,
) -> Result<DiskExtent<'a>> {
    let (store, at, name) = match &found.extent.source {
        Source::Data { store, at, .. } => (*store, *at, "data"),
        Source::Encoded(encoded) => (encoded.store, encoded.at, "packed data"),
        Source::Zero { .. } | Source::Absent { .. } => return Ok(found),
    };
    let end = store.len()?;
    if at.get().saturating_add(found.extent.len) <= end {
        return Ok(found);
    }
    let layer = &layers[found.layer];
    let held = match found.extent.source {
        Source::Encoded(_) if at.get() < end => found.extent.len,
        Source::Encoded(_) => 0,
        _ => {
            let end = if padding == Padding::LastUnit { loose_end(layer, end) } else { end };
            end.saturating_sub(at.get()).min(found.extent.len)
        }
    };
    if held == 0 {
        return Err(cut(layer, name, at, end));
    }
    found.extent.len = held;
    Ok(found)
}

/// As many of the packed bytes of a unit as the file holds; `None` if it holds all.
pub(crate) fn packed<'b>(encoded: &Encoded<'_>, bytes: &'b [u8]) -> Result<Option<&'b [u8]>> {
    let held = encoded.store.len()?.saturating_sub(encoded.at.get());
    Ok(usize::try_from(held).ok().and_then(|held| bytes.get(..held)))
}

/// Where the file ends with the zeroes that its format lets a writer leave out.
fn loose_end(layer: &Layer, end: u64) -> u64 {
    let unit = layer.image.info().loose_end.max(1);
    end.checked_next_multiple_of(unit).unwrap_or(end)
}

#[cold]
fn cut(layer: &Layer, name: &'static str, at: HostOffset, end: u64) -> Error {
    Invalid {
        format: layer.image.info().format,
        field: name.into(),
        at,
        found: Value::Missing,
        expected: format!("it before the end of the file at {end:#x}").into(),
    }
    .into()
}
