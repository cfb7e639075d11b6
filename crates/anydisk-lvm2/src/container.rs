//! The container: which members there are, and opening one.

use std::collections::HashMap;
use std::sync::Arc;

use anydisk_core::{
    Changes, Container, ContainerRequest, Error, Limits, Member, Members, Result, Sample, Storage,
    Verdict,
};

use crate::build::{Builder, Found};
use crate::group::{Group, Volume};
use crate::label::has_label;
use crate::scan::{Known, Physical, Scan, scan};
use crate::segment::Snapshot;
use crate::{NAME, label};

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

/// The volume groups that a number of stores hold.
///
/// A volume's path is `group/volume`. If two groups have the same name, that of the second is its
/// UUID.
#[derive(Debug)]
pub struct VolumeGroups {
    groups: Vec<Known>,
    /// Index of the group and name of the volume, by path.
    volumes: HashMap<String, (usize, String)>,
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
        let Scan { groups, unused } = scan(stores, limits)?;
        let mut open =
            Self { groups, volumes: HashMap::new(), members: Vec::new(), limits: limits.clone() };
        open.list();
        open.members.extend(unused.iter().map(unused_member));
        Ok(open)
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
        let known = &self.groups[group];
        Builder::new(&known.group, &known.found, &self.limits)
    }

    fn list(&mut self) {
        let mut names = Vec::new();
        for (index, known) in self.groups.iter().enumerate() {
            let group = &known.group;
            let name = match names.contains(&&group.name) {
                true => group.id.clone(),
                false => group.name.clone(),
            };
            names.push(&group.name);
            self.members.push(group_member(known, &name));
            self.members.extend(device_members(known, &name));
            for volume in group.volumes.iter().filter(|volume| !volume.is_tie()) {
                let path = format!("{name}/{}", volume.name);
                self.members.push(volume_member(group, volume, &path, &name));
                self.volumes.insert(path, (index, volume.name.clone()));
            }
        }
    }
}

fn group_member(known: &Known, name: &str) -> Member {
    let mut member = Member::new(name, "volume group");
    let missing = known.found.iter().filter(|found| !matches!(found, Found::Here(_))).count();
    let mut notes = known.problems.clone();
    if missing > 0 {
        let all = known.found.len();
        notes.insert(0, format!("{missing} of {all} physical volumes missing or ambiguous"));
    }
    member.note = (!notes.is_empty()).then(|| notes.join("; "));
    member
}

fn device_members(known: &Known, group: &str) -> Vec<Member> {
    let devices = known.group.devices.iter().zip(&known.found);
    devices
        .map(|(device, found)| {
            let mut member = Member::new(device.id.clone(), "physical volume");
            member.parent = Some(group.to_owned());

            member.note = Some(match found {
                Found::Here(store) if device.missing => {
                    format!("{}; the group went on without it", store.name())
                }
                Found::Here(store) => store.name().to_owned(),
                Found::Missing => "missing".to_owned(),
                Found::Twice => "two of the disks carry its identity".to_owned(),
            });
            member
        })
        .collect()
}

fn unused_member(device: &Physical) -> Member {
    let mut member = Member::new(device.id.clone(), "physical volume");
    let why =
        if device.problems.is_empty() { "in no group".into() } else { device.problems.join("; ") };
    member.note = Some(format!("{}: {why}", device.store.name()));
    member
}

fn volume_member(group: &Group, volume: &Volume, path: &str, parent: &str) -> Member {
    let snapshot = group.relations.snapshots.get(&volume.name);
    let kind = match (snapshot, group.relations.merging.get(&volume.name)) {
        (Some(_), _) => "snapshot".to_owned(),
        (_, Some(_)) => "merging origin".to_owned(),
        _ => volume.type_name(),
    };
    let mut member = Member::new(path, format!("logical volume ({kind})"));
    member.parent = Some(parent.to_owned());
    let shown = snapshot.map_or(Some(volume), |snapshot| group.volume(&snapshot.origin));
    member.size = shown.filter(|volume| volume.has_content()).and_then(Volume::size);
    member.note = match &volume.segments {
        Err(error) => Some(error.to_string()),
        Ok(_) => notes_of(volume, snapshot),
    };
    member
}

fn notes_of(volume: &Volume, snapshot: Option<&Snapshot>) -> Option<String> {
    let mut notes = Vec::new();
    match snapshot {
        Some(snapshot) => notes.push(format!("of {}", snapshot.origin)),
        None if volume.is_hidden() => notes.push("hidden".to_owned()),
        None => {}
    }
    if !volume.tags.is_empty() {
        notes.push(format!("tags: {}", volume.tags.join(", ")));
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

impl Members for VolumeGroups {
    fn members(&self) -> &[Member] {
        &self.members
    }

    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
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
