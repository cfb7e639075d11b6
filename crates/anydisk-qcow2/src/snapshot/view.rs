//! A snapshot as an image of its own, without applying it, and the machine state kept with it.

use std::sync::Arc;

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Image, ImageInfo, Lookup, Need, Result, Source,
    Supplied, invalid_field,
};

use super::table::Entry;
use crate::image::{Shared, Stores};
use crate::layout::RawSnapshot;
use crate::table::Geometry;
use crate::{Header, NAME, limits};

/// Keeps a snapshot from being deleted while it lives.
pub(crate) type Pin = Arc<()>;

/// A snapshot, read-only.
#[derive(Debug)]
pub(crate) struct SnapshotImage {
    shared: Shared,
    _pin: Pin,
}

impl SnapshotImage {
    /// The snapshot of `entry`, in an image with this header.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Limit`] for an L1 table that cannot be one of this disk.
    pub(crate) fn open(image: &Shared, header: &Header, entry: &Entry, pin: Pin) -> Result<Self> {
        let size = entry.size().unwrap_or(header.size);
        let shared = shared_of(image, header, entry, size)?;
        Ok(Self { shared, _pin: pin })
    }
}

/// The tables of a snapshot, as those of a disk of `size` bytes.
fn shared_of(image: &Shared, header: &Header, entry: &Entry, size: u64) -> Result<Shared> {
    let mut header = header.clone();
    header.size = size;
    header.l1_size = entry.raw.l1_size.get();
    header.l1_table_offset = check_l1(&header, entry)?;
    let stores = Stores::of_one(Arc::clone(&image.store));
    Ok(Shared {
        // Nothing that a snapshot names is freed while it is open.
        frees: false,
        data: Arc::clone(&image.data),
        view: image.view.clone(),
        luks: image.luks.clone(),
        ..Shared::new(stores, header, &image.limits)
    })
}

/// Where the L1 table of a snapshot is, if it can be there and maps the disk.
pub(crate) fn check_l1(header: &Header, entry: &Entry) -> Result<HostOffset> {
    let (at, l1_size) = (HostOffset(entry.raw.l1_table_offset.get()), entry.raw.l1_size.get());
    if l1_size > limits::L1_ENTRIES {
        let what = "L1 table of a snapshot, in entries".into();
        let (found, limit) = (l1_size.into(), limits::L1_ENTRIES.into());
        return Err(Error::Limit { format: NAME, what, found, limit });
    }
    let cluster = header.cluster_size();
    let end = at.checked_add(u64::from(l1_size) * 8);
    if !at.is_aligned(cluster) || end.is_none_or(|end| end.get() > limits::OFFSET) {
        let expected = format!("a multiple of the cluster size ({cluster:#x})");
        return Err(
            invalid_field!(NAME, entry.at => RawSnapshot, l1_table_offset, at, "{expected}").into(),
        );
    }
    let size = entry.size().unwrap_or(header.size);
    let needed = size.div_ceil(1 << Geometry::new(header).l2_coverage_bits());
    if size > limits::OFFSET || u64::from(l1_size) < needed {
        let expected = format!("at least {needed} for a disk of {size} bytes");
        return Err(
            invalid_field!(NAME, entry.at => RawSnapshot, l1_size, l1_size, "{expected}").into()
        );
    }
    Ok(at)
}

impl Image for SnapshotImage {
    fn size(&self) -> u64 {
        self.shared.size()
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        self.shared.map_cached(range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.shared.supply(need, bytes))
    }

    fn info(&self) -> ImageInfo {
        self.shared.info(&self.shared.header, &[])
    }
}

/// The machine state of a snapshot, which its tables map behind the disk.
#[derive(Debug)]
pub(crate) struct MachineState {
    shared: Shared,
    /// Where it begins.
    base: u64,
    len: u64,
    _pin: Pin,
}

impl MachineState {
    /// The machine state of the snapshot of `entry`; `None` if it has none.
    ///
    /// # Errors
    /// As [`SnapshotImage::open`]; [`Error::Invalid`] if the tables do not reach its end.
    pub(crate) fn open(
        image: &Shared,
        header: &Header,
        entry: &Entry,
        pin: Pin,
    ) -> Result<Option<Self>> {
        let len = entry.vm_state_size();
        if len == 0 {
            return Ok(None);
        }
        check_l1(header, entry)?;
        let bits = Geometry::new(header).l2_coverage_bits();
        let base = entry.size().unwrap_or(header.size).div_ceil(1 << bits) << bits;
        let l1_size = entry.raw.l1_size.get();
        let mapped = (u64::from(l1_size) << bits) - base;
        if len > mapped {
            let expected = format!("at most {mapped}, as {l1_size} L1 entries map");
            return Err(invalid_field!(
                NAME,
                entry.at => RawSnapshot,
                vm_state_size,
                len,
                "{expected}"
            )
            .into());
        }
        let shared = shared_of(image, header, entry, base + len)?;
        Ok(Some(Self { shared, base, len, _pin: pin }))
    }
}

impl Image for MachineState {
    fn size(&self) -> u64 {
        self.len
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let moved = |at: GuestOffset| GuestOffset(at.get() + self.base);
        let there = GuestRange::between(moved(range.start()), moved(range.end()));
        let mut extent = match self.shared.map_cached(there)? {
            Lookup::Found(extent) => extent,
            need @ Lookup::Need(_) => return Ok(need),
        };
        match &mut extent.source {
            // Nothing lies below the state of a machine.
            Source::Absent { reserved } => extent.source = Source::Zero { reserved: *reserved },
            Source::Encoded(encoded) => {
                let back = |at: GuestOffset| GuestOffset(at.get() - self.base);
                let unit = encoded.unit;
                encoded.unit = GuestRange::between(back(unit.start()), back(unit.end()));
            }
            _ => {}
        }
        Ok(Lookup::Found(extent))
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.shared.supply(need, bytes))
    }

    fn info(&self) -> ImageInfo {
        self.shared.info(&self.shared.header, &[])
    }
}
