//! A VMware disk of several files, a link (delta) over it, and the way back into one disk.
//!
//! Each link says which content of its parent it was made for (`parentCID`), and a parent that was
//! written since is refused. Committing keeps these numbers right.
//!
//! `cargo run -p anydisk-examples --example vmdk_delta_chain`

use std::error::Error;
use std::path::Path;

use anydisk::convert::{self, NewImage, Settings, Unwatched};
use anydisk::storage::OpenOptions;
use anydisk::{
    Disk, FilesBeside, GuestOffset, OpenDisk, Options, Preallocation, Reference, Role, vmdk::VMDK,
};

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (base, delta) = (folder.path().join("base.vmdk"), folder.path().join("delta.vmdk"));
    create_base(&base)?;
    create_link(&base, &delta)?;

    // Writing goes into the link; what it has not is read from the base.
    let disk = OpenDisk::new().write(true).path(&delta)?;
    disk.write(GuestOffset(3 * MIB), b"link")?;
    disk.flush()?;
    show("the chain", &disk)?;
    drop(disk);

    // Commit: the link's grains go into the base, the link learns the new content ID, and is empty.
    let top = OpenDisk::new().write(true).top(&delta)?;
    let options = OpenDisk::new().write(true);
    let below = options.below(&top)?.ok_or("the link names its base")?;
    let below = options.complete(below)?;
    convert::commit(std::slice::from_ref(&top), &below, &Settings::default(), &Unwatched)?;
    convert::empty(&below.overlaid(top))?;

    // The base is one disk with all of it, and can grow by another extent.
    let flat = OpenDisk::new().write(true).path(&base)?;
    let files = FilesBeside::new(&base, OpenOptions::new());
    flat.resize_with(6 * MIB, Preallocation::Off, &files)?;
    flat.flush()?;
    show("the base", &flat)?;
    assert!(folder.path().join("base-s003.vmdk").exists());
    Ok(())
}

/// A disk of 4 MiB in two sparse files of 2 MiB and a descriptor.
fn create_base(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut options = Options::of(&VMDK);
    options.set("subformat", "twoGbMaxExtentSparse")?;
    options.set("split_size", "2M")?;
    convert::create_file(path, &NewImage::new(&VMDK, &options, 4 * MIB))?;
    let disk = OpenDisk::new().write(true).path(path)?;
    disk.write(GuestOffset(0), b"base")?;
    Ok(disk.flush()?)
}

/// An empty image over another one.
fn create_link(base: &Path, path: &Path) -> Result<(), Box<dyn Error>> {
    let below = OpenDisk::new().path(base)?;
    let name = base.file_name().ok_or("a file")?.to_string_lossy().into_owned();
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some("vmdk".into());
    reference.content_id = below.top().info().content_id;
    let options = Options::of(&VMDK);
    let mut image = NewImage::new(&VMDK, &options, below.size());
    image.backing = Some(&reference);
    Ok(convert::create_file(path, &image)?)
}

fn show(what: &str, disk: &Disk) -> Result<(), Box<dyn Error>> {
    let (mut first, mut second) = ([0; 4], [0; 4]);
    disk.read(GuestOffset(0), &mut first)?;
    disk.read(GuestOffset(3 * MIB), &mut second)?;
    let words = [first, second].map(|word| String::from_utf8_lossy(&word).into_owned());
    println!(
        "{what}: {} MiB in {} images, {}",
        disk.size() / MIB,
        disk.layers().len(),
        words.join(" ")
    );
    assert_eq!(words, ["base", "link"]);
    Ok(())
}
