//! A copy-on-write overlay in memory over a file: write as you like, the file stays as it is.
//!
//! `cargo run -p anydisk-examples --example overlay_in_memory`

use std::error::Error;
use std::sync::Arc;

use anydisk::storage::MemoryStorage;
use anydisk::{CreateRequest, GuestOffset, Layer, Limits, Location, OpenDisk, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("golden.raw");
    std::fs::write(&path, vec![7; 1 << 20])?;
    let base = OpenDisk::new().format("raw").path(&path)?;

    // Any format that can be written will do as an overlay, on any store.
    let format = anydisk::formats().by_name("qcow2")?;
    let (location, limits) = (Location::Other("overlay".into()), Limits::default());
    let (store, options) = (Arc::new(MemoryStorage::default()), Options::of(format));
    // Without a backing file: the overlay is put over the base here and now, not by name.
    let request = CreateRequest::new(store, &location, base.size(), &options, &limits);
    let top = format.create(request)?;
    let disk = base.overlaid(Layer::new(top, "overlay"));

    disk.write(GuestOffset(4096), b"only in memory")?;
    let mut bytes = [0; 16];
    disk.read(GuestOffset(4096), &mut bytes)?;
    assert_eq!(&bytes, b"only in memory\x07\x07");
    assert_eq!(std::fs::read(&path)?, vec![7; 1 << 20]);
    println!("written to the disk, and the file is as it was");
    Ok(())
}
