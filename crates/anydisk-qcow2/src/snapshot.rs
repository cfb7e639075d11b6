//! Internal snapshots (qcow2, "Snapshots").

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anydisk_core::{
    Error, Image, NewSnapshot, Result, SnapshotInfo, SnapshotRef, Snapshots, Storage,
};
use anydisk_storage::name;

use crate::image::Shared;
use crate::write::WritableImage;
use crate::{Header, Qcow2Image};

mod change;
pub(crate) mod table;
mod view;

use table::Entry;
pub(crate) use table::walk;
use view::{MachineState, Pin, SnapshotImage};

/// Walks the snapshot table and refuses what nobody could walk.
///
/// # Errors
/// As [`walk`].
pub(crate) fn check_table(store: &dyn Storage, header: &Header) -> Result<()> {
    walk(store, header, |_, _| Ok(())).map(drop)
}

/// Snapshots that are open, by their IDs.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    open: Mutex<Vec<(Vec<u8>, Weak<()>)>>,
}

impl Pins {
    fn pin(&self, entry: &Entry) -> Pin {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, pin)| pin.strong_count() > 0);
        let pin = Pin::default();
        open.push((entry.id.clone(), Arc::downgrade(&pin)));
        pin
    }

    /// Whether any snapshot is open.
    pub(crate) fn is_any_open(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().any(|(_, pin)| pin.strong_count() > 0)
    }

    fn is_open(&self, entry: &Entry) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().any(|(id, pin)| *id == entry.id && pin.strong_count() > 0)
    }
}

/// The entry that is meant, of a disk of `size` bytes.
fn find<'e>(entries: &'e [Entry], which: &SnapshotRef, size: u64) -> Result<&'e Entry> {
    let list: Vec<_> = entries.iter().map(|entry| entry.info(size)).collect();
    let found = which.find(&list).and_then(|index| entries.get(index));
    found.ok_or_else(|| Error::NotFound { what: "snapshot", name: which.text().to_owned() })
}

fn list(shared: &Shared, header: &Header) -> Result<Vec<SnapshotInfo>> {
    let entries = table::read(&*shared.store, header)?;
    Ok(entries.iter().map(|entry| entry.info(shared.size())).collect())
}

fn read_only() -> Error {
    Error::ReadOnly { why: "it was opened for reading".into() }
}

impl Snapshots for Qcow2Image {
    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        list(&self.shared, &self.shared.header)
    }

    fn open(&self, which: &SnapshotRef) -> Result<Arc<dyn Image>> {
        let shared = &self.shared;
        let entries = table::read(&*shared.store, &shared.header)?;
        let entry = find(&entries, which, shared.size())?;
        Ok(Arc::new(SnapshotImage::open(shared, &shared.header, entry, Pin::default())?))
    }

    fn vm_state(&self, which: &SnapshotRef) -> Result<Option<Arc<dyn Image>>> {
        let shared = &self.shared;
        let entries = table::read(&*shared.store, &shared.header)?;
        let entry = find(&entries, which, shared.size())?;
        let state = MachineState::open(shared, &shared.header, entry, Pin::default())?;
        Ok(state.map(|state| -> Arc<dyn Image> { Arc::new(state) }))
    }

    fn create(&self, _: &NewSnapshot) -> Result<SnapshotInfo> {
        Err(read_only())
    }

    fn apply(&self, _: &SnapshotRef) -> Result<()> {
        Err(read_only())
    }

    fn delete(&self, _: &SnapshotRef) -> Result<()> {
        Err(read_only())
    }

    fn rename(&self, _: &SnapshotRef, _: &str) -> Result<()> {
        Err(read_only())
    }
}

impl WritableImage {
    /// After an error, gives what was taken back on the medium too.
    fn or_undone<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|_| {
            // The error is what is to be told; where this fails too, some space is lost.
            let _ = self.write_back();
        })
    }

    fn check_unused(&self, entry: &Entry) -> Result<()> {
        if !self.pins.is_open(entry) {
            return Ok(());
        }
        let name = name::shown(&entry.name).into_owned();
        Err(Error::Unusable { what: "snapshot", name, why: "it is open".into() })
    }
}

impl Snapshots for WritableImage {
    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let _turn = self.turns.take();
        list(&self.shared, &self.live.with(Clone::clone))
    }

    fn open(&self, which: &SnapshotRef) -> Result<Arc<dyn Image>> {
        let _turn = self.turns.take();
        let header = self.live.with(Clone::clone);
        let entries = table::read(&*self.shared.store, &header)?;
        let entry = self.find(&entries, which)?;
        let pin = self.pins.pin(entry);
        Ok(Arc::new(SnapshotImage::open(&self.shared, &header, entry, pin)?))
    }

    fn vm_state(&self, which: &SnapshotRef) -> Result<Option<Arc<dyn Image>>> {
        let _turn = self.turns.take();
        let header = self.live.with(Clone::clone);
        let entries = table::read(&*self.shared.store, &header)?;
        let entry = self.find(&entries, which)?;
        let state = MachineState::open(&self.shared, &header, entry, self.pins.pin(entry))?;
        Ok(state.map(|state| -> Arc<dyn Image> { Arc::new(state) }))
    }

    fn create(&self, new: &NewSnapshot) -> Result<SnapshotInfo> {
        self.or_undone(self.create_snapshot(new))
    }

    fn apply(&self, which: &SnapshotRef) -> Result<()> {
        self.or_undone(self.apply_snapshot(which))
    }

    fn delete(&self, which: &SnapshotRef) -> Result<()> {
        self.or_undone(self.delete_snapshot(which))
    }

    fn rename(&self, which: &SnapshotRef, name: &str) -> Result<()> {
        self.or_undone(self.rename_snapshot(which, name))
    }
}
