//! LVM2 volume groups in user space: logical volumes as byte stores, without the kernel.
//!
//! ```text
//!   store   store   store        disks, partitions, images of any format
//!     |       |       |   label: which physical volume, where its metadata is
//!     +---+---+---+---+
//!         |   text: the newest of all copies describes the group
//!     VolumeGroups
//!         |   segments: areas on physical volumes, or on other logical volumes
//!     vg0/root   vg0/home   ...  each a Storage
//! ```
//!
//! | volumes | |
//! |---|---|
//! | linear, striped, zero, error | read |
//! | mirror, raid0, raid1, raid4, raid5, raid6, raid10: whole, and without images that are gone or stale | read |
//! | classic snapshots, origins with a merge pending | read |
//! | thin volumes, their snapshots, external origins | read |
//! | volumes with a cache pool, a cache volume or a write cache, dirty or not | read |
//! | what changed: thin volumes of one pool, classic snapshots of one origin | told |
//! | `vdo`, `integrity`, arrays being reshaped, types we do not know | refused by name |
//! | writing | missing |
//!
//! The layout, our limits and what other programs leave behind are in `docs/formats/lvm2.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Limits, Members, Storage};
//! use anydisk_lvm2::VolumeGroups;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let disk: Arc<dyn Storage> = Arc::new(FileStorage::open("pv.raw", &OpenOptions::new())?);
//! let groups = VolumeGroups::open(&[disk], &Limits::default())?;
//! for member in groups.members() {
//!     println!("{} {} {:?}", member.path, member.kind, member.size);
//! }
//! let root = Members::open(&groups, "vg0/root")?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod area;
mod blocks;
mod build;
mod cache;
mod changes;
mod checksum;
mod container;
mod group;
mod label;
mod layers;
mod layout;
mod limits;
mod listing;
mod overlay;
mod partial;
mod place;
mod plain;
mod raid;
mod run_map;
mod scan;
mod segment;
mod snapshot;
mod text;
mod thin;
mod uuid;

pub use container::{LVM2, Lvm2Container, VolumeGroups};

pub(crate) const NAME: &str = "lvm2";
