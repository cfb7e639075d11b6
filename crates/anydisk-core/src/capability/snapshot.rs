//! States of a disk that an image keeps beside the active one.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Image, Result};

/// The snapshots inside one image.
///
/// All methods take `&self` and may run while other threads read and write the disk: an operation
/// waits for writes in flight, and what was written before it began belongs to the snapshot. After
/// an error the image is as it was. Nothing is durable before it returns, all of it is after.
pub trait Snapshots: Sync {
    /// All snapshots, in the order of the image's table.
    fn list(&self) -> Result<Vec<SnapshotInfo>>;

    /// A snapshot as an image of its own, read-only. What lies below is not in it: a disk with the
    /// layers below is [`Disk::at_snapshot`](crate::Disk::at_snapshot). While it is open the snapshot
    /// can be neither deleted nor changed.
    fn open(&self, which: &SnapshotRef) -> Result<Arc<dyn Image>>;

    /// The state of a machine that is kept with a snapshot, as an image; `None` if there is none.
    /// While it is open the snapshot can be neither deleted nor changed.
    fn vm_state(&self, which: &SnapshotRef) -> Result<Option<Arc<dyn Image>>>;

    /// Keeps the present state of the disk, and returns what was recorded.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) where no more fit.
    fn create(&self, new: &NewSnapshot) -> Result<SnapshotInfo>;

    /// Makes the disk what it was. What was written since the last snapshot is lost.
    fn apply(&self, which: &SnapshotRef) -> Result<()>;

    /// Forgets a snapshot and gives its space back.
    fn delete(&self, which: &SnapshotRef) -> Result<()>;

    /// Gives a snapshot another name.
    fn rename(&self, which: &SnapshotRef, name: &str) -> Result<()>;
}

/// Which snapshot is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotRef {
    /// The one with this ID, else the first of this name: what people type.
    IdOrName(String),
    /// The one with this ID.
    Id(String),
    /// The first of this name.
    Name(String),
    /// The one with this ID, if it also has this name.
    IdAndName {
        /// The ID.
        id: String,
        /// The name.
        name: String,
    },
}

impl From<&str> for SnapshotRef {
    /// As people type it: an ID or a name.
    fn from(text: &str) -> Self {
        Self::IdOrName(text.to_owned())
    }
}

impl SnapshotRef {
    /// Position of the snapshot meant in a list of snapshots.
    #[must_use]
    pub fn find(&self, list: &[SnapshotInfo]) -> Option<usize> {
        let by_id = |id: &str| list.iter().position(|one| one.id == id);
        let by_name = |name: &str| list.iter().position(|one| one.name == name);
        match self {
            Self::Id(id) => by_id(id),
            Self::Name(name) => by_name(name),
            Self::IdOrName(text) => by_id(text).or_else(|| by_name(text)),
            Self::IdAndName { id, name } => {
                list.iter().position(|one| one.id == *id && one.name == *name)
            }
        }
    }

    /// The text it was given as.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::IdOrName(text) => text,
            Self::Name(text) | Self::IdAndName { name: text, .. } => text,
        }
    }
}

/// What is known of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The image's own name for it, unique; as [text](anydisk_storage::name), like its name.
    pub id: String,
    /// The name given by a person; not unique, and without loss if its bytes are no
    /// [text](anydisk_storage::name).
    pub name: String,
    /// Virtual size of the disk in this state, in bytes.
    pub size: u64,
    /// Bytes of machine state kept with it, 0 if none.
    pub vm_state_size: u64,
    /// When it was made: seconds since 1970, UTC, and the nanoseconds of that second.
    pub date: (u64, u32),
    /// How long the machine had been running, in nanoseconds.
    pub vm_clock: u64,
    /// Instructions the machine had executed, if it was recorded.
    pub icount: Option<u64>,
}

/// What a new snapshot is to be.
#[derive(Clone, Debug, Default)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// When it is made, as in [`SnapshotInfo::date`]. The caller tells the time, so that the same
    /// calls give the same file.
    pub date: (u64, u32),
}

impl NewSnapshot {
    /// One that is made now, by the clock of this machine.
    #[must_use]
    pub fn now(name: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { name: name.into(), date: (since.as_secs(), since.subsec_nanos()) }
    }
}
