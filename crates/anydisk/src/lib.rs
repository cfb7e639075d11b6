//! Virtual disk images: open, read, write, create and convert any format, safely.
//!
//! ```text
//!   your program
//!        |
//!   anydisk          opening policy, the list of formats, re-exports
//!        |
//!   anydisk-convert  any disk -> any disk or stream
//!        |
//!   anydisk-qcow2  anydisk-vmdk  anydisk-raw  ...     one crate per format
//!        |
//!   anydisk-core     the traits, the chain, the one read and write loop
//!        |
//!   anydisk-storage  files, block devices, memory
//! ```
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("disk.raw");
//! # std::fs::write(&path, vec![7; 1 << 16])?;
//! use anydisk::{GuestOffset, OpenDisk};
//!
//! let disk = OpenDisk::new().format("raw").path(&path)?;
//! let mut sector = [0; 512];
//! disk.read(GuestOffset(4096), &mut sector)?;
//! assert_eq!(sector, [7; 512]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An image is made, written, kept as a snapshot, and converted into another format:
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = |name: &str| folder.path().join(name);
//! use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file, create_file};
//! use anydisk::{GuestOffset, NewSnapshot, OpenDisk, Options};
//!
//! let qcow2 = anydisk::formats().by_name("qcow2")?;
//! let mut options = Options::of(qcow2);
//! options.set("cluster_size", "64k")?;
//! create_file(&path("a.qcow2"), &NewImage::new(qcow2, &options, 1 << 30))?;
//!
//! let disk = OpenDisk::new().write(true).path(path("a.qcow2"))?;
//! disk.write(GuestOffset(1 << 20), b"hello")?;
//! let snapshots = disk.top().snapshots().ok_or("a format without snapshots")?;
//! snapshots.create(&NewSnapshot::now("before"))?;
//! disk.flush()?;
//!
//! let vmdk = anydisk::formats().by_name("vmdk")?;
//! let options = Options::of(vmdk);
//! let image = NewImage::new(vmdk, &options, disk.size());
//! let (sources, settings) = (Sources::one(&disk), Settings::default());
//! copy_to_file(&sources, &path("a.vmdk"), &image, &settings, &Unwatched)?;
//! # let copy = OpenDisk::new().path(path("a.vmdk"))?;
//! # let mut bytes = [0; 5];
//! # copy.read(GuestOffset(1 << 20), &mut bytes)?;
//! # assert_eq!(&bytes, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to do | begin with |
//! |---|---|
//! | open a disk, with its chain | [`OpenDisk::path`], [`OpenDisk::untrusted`] |
//! | read, write, zero, discard; keep it: [`Disk::flush`], before it is dropped | [`Disk`] |
//! | read and write as a stream of the standard library | [`storage::StorageCursor`] |
//! | see where data lies, with or without I/O | [`Disk::map`], [`Disk::map_cached`] |
//! | make an image | [`formats`], [`Options`], [`create_file`](convert::create_file) |
//! | convert, with progress and cancelling | [`copy_to_file`](convert::copy_to_file), [`Watch`](convert::Watch) |
//! | snapshots: list, make, apply, open one | `disk.top()`, [`Image::snapshots`], [`Disk::at_snapshot`] |
//! | dirty bitmaps, incremental backup | [`Image::bitmaps`], [`back_up_changes`] |
//! | compare, commit, rebase, salvage | [`convert`] |
//! | check, repair | [`OpenDisk::check`], [`Checking`] |
//! | judge a stranger's image | [`inspect`] |
//! | partitions, LVM2, packages | [`OpenDisk::inside`], [`Inside`] |
//! | add a format or a store | [`Format`], [`Image`], [`storage::Storage`] |
//!
//! Formats are recognised by their bytes, but a file that nothing recognises is **not** taken for
//! raw unless you say so, and files named inside an image are opened only as the
//! [policy](Policy) allows. For bytes from strangers begin with [`OpenDisk::untrusted`].

mod backup;
mod by_id;
mod check;
mod compact;
mod companions;
mod file;
mod inside;
pub mod inspect;
pub mod node;
mod open;
mod package;
mod resolve;

pub use anydisk_asif as asif;
pub use anydisk_bochs as bochs;
pub use anydisk_cloop as cloop;
pub use anydisk_codec as codec;
pub use anydisk_convert as convert;
pub use anydisk_core::*;
pub use anydisk_cow as cow;
pub use anydisk_crypto as crypto;
pub use anydisk_dmg as dmg;
pub use anydisk_luks as luks;
pub use anydisk_lvm2 as lvm2;
pub use anydisk_ovf as ovf;
pub use anydisk_parallels as parallels;
pub use anydisk_partition as partition;
pub use anydisk_qcow as qcow;
pub use anydisk_qcow2 as qcow2;
pub use anydisk_qed as qed;
pub use anydisk_raw as raw;
pub use anydisk_simg as simg;
pub use anydisk_storage as storage;
pub use anydisk_vdi as vdi;
pub use anydisk_vhd as vhd;
pub use anydisk_vhdx as vhdx;
pub use anydisk_vmdk as vmdk;
pub use backup::back_up_changes;
pub use check::{Checked, Checking};
pub use compact::Compacted;
pub use companions::FilesBeside;
pub use inside::{Inside, MemberFinding};
pub use open::{OpenDisk, Policy, descriptor_in};
pub use package::{copy_to_ova, copy_to_ova_in};
pub use resolve::{LikeQemu, Listed, SameFolder, path_like_qemu};

/// The built-in formats: the one list of them. To add one of your own, make a
/// [`Registry`] of these and yours.
#[must_use]
pub fn formats() -> Registry {
    Registry::new(&[
        &qcow2::QCOW2,
        &vmdk::VMDK,
        &vdi::VDI,
        &vhd::VHD,
        &vhdx::VHDX,
        &qcow::QCOW,
        &cow::COW,
        &qed::QED,
        &parallels::PARALLELS,
        &luks::LUKS,
        &dmg::DMG,
        &cloop::CLOOP,
        &bochs::BOCHS,
        &simg::SIMG,
        &asif::ASIF,
        &raw::RAW,
    ])
}

/// The built-in containers: the one list of them.
#[must_use]
pub fn containers() -> Vec<&'static dyn Container> {
    vec![&lvm2::LVM2, &ovf::OVF, &partition::PARTITIONS]
}
