//! Containers: one or more stores that hold others (a volume group, a partition table, a package).

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use anydisk_storage::Storage;

use crate::{Changes, Error, Limits, Located, Result, Sample, Verdict};

/// A kind of container.
pub trait Container: Send + Sync + Debug {
    /// The name (`lvm2`, `partitions`, `ovf`).
    fn name(&self) -> &'static str;

    /// Whether the bytes look like a part of such a container. Pure: no I/O.
    fn probe(&self, sample: &Sample<'_>) -> Verdict;

    /// Opens what lies in the stores, which belong together (the physical volumes of a group).
    fn open(&self, request: ContainerRequest<'_>) -> Result<Box<dyn Members>>;
}

/// What [`Container::open`] is given.
#[derive(Clone, Debug)]
pub struct ContainerRequest<'a> {
    /// The stores.
    pub stores: &'a [Located],
    /// What it may cost.
    pub limits: &'a Limits,
}

/// An open container.
pub trait Members: Send + Sync + Debug {
    /// All that is in it, each behind what it belongs to.
    fn members(&self) -> &[Member];

    /// Opens the member of this [path](Member::path).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`]
    /// for one that cannot be opened, and what the stores say.
    fn open(&self, path: &str) -> Result<Arc<dyn Storage>>;

    /// What differs in the member at `path` from the member at `since`, where the container keeps
    /// account of that (snapshots of a volume).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`] for members that share nothing, and in a
    /// container that keeps no account.
    fn changes(&self, since: &str, path: &str) -> Result<Box<dyn Changes + '_>> {
        let feature = format!("comparing {since} and {path} without reading them,").into();
        Err(Error::Unsupported { format: "container", feature })
    }
}

/// One thing in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// What it is asked for by, unique in its container (`vg0/root`, `2`, `disk1.vmdk`).
    pub path: String,
    /// What it is (`partition`, `logical volume`, `package member`), with its kind (`raid5`).
    pub kind: Cow<'static, str>,
    /// Length in bytes, if it can be opened.
    pub size: Option<u64>,
    /// The image format it is said to have.
    pub format: Option<String>,
    /// The path of the member it belongs to.
    pub parent: Option<String>,
    /// Why it cannot be opened, or what should be known before it is.
    pub note: Option<String>,
}

impl Member {
    /// A member of this path and kind.
    #[must_use]
    pub fn new(path: impl Into<String>, kind: impl Into<Cow<'static, str>>) -> Self {
        let (path, kind) = (path.into(), kind.into());
        Self { path, kind, size: None, format: None, parent: None, note: None }
    }
}
