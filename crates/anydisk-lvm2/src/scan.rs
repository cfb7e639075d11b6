//! Finding physical volumes among stores, and the groups they belong to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Limits, Result, Storage, StorageExt};

use crate::area::place_of_text;
use crate::build::{Builder, Found};
use crate::group::Group;
use crate::label::{Label, SEARCHED};
use crate::{checksum, limits, text};

/// A store with the label of a physical volume.
#[derive(Clone, Debug)]
pub(crate) struct Physical {
    pub(crate) id: String,
    /// Which of the stores it is.
    pub(crate) index: usize,
    pub(crate) store: Arc<dyn Storage>,
    /// What is wrong with its metadata areas; another copy may serve.
    pub(crate) problems: Vec<String>,
}

/// A group with what was found of its devices.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) group: Group,
    /// In the order of the group's devices.
    pub(crate) found: Vec<Found>,
    /// What is wrong with copies of its text that were not needed.
    pub(crate) problems: Vec<String>,
}

impl Known {
    /// Opens its volumes.
    pub(crate) fn builder<'a>(&'a self, limits: &'a Limits) -> Builder<'a> {
        Builder::new(&self.group, &self.found, limits)
    }
}

/// What a set of stores holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) groups: Vec<Known>,
    /// All physical volumes.
    pub(crate) devices: Vec<Physical>,
}

/// Reads the labels of all stores, which may be of several groups, and then the texts.
///
/// # Errors
/// What the stores say. A store without a label is passed over, a broken copy of a text is a
/// problem to be told.
pub(crate) fn scan(stores: &[Arc<dyn Storage>], limits: &Limits) -> Result<Scan> {
    let mut labels = Vec::new();
    for (index, store) in stores.iter().enumerate() {
        let mut head = [0; SEARCHED];
        store.read_padded_at(HostOffset::ZERO, &mut head)?;
        if let Some(label) = Label::find(&head)? {
            labels.push((index, Arc::clone(store), label));
        }
    }
    let mut texts = Texts::new(limits);
    let mut devices = Vec::new();
    for (index, store, label) in labels {
        let problems = texts.of_device(&store, &label)?;
        devices.push(Physical { id: label.id, index, store, problems });
    }
    Ok(settle(texts.newest, devices))
}

/// The newest text of each group. What is read is bounded however many labels there are, and however
/// many of them lie over each other.
struct Texts<'a> {
    limits: &'a Limits,
    /// Bytes that may still be read.
    left: u64,
    /// Texts that were read and good, by device, checksum and length: another store of that device
    /// with such a text is a copy.
    read: HashSet<(String, u32, u64)>,
    /// Texts by checksum and length, so that the many copies of one are parsed once.
    seen: HashSet<(u32, usize)>,
    newest: Vec<Group>,
}

impl<'a> Texts<'a> {
    fn new(limits: &'a Limits) -> Self {
        let (read, seen, newest) = (HashSet::new(), HashSet::new(), Vec::new());
        Self { limits, left: limits::texts(limits), read, seen, newest }
    }

    /// Reads the texts of a device. What is wrong with them; another copy may serve.
    fn of_device(&mut self, store: &Arc<dyn Storage>, label: &Label) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for &(at, size) in label.areas.iter().take(limits::AREAS) {
            match self.of_area(&**store, &label.id, at, size) {
                Ok(()) => {}
                Err(error @ (Error::Invalid(_) | Error::Limit { .. })) => {
                    problems.push(error.to_string());
                }
                // The area lies behind the end of the store.
                Err(Error::Storage(error @ anydisk_storage::Error::OutOfRange { .. })) => {
                    problems.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let (found, most) = (label.areas.len(), limits::AREAS);
        if found > most {
            problems.push(format!("{found} metadata areas, of which {most} count"));
        }
        Ok(problems)
    }

    fn of_area(
        &mut self,
        store: &dyn Storage,
        device: &str,
        at: HostOffset,
        size: u64,
    ) -> Result<()> {
        let Some(place) = place_of_text(store, at, size, self.limits)? else { return Ok(()) };
        let known = (device.to_owned(), place.checksum, place.len);
        if self.read.contains(&known) {
            return Ok(());
        }
        let all = limits::texts(self.limits);
        let found = (all - self.left).saturating_add(place.len);
        limits::check("bytes of all texts of volume groups", found, all)?;
        self.left -= place.len;
        self.take(&place.read(store)?)?;
        self.read.insert(known);
        Ok(())
    }

    /// Keeps the group of a text if it is the newest one of that group.
    fn take(&mut self, text: &[u8]) -> Result<()> {
        if !self.seen.insert((checksum::lvm(text), text.len())) {
            return Ok(());
        }
        let group = Group::parse(&text::parse(text)?)?;
        match self.newest.iter_mut().find(|known| known.id == group.id) {
            Some(known) if known.seqno >= group.seqno => {}
            Some(known) => *known = group,
            None => self.newest.push(group),
        }
        Ok(())
    }
}

/// Gives each group its devices.
fn settle(groups: Vec<Group>, devices: Vec<Physical>) -> Scan {
    let mut by_id: HashMap<&str, Vec<&Physical>> = HashMap::new();
    for device in &devices {
        by_id.entry(&device.id).or_default().push(device);
    }
    let mut known = Vec::new();
    for group in groups {
        let of = |id: &str| by_id.get(id).map_or(&[][..], Vec::as_slice);
        let found = group.devices.iter().map(|device| match of(&device.id) {
            [] => Found::Missing,
            [one] => Found::Here(Arc::clone(&one.store)),
            _ => Found::Twice,
        });
        let found = found.collect();
        let problems = group.devices.iter().flat_map(|device| of(&device.id));
        let problems = problems.flat_map(|device| device.problems.iter().cloned()).collect();
        known.push(Known { found, problems, group });
    }
    Scan { groups: known, devices }
}

impl Scan {
    /// Physical volumes that no group names.
    pub(crate) fn unused(&self) -> Vec<&Physical> {
        let devices = self.groups.iter().flat_map(|known| &known.group.devices);
        let named: HashSet<&str> = devices.map(|device| device.id.as_str()).collect();
        self.devices.iter().filter(|device| !named.contains(device.id.as_str())).collect()
    }
}
