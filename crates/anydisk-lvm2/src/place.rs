//! Areas of segments: found on their devices or in their volumes, and known to be there.

use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Invalid, Result, Storage, Value};

use crate::build::{Builder, Found, Role, View};
use crate::group::Device;
use crate::plain::Part;
use crate::segment::Area;
use crate::text::invalid;

impl Builder<'_> {
    /// The `len` bytes of an area, known to be there.
    pub(crate) fn part(&mut self, area: &Area, len: u64, role: Role) -> Result<Part> {
        match self.group.device(&area.on) {
            Some(index) => self.part_of_device(index, area, len, role),
            None => self.part_of_volume(area, len, role),
        }
    }

    fn part_of_device(&self, index: usize, area: &Area, len: u64, role: Role) -> Result<Part> {
        let device = &self.group.devices[index];
        if device.missing && role == Role::Leg {
            return Err(device_error(device, "the group went on without it"));
        }
        let store = self.store_of(index)?;
        let last = area.extent.checked_add(len / self.group.extent);
        let place = area.extent.checked_mul(self.group.extent);
        let place = place.and_then(|place| place.checked_add(device.start));
        match (last.filter(|last| *last <= device.extents), place) {
            (Some(_), Some(place)) => part(store, area, place, len),
            _ => Err(outside(area, &format!("inside the {} extents", device.extents)).into()),
        }
    }

    fn store_of(&self, index: usize) -> Result<&Arc<dyn Storage>> {
        match self.devices.get(index) {
            Some(Found::Here(store)) => Ok(store),
            Some(Found::Twice) => Err(device_error(
                &self.group.devices[index],
                "two of the disks given carry its identity",
            )),
            _ => Err(device_error(&self.group.devices[index], "it is not among the disks given")),
        }
    }

    fn part_of_volume(&mut self, area: &Area, len: u64, role: Role) -> Result<Part> {
        let store = self.volume(&area.on, View::Raw, role)?;
        match area.extent.checked_mul(self.group.extent) {
            Some(place) => part(&store, area, place, len),
            None => Err(outside(area, "inside its volume").into()),
        }
    }
}

/// The whole of a volume, known to have at least `len` bytes.
pub(crate) fn whole(store: &Arc<dyn Storage>, name: &str, len: u64) -> Result<Part> {
    part(store, &Area { on: name.to_owned(), extent: 0 }, 0, len)
}

/// The `len` bytes of `store` at `place`, if it reaches that far.
fn part(store: &Arc<dyn Storage>, area: &Area, place: u64, len: u64) -> Result<Part> {
    let size = store.len()?;
    match place.checked_add(len) {
        Some(end) if end <= size => Ok(Part { store: Arc::clone(store), at: HostOffset(place) }),
        _ => Err(outside(area, &format!("inside the {size} bytes of {}", store.name())).into()),
    }
}

fn outside(area: &Area, expected: &str) -> Invalid {
    let found = Value::Text(format!("{} at extent {}", area.on, area.extent).into_bytes());
    invalid("area of a segment", 0, found, expected.to_owned())
}

fn device_error(device: &Device, why: &'static str) -> Error {
    let name = format!("{} {}", device.name, device.id);
    Error::Unusable { what: "physical volume", name, why: why.into() }
}
