//! Backing up what changed: a full copy first, then overlays with only what was written since.
//!
//! `cargo run -p anydisk-examples --example bitmap_backup`

use std::error::Error;
use std::path::Path;

use anydisk::convert::{
    Comparison, NewImage, Settings, Sources, Strictness, Unwatched, compare, copy_to_file,
    create_file,
};
use anydisk::{Disk, GuestOffset, NewBitmap, OpenDisk, Options, back_up_changes};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let qcow2 = anydisk::formats().by_name("qcow2")?;
    let options = Options::of(qcow2);
    create_file(&path("disk.qcow2"), &NewImage::new(qcow2, &options, 64 << 20))?;
    let disk = OpenDisk::new().write(true).path(path("disk.qcow2"))?;
    disk.write(GuestOffset(0), &vec![1; 8 << 20])?;

    // Sunday: from here on the image itself keeps account, then everything is copied once.
    begin(&disk, "sunday")?;
    let image = NewImage::new(qcow2, &options, disk.size());
    let settings = Settings::default();
    copy_to_file(&Sources::one(&disk), &path("full.qcow2"), &image, &settings, &Unwatched)?;

    // The guest goes on.
    disk.write(GuestOffset(20 << 20), b"written on monday")?;

    // Monday: a new account begins before the old one is read, so nothing falls between the two.
    begin(&disk, "monday")?;
    let bitmaps = disk.top().bitmaps().ok_or("qcow2 has bitmaps")?;
    let mut changes = bitmaps.changes("sunday")?;
    let (last, next) = (path("full.qcow2"), path("monday.qcow2"));
    let report = back_up_changes(&disk, &mut *changes, &last, &next, &Unwatched)?;
    drop(changes);
    bitmaps.remove("sunday")?;
    disk.flush()?;

    // The overlay over the full copy is the disk of monday.
    check(&path("monday.qcow2"), &disk)?;
    println!("{} of {} bytes were written since sunday", report.data, report.size);
    Ok(())
}

fn begin(disk: &Disk, name: &str) -> Result<(), Box<dyn Error>> {
    let bitmaps = disk.top().bitmaps().ok_or("qcow2 has bitmaps")?;
    bitmaps.add(&NewBitmap { name: name.into(), granularity: None, enabled: true })?;
    Ok(())
}

fn check(backup: &Path, disk: &Disk) -> Result<(), Box<dyn Error>> {
    let backup = OpenDisk::new().path(backup)?;
    let mut bytes = [0; 17];
    backup.read(GuestOffset(20 << 20), &mut bytes)?;
    assert_eq!(&bytes, b"written on monday");
    let (strictness, settings) = (Strictness::Content, Settings::default());
    let compared = compare(&backup, disk, strictness, &settings, &Unwatched)?;
    assert_eq!(compared, Comparison::Identical { sizes_differ: false });
    Ok(())
}
