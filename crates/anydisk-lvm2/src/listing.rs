//! What is told of a group, its devices and its volumes.

use std::collections::{HashMap, HashSet};

use anydisk_core::{Limits, Member};

use crate::build::{Builder, Found};
use crate::group::{Group, Volume};
use crate::partial::partial;
use crate::scan::{Known, Physical};
use crate::segment::{Kind, Snapshot};

/// The path of each group: its name, or its UUID where several have the name or a physical volume's
/// identity is the same. No two members have one path, and none is its own parent.
pub(crate) fn group_names(groups: &[Known], unused: &[&Physical]) -> Vec<String> {
    let devices = groups.iter().flat_map(|known| known.group.devices.iter().map(|one| &one.id));
    let mut taken: HashSet<&str> =
        devices.chain(unused.iter().map(|device| &device.id)).map(String::as_str).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for known in groups {
        *count.entry(&known.group.name).or_default() += 1;
    }
    let mut names = Vec::new();
    for (number, Known { group, .. }) in (1..).zip(groups) {
        let is_alone = count.get(group.name.as_str()) == Some(&1);
        let named = [Some(&group.name).filter(|_| is_alone), Some(&group.id)];
        let free = named.into_iter().flatten().find(|name| taken.insert(name));
        names.push(free.cloned().unwrap_or_else(|| format!("group {number}")));
    }
    names
}

/// All members of a group whose path is `name`: itself, its devices, its volumes.
pub(crate) fn group_members(known: &Known, name: &str, limits: &Limits) -> Vec<Member> {
    let mut members = vec![group_member(known, name)];
    members.extend(device_members(known, name));
    let volumes = VolumeNotes::of(known, limits);
    let volumes = shown(&known.group).map(|volume| volumes.member(volume, name));
    members.extend(volumes);
    members
}

/// The volumes that are listed.
pub(crate) fn shown(group: &Group) -> impl Iterator<Item = &Volume> {
    group.volumes.iter().filter(|volume| !volume.is_tie())
}

/// The path of a volume of the group that is called `group`.
pub(crate) fn path(group: &str, volume: &Volume) -> String {
    format!("{group}/{}", volume.name)
}

fn group_member(known: &Known, name: &str) -> Member {
    let mut member = Member::new(name, "volume group");
    let missing = known.found.iter().filter(|found| !matches!(found, Found::Here(_))).count();
    let mut notes = known.problems.clone();
    if name != known.group.name {
        notes.insert(0, format!("named {}", known.group.name));
    }
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
            if let Found::Here(store) = found {
                member.size = store.len().ok();
            }
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

/// A physical volume that no group names.
pub(crate) fn unused_member(device: &Physical) -> Member {
    let mut member = Member::new(device.id.clone(), "physical volume");
    member.size = device.store.len().ok();
    let why =
        if device.problems.is_empty() { "in no group".into() } else { device.problems.join("; ") };
    member.note = Some(format!("{}: {why}", device.store.name()));
    member
}

/// What the first blocks of a volume's own tables say against reading it.
fn read_note(builder: &mut Builder<'_>, volume: &Volume) -> Option<String> {
    let relations = &builder.group.relations;
    let name = &volume.name;
    if let Some(snapshot) = relations.snapshots.get(name).or_else(|| relations.merging.get(name)) {
        return builder.snapshot_note(snapshot);
    }
    match volume.only_kind() {
        Some(Kind::Thin(thin)) if !relations.thin_merging.contains_key(name) => {
            builder.thin_note(volume, thin)
        }
        _ => None,
    }
}

/// What is known of the volumes of a group beyond their text.
struct VolumeNotes<'k> {
    group: &'k Group,
    /// Those that a device which is not there is a part of.
    partial: HashSet<&'k str>,
    /// What is wrong with thin pools, by name.
    pools: HashMap<&'k str, String>,
    /// What was read of other volumes: why they cannot be opened, or are not what one expects.
    read: HashMap<&'k str, String>,
}

impl<'k> VolumeNotes<'k> {
    fn of(known: &'k Known, limits: &Limits) -> Self {
        let group = &known.group;
        let is_here: Vec<_> =
            known.found.iter().map(|found| matches!(found, Found::Here(_))).collect();
        let mut builder = known.builder(limits);
        let pools = group.volumes.iter().filter_map(|volume| match volume.only_kind() {
            Some(Kind::ThinPool(pool)) => {
                Some((volume.name.as_str(), builder.pool_note(&volume.name, pool)?))
            }
            _ => None,
        });
        let pools = pools.collect();
        let read = group.volumes.iter();
        let read =
            read.filter_map(|volume| Some((&*volume.name, read_note(&mut builder, volume)?)));
        let read = read.collect();
        Self { group, partial: partial(group, &is_here), pools, read }
    }

    fn member(&self, volume: &Volume, parent: &str) -> Member {
        let group = self.group;
        let snapshot = group.relations.snapshots.get(&volume.name);
        let kind = match (snapshot, group.relations.merging.get(&volume.name)) {
            (Some(_), _) => "snapshot".to_owned(),
            (_, Some(_)) => "merging origin".to_owned(),
            _ => volume.type_name(),
        };
        let kind = format!("logical volume ({kind})");
        let mut member = Member::new(path(parent, volume), kind);
        member.parent = Some(parent.to_owned());
        let shown = snapshot.map_or(Some(volume), |snapshot| group.volume(&snapshot.origin));
        member.size = shown.filter(|volume| volume.has_content()).and_then(Volume::size);
        member.note = match &volume.segments {
            Err(error) => Some(error.to_string()),
            Ok(_) => self.notes(volume, snapshot),
        };
        member
    }

    fn notes(&self, volume: &Volume, snapshot: Option<&Snapshot>) -> Option<String> {
        let mut notes = Vec::new();
        match snapshot {
            Some(snapshot) => notes.push(format!("of {}", snapshot.origin)),
            None if volume.is_hidden() => notes.push("hidden".to_owned()),
            None => {}
        }
        if let Some(merging) = self.group.relations.thin_merging.get(&volume.name) {
            notes.push(format!("reads as {merging}, which takes its place"));
        }
        if self.partial.contains(volume.name.as_str()) {
            notes.push("partial".to_owned());
        }
        notes.extend(self.pool_of(volume).cloned());
        notes.extend(self.read.get(volume.name.as_str()).cloned());
        notes.extend(volume.refusal());
        if !volume.tags.is_empty() {
            notes.push(format!("tags: {}", volume.tags.join(", ")));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// What is wrong with the pool that a volume is, or is in.
    fn pool_of(&self, volume: &Volume) -> Option<&String> {
        match volume.only_kind() {
            Some(Kind::ThinPool(_)) => self.pools.get(volume.name.as_str()),
            Some(Kind::Thin(thin)) => self.pools.get(thin.pool.as_str()),
            _ => None,
        }
    }
}
