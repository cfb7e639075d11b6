//! Which volumes lie, as a whole or with a part, on devices that are not there. Pure.

use std::collections::{HashMap, HashSet};

use crate::group::Group;

/// The volumes of a group that a device without `is_here` is a part of, by name. Such a volume may
/// still be whole for a reader: an array bears some loss.
pub(crate) fn partial<'g>(group: &'g Group, is_here: &[bool]) -> HashSet<&'g str> {
    let users = users(group);
    let gone = group.devices.iter().zip(is_here).filter(|(_, here)| !**here);
    let mut ahead: Vec<Part<'g>> = gone.map(|(device, _)| Part::Device(&device.name)).collect();
    let mut found = HashSet::new();
    while let Some(part) = ahead.pop() {
        for user in users.get(&part).into_iter().flatten() {
            if found.insert(*user) {
                ahead.push(Part::Volume(user));
            }
        }
    }
    found
}

/// What a volume may be made of: a name means a device if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part<'g> {
    Device(&'g str),
    Volume(&'g str),
}

/// The volumes that each part is used by.
fn users(group: &Group) -> HashMap<Part<'_>, Vec<&str>> {
    let mut users: HashMap<Part<'_>, Vec<&str>> = HashMap::new();
    let part = |name| match group.device(name) {
        Some(_) => Part::Device(name),
        None => Part::Volume(name),
    };
    for volume in &group.volumes {
        for kind in volume.segments.iter().flatten().filter_map(|one| one.kind.as_ref().ok()) {
            for name in kind.parts() {
                users.entry(part(name)).or_default().push(&volume.name);
            }
        }
    }
    // A snapshot is known by the name of its store, and what takes the place of another volume by
    // the name of that one.
    let relations = &group.relations;
    for snapshot in relations.snapshots.values() {
        users.entry(Part::Volume(&snapshot.origin)).or_default().push(&snapshot.store);
    }
    for snapshot in relations.merging.values() {
        users.entry(Part::Volume(&snapshot.store)).or_default().push(&snapshot.origin);
    }
    for (target, merging) in &relations.thin_merging {
        users.entry(Part::Volume(merging)).or_default().push(target);
    }
    users
}
