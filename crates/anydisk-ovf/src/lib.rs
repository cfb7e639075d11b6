//! OVF and OVA packages: which disks a machine has, and each of them as a byte store, in place.
//!
//! ```text
//!   box.ova (tar)                      a folder
//!   |-- box.ovf         descriptor     |-- box.ovf
//!   |-- box.mf          digests        |-- box.mf
//!   `-- disk1.vmdk      a window       `-- disk1.vmdk
//! ```
//!
//! | feature | |
//! |---|---|
//! | OVA: ustar, GNU and pax headers, sizes in base 256, missing end blocks | read in place |
//! | OVF: a descriptor and its files as separate stores | read |
//! | manifest: SHA-1, SHA-256, SHA-512 | verified when a member is opened |
//! | disks in chunks | read in place |
//! | disks packed with gzip, also in chunks | unpacked into memory within a limit, or into room of the caller's |
//! | disks that change other disks | told; whoever opens images puts them over each other |
//! | certificates | told, not verified |
//! | what a manifest leaves out | told as data: [`Package::findings`] |
//! | writing an OVA, each disk in one pass | works |
//!
//! The bytes of a disk are mostly those of a VMDK: a member is opened as a store, and the image in
//! it by whoever knows formats. The layout, our limits and what we accept are in
//! `docs/formats/ova.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Limits, Members, Storage};
//! use anydisk_ovf::Package;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let file: Arc<dyn Storage> = Arc::new(FileStorage::open("box.ova", &OpenOptions::new())?);
//! let package = Package::open_ova(file, &Limits::default())?;
//! for disk in package.disks() {
//!     println!("{}: {} bytes in {:?}", disk.id, disk.capacity, disk.file);
//! }
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod chunks;
mod container;
mod descriptor;
mod disk;
mod files;
mod findings;
mod gzip;
mod limits;
mod listing;
mod manifest;
mod name;
mod package;
mod packed;
mod tar;
mod units;
mod write;

pub use container::{OVF, OvfContainer};
pub use disk::PackageDisk;
pub use findings::PackageFinding;
pub use package::Package;
pub use packed::Scratch;
pub use write::{DiskStream, PackageWriter};

pub(crate) const NAME: &str = "ovf";

/// An [`Invalid`](anydisk_core::Invalid) of this format.
pub(crate) fn invalid(
    field: impl Into<std::borrow::Cow<'static, str>>,
    at: u64,
    found: anydisk_core::Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> anydisk_core::Invalid {
    let at = anydisk_core::HostOffset(at);
    anydisk_core::Invalid {
        format: NAME,
        field: field.into(),
        at,
        found,
        expected: expected.into(),
    }
}

/// A word of the package as a value that was found.
pub(crate) fn text(word: &str) -> anydisk_core::Value {
    anydisk_core::Value::from(word.as_bytes())
}
