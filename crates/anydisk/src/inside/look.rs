//! Looking into files, partitions and volumes.

use std::path::Path;
use std::sync::Arc;

use anydisk_core::{Access, Container, Member, Members, Result, Sample, Storage, Verdict};
use anydisk_lvm2::{LVM2, VolumeGroups};
use anydisk_ovf::OVF;
use anydisk_partition::{PARTITIONS, Partitions};
use anydisk_storage::HostOffset;

use super::{Depth, Found, Inside, Open, Place, Spot};

impl Inside {
    /// Opens a file, as a package or as a disk. One that is said to have a format is a disk.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<()> {
        let file = self.options.file_at(path, Access::Read)?;
        let (open, members) = match self.options.said_format() {
            None if looks_like(&OVF, &*file.store)? => {
                let package = self.open_package(&file);
                let package = package.map_err(|error| error.within(&file.location.to_string()))?;
                let members = super::package::members_of(&package);
                (Open::Package(package), members)
            }
            _ => {
                let disk = self.options.located(file)?;
                let mut member = Member::new("", "disk");
                member.size = Some(disk.size());
                member.format = Some(disk.top().info().format.to_owned());
                (Open::Disk(Arc::new(disk)), vec![member])
            }
        };
        self.add(Found { open, members, under: None, over: Vec::new(), verify: Vec::new() });
        Ok(())
    }

    /// What may hold more, in a file that was given.
    pub(super) fn places_in(&mut self, file: usize, depth: Depth) -> Vec<Place> {
        match &self.found[file].open {
            Open::Disk(disk) => {
                let at = Spot { found: file, member: 0 };
                vec![Place { at, store: Arc::clone(disk) as Arc<dyn Storage>, verify: Vec::new() }]
            }
            Open::Package(_) if depth != Depth::Files => self.package_places(file, depth),
            _ => Vec::new(),
        }
    }

    /// Finds partitions, and the volume groups over all places.
    pub(super) fn look_into(&mut self, places: Vec<Place>, depth: Depth) -> Result<()> {
        let mut physical = Vec::new();
        for place in places {
            let partitions = self.add_partitions(&place)?;
            match partitions.is_empty() {
                // The system that partitioned a disk has overruled a label in front.
                true => physical.push(place),
                false if depth != Depth::Files => physical.extend(partitions),
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
                self.note(place.at, &error.to_string());
                return Ok(Vec::new());
            }
        };
        let (members, verify) = (table.members().to_vec(), place.verify.clone());
        let found = self.add(Found {
            open: Open::Partitions(table),
            members,
            under: Some(place.at),
            over: Vec::new(),
            verify: verify.clone(),
        });
        let Open::Partitions(table) = &self.found[found].open else { return Ok(Vec::new()) };
        let openable =
            table.members().iter().enumerate().filter(|(_, member)| member.size.is_some());
        let places = openable.filter_map(|(member, partition)| {
            let store = table.open(&partition.path).ok()?;
            Some(Place { at: Spot { found, member }, store, verify: verify.clone() })
        });
        Ok(places.collect())
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
                        self.note(place.at, &error.to_string());
                        false
                    }
                });
                self.groups_over(&physical)?
            }
        };
        // Which of the packages' disks a volume reads is not known: all are verified.
        let over = physical.iter().map(|place| place.at).collect();
        let verify = physical.into_iter().flat_map(|place| place.verify).collect();
        let members = groups.members().to_vec();
        self.add(Found { open: Open::Groups(groups), members, under: None, over, verify });
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
            self.note(place.at, &error.to_string());
            false
        })
    }
}

/// Whether a store looks like a part of a container.
fn looks_like(container: &dyn Container, store: &dyn Storage) -> Result<bool> {
    let mut head = vec![0; 8 << 10];
    let count = store.read_at(HostOffset::ZERO, &mut head)?;
    let sample = Sample { head: &head[..count], tail: &[], len: store.len()? };
    Ok(container.probe(&sample) >= Verdict::Likely)
}
