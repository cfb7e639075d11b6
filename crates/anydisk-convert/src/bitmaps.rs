//! Dirty bitmaps that go along with a copy.

use anydisk_core::{BitmapInfo, Bitmaps, Disk, Error as CoreError, Feature, NewBitmap};

use crate::{CopyBitmaps, Result, Sources};

/// Copies the dirty bitmaps of the source's top image into the target's, with names, granularities
/// and states. What is written to the target before is not recorded in them.
///
/// # Errors
/// [`Unsupported`](CoreError::Unsupported) if one of the two has no bitmaps;
/// [`Unusable`](CoreError::Unusable) for one that cannot be trusted, with [`CopyBitmaps::All`];
/// [`Exists`](CoreError::Exists).
pub fn copy_bitmaps(source: &Disk, target: &Disk, which: CopyBitmaps) -> Result<()> {
    if which == CopyBitmaps::No {
        return Ok(());
    }
    let (from, to) = (bitmaps_of(source)?, bitmaps_of(target)?);
    let mut list = from.list()?;
    match (which, list.iter().find(|one| one.inconsistent)) {
        (CopyBitmaps::All, Some(broken)) => return Err(refused(broken).into()),
        _ => list.retain(|one| !one.inconsistent),
    }
    list.iter().try_for_each(|one| copy_one(from, to, one))
}

/// The same of the only disk of `source`.
pub(crate) fn copy_bitmaps_of(
    source: &Sources<'_>,
    target: &Disk,
    which: CopyBitmaps,
) -> Result<()> {
    match source.only() {
        Some(source) => copy_bitmaps(source, target, which),
        None if which == CopyBitmaps::No => Ok(()),
        None => Err(no_bitmaps("several disks laid end to end").into()),
    }
}

fn copy_one(from: &dyn Bitmaps, to: &dyn Bitmaps, one: &BitmapInfo) -> Result<()> {
    let name = one.name.clone();
    to.add(&NewBitmap { name, granularity: Some(one.granularity), enabled: false })?;
    to.merge(&one.name, &mut *from.changes(&one.name)?)?;
    if one.enabled {
        to.set_enabled(&one.name, true)?;
    }
    Ok(())
}

fn bitmaps_of(disk: &Disk) -> Result<&dyn Bitmaps> {
    let format = || no_bitmaps(disk.top().info().format);
    Ok(disk.top().bitmaps().ok_or_else(format)?)
}

pub(crate) fn no_bitmaps(what: &'static str) -> CoreError {
    CoreError::Unsupported { format: what, feature: Feature::Bitmaps }
}

fn refused(broken: &BitmapInfo) -> CoreError {
    let why = "it was in use when its last writer ended without storing it".into();
    CoreError::Unusable { what: "bitmap", name: broken.name.clone(), why }
}
