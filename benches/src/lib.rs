//! What the benches share: images of the same content in every format, and places in them.

use std::path::Path;
use std::sync::Arc;

use anydisk_convert::{NewImage, Settings, Sources, Unwatched, copy_to_file, create_file};
use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, Limits, Located, Location, NoReferences,
    NoSecrets, OneSecret, OpenRequest, Opener, Options, Registry, Secret, Secrets,
};
use anydisk_cow::COW;
use anydisk_parallels::PARALLELS;
use anydisk_qcow::QCOW;
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_storage::{FileStorage, OpenOptions};
use anydisk_testkit::Random;
use anydisk_vdi::VDI;
use anydisk_vhd::VHD;
use anydisk_vhdx::VHDX;
use anydisk_vmdk::VMDK;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

/// What goes wrong in a bench: told, never repaired.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The formats that are measured.
#[must_use]
pub fn format(name: &str) -> &'static dyn Format {
    match name {
        "raw" => &RAW,
        "cow" => &COW,
        "parallels" => &PARALLELS,
        "qcow" => &QCOW,
        "vdi" => &VDI,
        "vpc" => &VHD,
        "vhdx" => &VHDX,
        "vmdk" => &VMDK,
        _ => &QCOW2,
    }
}

/// Checks the qcow2 image at `path`, which must be in order.
///
/// # Errors
/// What checking says.
pub fn check(path: &Path, threads: usize) -> Outcome<()> {
    let store = Arc::new(FileStorage::open(path, &OpenOptions::new())?);
    let (location, limits) = (Location::Path(path.to_owned()), Limits::default());
    let mut request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    request.threads = threads;
    let report = QCOW2.check(&request, &mut |_| {})?;
    if report.is_clean() { Ok(()) } else { Err("the image is not in order".into()) }
}

/// Opens the image at `path`.
///
/// # Errors
/// What opening says.
pub fn open(path: &Path, format: &str, access: Access) -> Outcome<Disk> {
    open_with(path, format, access, &NoSecrets)
}

/// Opens the encrypted qcow2 image at `path`, which was made here.
///
/// # Errors
/// What opening says.
pub fn open_encrypted(path: &Path, access: Access) -> Outcome<Disk> {
    open_with(path, "qcow2", access, &secrets())
}

fn open_with(path: &Path, format: &str, access: Access, secrets: &dyn Secrets) -> Outcome<Disk> {
    let options = OpenOptions::new().write(access == Access::ReadWrite);
    let store = Arc::new(FileStorage::open(path, &options)?);
    let registry = Registry::new(&[&QCOW2, &VDI, &VMDK, &VHD, &VHDX, &PARALLELS, &RAW]);
    let located = Located { store, location: Location::Path(path.to_owned()) };
    let opener = Opener::new(&registry, &NoReferences).with_limits(Limits::default());
    Ok(opener.with_secrets(secrets).open(located, Some(format), access)?)
}

fn secrets() -> OneSecret {
    OneSecret(Secret::new(b"correct horse".to_vec()))
}

/// Makes an empty image.
///
/// # Errors
/// What creating says.
pub fn create(path: &Path, name: &str, size: u64) -> Outcome<()> {
    let options = Options::of(format(name));
    let image = NewImage::new(format(name), &options, size);
    Ok(create_file(path, &image)?)
}

/// Makes a qcow2 image in which every cluster is mapped.
///
/// # Errors
/// What creating says.
pub fn create_mapped(path: &Path, size: u64) -> Outcome<()> {
    let mut options = Options::of(&QCOW2);
    options.set("preallocation", "metadata")?;
    Ok(create_file(path, &NewImage::new(&QCOW2, &options, size))?)
}

/// Copies a disk into a new qcow2 image that is encrypted (LUKS, AES-256-XTS), without waiting for
/// the medium.
///
/// # Errors
/// What copying says.
pub fn copy_encrypted(from: &Disk, to: &Path) -> Outcome<()> {
    let mut options = Options::of(&QCOW2);
    options.set("encrypt.format", "luks")?;
    options.set("encrypt.iter-time", "10")?;
    let secrets = secrets();
    let image = NewImage { secrets: &secrets, ..NewImage::new(&QCOW2, &options, from.size()) };
    let mut settings = Settings::default();
    settings.durable = false;
    copy_to_file(&Sources::one(from), to, &image, &settings, &Unwatched)?;
    Ok(())
}

/// Copies a disk into a new image, packed or not, without waiting for the medium.
///
/// # Errors
/// What copying says.
pub fn copy(from: &Disk, to: &Path, name: &str, compress: bool) -> Outcome<()> {
    let options = Options::of(format(name));
    let image = NewImage::new(format(name), &options, from.size());
    let mut settings = Settings::default();
    settings.compress = compress;
    settings.durable = false;
    copy_to_file(&Sources::one(from), to, &image, &settings, &Unwatched)?;
    Ok(())
}

/// Writes a raw file whose every mebibyte is half noise and half one byte, so that it packs to half.
///
/// # Errors
/// What the file system says.
pub fn write_raw(path: &Path, size: u64) -> Outcome<()> {
    create(path, "raw", size)?;
    let disk = open(path, "raw", Access::ReadWrite)?;
    let mut random = Random::new(7);
    let mut piece = vec![5; usize::try_from(MIB)?];
    for at in (0..size).step_by(piece.len()) {
        for part in piece.chunks_mut(8 << 10) {
            random.fill(&mut part[..4 << 10]);
        }
        disk.write(GuestOffset(at), &piece)?;
    }
    Ok(disk.flush()?)
}

/// `count` places of pieces of `len` bytes on a disk of `size` bytes, the same in every run.
#[must_use]
pub fn places(count: usize, len: u64, size: u64) -> Vec<u64> {
    let mut random = Random::new(11);
    std::iter::repeat_with(|| random.below(size / len) * len).take(count).collect()
}
