//! What lies in disks: a logical volume over the disks of one machine as a raw file, and a disk in
//! an OVA as a qcow2, each without unpacking anything first.
//!
//! `cargo run -p anydisk-examples --example members`

use std::error::Error;
use std::path::{Path, PathBuf};

use anydisk::convert::{
    Comparison, NewImage, Settings, Sources, Strictness, Unwatched, compare, copy_to_file,
};
use anydisk::{Disk, OpenDisk, Options, copy_to_ova};
use anydisk_testkit::lvm;

const IDS: [&str; 2] = ["0123456789abcdefghijklmnopqrstuv", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"];
const EXTENT: usize = 64 << 10;

/// Two disks with a group, whose volume `root` takes turns between them.
fn machine(folder: &Path) -> Result<[PathBuf; 2], Box<dyn Error>> {
    let stripes = "type = \"striped\" stripe_count = 2 stripe_size = 128 \
                   stripes = [\"pv0\", 0, \"pv1\", 0]";
    let text = lvm::text(&IDS, 1, &lvm::volume("root", 4, stripes));
    let disks = [folder.join("a.raw"), folder.join("b.raw")];
    for (path, (id, first)) in disks.iter().zip(IDS.into_iter().zip([1_u8, 101])) {
        let extents: Vec<u8> = (first..first + 2).flat_map(|number| [number; EXTENT]).collect();
        std::fs::write(path, lvm::device(id, &text, &extents))?;
    }
    Ok(disks)
}

/// Copies a disk into a new image.
fn convert(disk: &Disk, path: &Path, format: &str) -> Result<(), Box<dyn Error>> {
    let format = anydisk::formats().by_name(format)?;
    let options = Options::of(format);
    let image = NewImage::new(format, &options, disk.size());
    copy_to_file(&Sources::one(disk), path, &image, &Settings::default(), &Unwatched)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);

    // A volume over two disks. Any format would do; raw is never guessed, so it is named.
    let disks = machine(folder.path())?;
    let inside = OpenDisk::new().format("raw").inside(&disks, true)?;
    for member in inside.members() {
        println!("{:<12} {:<28} {:?}", member.path, member.kind, member.size);
    }
    let root = inside.disk("vg/root", None)?;
    convert(&root, &path("root.raw"), "raw")?;
    let bytes = std::fs::read(path("root.raw"))?;
    assert_eq!([0, 1, 2, 3].map(|number| bytes[number * EXTENT]), [1, 101, 2, 102]);

    // A package with that volume as its only disk, and the disk out of the package.
    copy_to_ova(&[root], &path("machine.ova"), &Settings::default(), &Unwatched)?;
    let package = OpenDisk::new().inside(&[path("machine.ova")], false)?;
    let packed = package.disk("machine-disk1.vmdk", None)?;
    convert(&packed, &path("machine.qcow2"), "qcow2")?;

    let (copy, root) =
        (OpenDisk::new().path(path("machine.qcow2"))?, inside.disk("vg/root", None)?);
    let settings = Settings::default();
    let compared = compare(&copy, &root, Strictness::Content, &settings, &Unwatched)?;
    assert_eq!(compared, Comparison::Identical { sizes_differ: false });
    println!("{} bytes went from two disks into a package and out of it", copy.size());
    Ok(())
}
