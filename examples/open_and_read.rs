//! Open any image and read from it.
//!
//! `cargo run -p anydisk-examples --example open_and_read [IMAGE]`

use std::error::Error;
use std::path::{Path, PathBuf};

use anydisk::{GuestOffset, OpenDisk};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => sample(folder.path())?,
    };

    // The format is recognised by the bytes. Files that the image names are opened only if they
    // lie beside it; a file that no format recognises is an error, not a raw disk.
    let disk = OpenDisk::new().path(&path)?;
    for layer in disk.layers() {
        println!("{}: {}", layer.location, layer.image.info().format);
    }

    // Reading is positional and needs no `mut`: threads share the disk.
    let mut sector = [0; 512];
    disk.read(GuestOffset(0), &mut sector)?;
    println!("{} bytes; the first sector begins with {:02x?}", disk.size(), &sector[..16]);
    Ok(())
}

/// A small qcow2 image to read from.
fn sample(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let path = folder.join("disk.qcow2");
    let format = anydisk::formats().by_name("qcow2")?;
    let options = anydisk::Options::of(format);
    let image = anydisk::convert::NewImage::new(format, &options, 1 << 20);
    anydisk::convert::create_file(&path, &image)?;
    let disk = OpenDisk::new().write(true).path(&path)?;
    disk.write(GuestOffset(0), b"hello, disk")?;
    disk.flush()?;
    Ok(path)
}
