//! Flatten a chain of VirtualBox snapshots into one qcow2.
//!
//! VirtualBox keeps the disk of a machine in the machine's folder, and what was written since each
//! snapshot in a differencing image below `Snapshots`. Such an image names its parent by UUID only.
//!
//! `cargo run -p anydisk-examples --example flatten_snapshots [DISK.vdi TARGET.qcow2]`; without
//! arguments it makes a machine's folder to work on.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::storage::{FileStorage, OpenOptions};
use anydisk::{
    CreateRequest, Disk, Format, GuestOffset, Layer, Limits, Location, OpenDisk, Options, Policy,
    Reference, Role, vdi::VDI,
};

/// Opens the newest state with all that lies below it. The images are trusted, so the folder above
/// `Snapshots` may be searched as well; each parent's UUID, and that of its content, is checked.
fn open(newest: &Path) -> anydisk::Result<Disk> {
    OpenDisk::new().policy(Policy::LikeQemu).path(newest)
}

fn flatten(newest: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let disk = open(newest)?;
    for layer in disk.layers() {
        let id = layer.image.info().id.ok_or("not a VDI")?;
        println!("{id}  {}", layer.location);
    }
    let format = anydisk::formats().by_name("qcow2")?;
    let options = Options::of(format);
    let image = NewImage::new(format, &options, disk.size());
    copy_to_file(&Sources::one(&disk), target, &image, &Settings::default(), &Unwatched)?;
    println!("one disk in {}", target.display());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if let [newest, target] = &given[..] {
        return flatten(newest, target);
    }
    let folder = tempfile::tempdir()?;
    let newest = make_machine(folder.path())?;
    let target = folder.path().join("flat.qcow2");
    flatten(&newest, &target)?;

    let flat = OpenDisk::new().path(&target)?;
    let mut bytes = [0; 3];
    flat.read(GuestOffset(0), &mut bytes)?;
    assert_eq!(&bytes, b"abc");
    Ok(())
}

/// A disk with `a`, a snapshot above it with `b`, and another with `c`, each at a place of its own.
fn make_machine(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let snapshots = folder.join("Snapshots");
    std::fs::create_dir(&snapshots)?;
    let (disk, one, two) =
        (folder.join("disk.vdi"), snapshots.join("one.vdi"), snapshots.join("two.vdi"));
    write(&create(&disk, None)?, 0, b"a")?;
    write(&create(&one, Some(&disk))?, 1, b"b")?;
    write(&create(&two, Some(&one))?, 2, b"c")?;
    Ok(two)
}

fn write(disk: &Disk, at: u64, data: &[u8]) -> anydisk::Result<()> {
    disk.write(GuestOffset(at), data)?;
    disk.flush()
}

/// Makes an image, over `parent` if there is one, and opens it with what lies below.
fn create(path: &Path, parent: Option<&Path>) -> anydisk::Result<Disk> {
    let below = parent.map(open).transpose()?;
    let reference = below.as_ref().map(|below| {
        let info = below.top().info();
        let mut reference = Reference::new(Role::Backing, "the parent");
        (reference.id, reference.content_id) = (info.id, info.content_id);
        reference
    });
    let store = FileStorage::open(path, &OpenOptions::new().write(true).create(true))?;
    let (location, limits) = (Location::Path(path.to_owned()), Limits::default());
    let options = Options::of(&VDI);
    let mut request = CreateRequest::new(Arc::new(store), &location, 8 << 20, &options, &limits);
    request.backing = reference.as_ref();
    let image = VDI.create(request)?;
    Ok(match below {
        Some(below) => below.overlaid(Layer::new(image, "new")),
        None => Disk::new(image),
    })
}
