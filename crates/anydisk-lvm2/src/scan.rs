//! Finding physical volumes among stores, and the groups they belong to.

use std::collections::HashMap;
use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Limits, Result, Storage, StorageExt};

use crate::area::read_text;
use crate::build::{Builder, Found};
use crate::group::Group;
use crate::label::{Label, SEARCHED};
use crate::{checksum, text};

/// A store with the label of a physical volume.
#[derive(Clone, Debug)]
pub(crate) struct Physical {
    pub(crate) id: String,
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
    /// Physical volumes that no group names.
    pub(crate) unused: Vec<Physical>,
}

/// Texts by checksum and length, so that the many copies of one are parsed once.
#[derive(Default)]
struct Texts {
    seen: HashMap<(u32, usize), ()>,
    newest: Vec<Group>,
}

/// Reads the labels and texts of all stores, which may be of several groups.
///
/// # Errors
/// What the stores say. A store without a label is passed over, a broken copy of a text is a
/// problem to be told.
pub(crate) fn scan(stores: &[Arc<dyn Storage>], limits: &Limits) -> Result<Scan> {
    let mut devices = Vec::new();
    let mut texts = Texts::default();
    for store in stores {
        let mut head = [0; SEARCHED];
        store.read_padded_at(HostOffset::ZERO, &mut head)?;
        if let Some(label) = Label::find(&head)? {
            devices.push(physical(store, label, &mut texts, limits)?);
        }
    }
    Ok(settle(texts.newest, devices))
}

fn physical(
    store: &Arc<dyn Storage>,
    label: Label,
    texts: &mut Texts,
    limits: &Limits,
) -> Result<Physical> {
    let mut problems = Vec::new();
    for (at, size) in label.areas {
        match read_text(&**store, at, size, limits).and_then(|text| texts.take(text)) {
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
    Ok(Physical { id: label.id, store: Arc::clone(store), problems })
}

impl Texts {
    /// Keeps the group of a text if it is the newest one of that group.
    fn take(&mut self, text: Option<Vec<u8>>) -> Result<()> {
        let Some(text) = text else { return Ok(()) };
        if self.seen.insert((checksum::lvm(&text), text.len()), ()).is_some() {
            return Ok(());
        }
        let group = Group::parse(&text::parse(&text)?)?;
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
    let named = |id: &str| {
        known.iter().any(|known| known.group.devices.iter().any(|device| device.id == id))
    };
    let unused = devices.iter().filter(|device| !named(&device.id)).cloned().collect();
    Scan { groups: known, unused }
}
