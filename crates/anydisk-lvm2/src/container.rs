//! The container: which members there are, and opening one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anydisk_core::{
    Changes, Container, ContainerRequest, Error, Limits, Member, Members, Result, Sample, Storage,
    Verdict, one_line,
};

use crate::build::{Builder, Found};
use crate::label::has_label;
use crate::scan::{Known, Scan, scan};
use crate::{NAME, label, listing};

/// LVM2 volume groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lvm2Container;

/// LVM2 volume groups, for a list of containers.
pub static LVM2: Lvm2Container = Lvm2Container;

impl Container for Lvm2Container {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let head = &sample.head[..sample.head.len().min(label::SEARCHED)];
        if has_label(head) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: ContainerRequest<'_>) -> Result<Box<dyn Members>> {
        let stores: Vec<_> = request.stores.iter().map(|file| Arc::clone(&file.store)).collect();
        Ok(Box::new(VolumeGroups::open(&stores, request.limits)?))
    }
}

/// A store, and its place among those given.
type PlacedStore = (usize, Arc<dyn Storage>);

/// The volume groups that a number of stores hold.
///
/// A volume's path is `group/volume`. Groups of the same name go by their UUIDs.
#[derive(Debug)]
pub struct VolumeGroups {
    groups: Vec<Known>,
    /// Index of the group and name of the volume, by path.
    volumes: HashMap<String, (usize, String)>,
    /// The stores of each physical volume, by identity, and their places among those given.
    devices: HashMap<String, Vec<PlacedStore>>,
    members: Vec<Member>,
    limits: Limits,
}

impl VolumeGroups {
    /// Reads the labels and texts of physical volumes (whole disks, or partitions), in any order.
    /// Stores without a label are passed over.
    ///
    /// # Errors
    /// What the stores say.
    pub fn open(stores: &[Arc<dyn Storage>], limits: &Limits) -> Result<Self> {
        let scan = scan(stores, limits)?;
        let mut devices: HashMap<String, Vec<_>> = HashMap::new();
        for device in &scan.devices {
            let stores = devices.entry(device.id.clone()).or_default();
            stores.push((device.index, Arc::clone(&device.store)));
        }
        let mut open = Self {
            volumes: HashMap::new(),
            devices,
            members: Vec::new(),
            limits: limits.clone(),
            groups: Vec::new(),
        };
        open.list(&scan);
        open.groups = scan.groups;
        Ok(open)
    }

    /// Which of the stores given is the physical volume at this path: several where it was copied,
    /// none where it is missing.
    pub fn places_of(&self, path: &str) -> impl Iterator<Item = usize> + '_ {
        self.devices.get(path).into_iter().flatten().map(|(index, _)| *index)
    }

    /// Names and UUIDs of the physical volumes that were not among the stores, with their groups.
    pub fn missing(&self) -> impl Iterator<Item = String> + '_ {
        self.groups.iter().flat_map(|known| {
            let devices = known.group.devices.iter().zip(&known.found);
            let missing = devices.filter(|(_, found)| matches!(found, Found::Missing));
            missing.map(|(device, _)| format!("{}/{} {}", known.group.name, device.name, device.id))
        })
    }

    fn volume(&self, path: &str) -> Result<(usize, &str)> {
        match self.volumes.get(path) {
            Some((index, name)) => Ok((*index, name)),
            None => Err(Error::NotFound { what: "member", name: path.to_owned() }),
        }
    }

    fn builder(&self, group: usize) -> Builder<'_> {
        self.groups[group].builder(&self.limits)
    }

    fn list(&mut self, scan: &Scan) {
        let unused = scan.unused();
        let names = listing::group_names(&scan.groups, &unused);
        for (index, (known, name)) in scan.groups.iter().zip(names).enumerate() {
            let group = &known.group;
            self.members.extend(listing::group_members(known, &name, &self.limits));
            for volume in listing::shown(group) {
                let path = listing::path(&name, volume);
                self.volumes.insert(path, (index, volume.name.clone()));
            }
        }
        self.members.extend(unused.iter().map(|device| listing::unused_member(device)));
        self.settle_members();
    }

    /// Notes are one line each. A physical volume that came before, in another group or on another
    /// disk, is told once more and opened by its first path.
    fn settle_members(&mut self) {
        let mut taken = HashSet::new();
        for (number, member) in self.members.iter_mut().enumerate() {
            member.note = member.note.take().map(|note| one_line(&note));
            if self.devices.get(&member.path).is_some_and(|stores| stores.len() > 1) {
                member.size = None;
            }
            if !taken.insert(member.path.clone()) {
                member.path = format!("{} ({number})", member.path);
                member.size = None;
            }
        }
    }
}

impl Members for VolumeGroups {
    fn members(&self) -> &[Member] {
        &self.members
    }

    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        if let Some([(_, store)]) = self.devices.get(path).map(Vec::as_slice) {
            return Ok(Arc::clone(store));
        }
        let (group, name) = self.volume(path)?;
        self.builder(group).open(name).map_err(|error| error.within(path))
    }

    /// Of two thin volumes of one pool, two classic snapshots of one origin, or a snapshot and its
    /// origin.
    fn changes(&self, since: &str, path: &str) -> Result<Box<dyn Changes + '_>> {
        let ((group, then), (other, now)) = (self.volume(since)?, self.volume(path)?);
        if group != other {
            let feature = format!("comparing {since} and {path}, of different groups,");
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        }
        match self.builder(group).changes(then, now) {
            Ok(changes) => Ok(changes),
            Err(error) => Err(error.within(path)),
        }
    }
}
