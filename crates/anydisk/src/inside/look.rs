//! Looking into files, partitions and volumes, and listing what is found.

use std::path::Path;
use std::sync::Arc;

use anydisk_core::{Access, Container, Member, Members, Result, Sample, Storage, Verdict};
use anydisk_lvm2::{LVM2, VolumeGroups};
use anydisk_ovf::OVF;
use anydisk_partition::{PARTITIONS, Partitions};
use anydisk_storage::HostOffset;

use super::{Inside, Open, Place};

impl Inside {
    /// Opens a file, as a package or as a disk, and lists it. What may hold more is answered.
    pub(super) fn add_file(&mut self, path: &Path, deep: bool) -> Result<Vec<Place>> {
        let file = self.options.file_at(path, Access::Read)?;
        let name = self.free_name(path);
        if looks_like(&OVF, &*file.store)? {
            return self.add_package(name, file, deep);
        }
        let disk = Arc::new(self.options.located(file)?);
        let format = disk.top().info().format;
        let mut member = Member::new(name.clone(), "disk");
        (member.size, member.format) = (Some(disk.size()), Some(format.to_owned()));
        self.add(member, Open::Disk(Arc::clone(&disk)), &name);
        Ok(vec![Place { name, store: disk, verify: Vec::new() }])
    }

    /// Lists partitions, and the volume groups over all places.
    pub(super) fn look_into(&mut self, places: Vec<Place>, deep: bool) -> Result<()> {
        let mut physical = Vec::new();
        for place in places {
            let partitions = self.add_partitions(&place)?;
            match partitions.is_empty() {
                // The system that partitioned a disk has overruled a label in front.
                true => physical.push(place),
                false if deep => physical.extend(partitions),
                false => {}
            }
        }
        self.add_groups(physical)
    }

    fn add_partitions(&mut self, place: &Place) -> Result<Vec<Place>> {
        if !self.looks_like(&PARTITIONS, place) {
            return Ok(Vec::new());
        }
        let limits = self.options.limits_in_force();
        let table = match Partitions::open(Arc::clone(&place.store), limits) {
            Ok(table) => table,
            Err(error) => {
                self.note(&place.name, &error.to_string());
                return Ok(Vec::new());
            }
        };
        let number = self.containers.len();
        let mut places = Vec::new();
        for member in table.members() {
            let name = format!("{}/{}", place.name, member.path);
            self.list(number, member, &name, &place.name, place.verify.clone());
            if let (Some(_), Ok(store)) = (member.size, table.open(&member.path)) {
                places.push(Place { name, store, verify: place.verify.clone() });
            }
        }
        self.containers.push(Open::Partitions(table));
        Ok(places)
    }

    /// Volume groups may lie over any of the places.
    fn add_groups(&mut self, places: Vec<Place>) -> Result<()> {
        let mut physical = Vec::new();
        for place in places {
            if self.looks_like(&LVM2, &place) {
                physical.push(place);
            }
        }
        if physical.is_empty() {
            return Ok(());
        }
        let groups = match self.groups_over(&physical) {
            Ok(groups) => groups,
            // Those that are not broken by themselves are looked at without the others.
            Err(_) => {
                physical.retain(|place| match self.groups_over(std::slice::from_ref(place)) {
                    Ok(_) => true,
                    Err(error) => {
                        self.note(&place.name, &error.to_string());
                        false
                    }
                });
                self.groups_over(&physical)?
            }
        };
        // Which of the packages' disks a volume reads is not known: all are verified.
        let verify: Vec<_> = physical.into_iter().flat_map(|place| place.verify).collect();
        let number = self.containers.len();
        for member in groups.members() {
            self.list(number, member, &member.path, "", verify.clone());
        }
        self.containers.push(Open::Groups(groups));
        Ok(())
    }

    fn groups_over(&self, places: &[Place]) -> Result<VolumeGroups> {
        let stores: Vec<_> = places.iter().map(|place| Arc::clone(&place.store)).collect();
        VolumeGroups::open(&stores, self.options.limits_in_force())
    }

    /// Whether a place looks like a part of a container. Of one that cannot be read that is told, and
    /// the others are looked at.
    fn looks_like(&mut self, container: &dyn Container, place: &Place) -> bool {
        looks_like(container, &*place.store).unwrap_or_else(|error| {
            self.note(&place.name, &error.to_string());
            false
        })
    }

    /// The last part of a path, or the whole where that is taken.
    fn free_name(&self, path: &Path) -> String {
        let short = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let short = short.filter(|name| !self.entries.contains_key(name));
        short.unwrap_or_else(|| path.display().to_string())
    }
}

/// Whether a store looks like a part of a container.
fn looks_like(container: &dyn Container, store: &dyn Storage) -> Result<bool> {
    let mut head = vec![0; 8 << 10];
    let count = store.read_at(HostOffset::ZERO, &mut head)?;
    let sample = Sample { head: &head[..count], tail: &[], len: store.len()? };
    Ok(container.probe(&sample) >= Verdict::Likely)
}
