//! Snapshots inside an image: keep a state, go on, read the old state while the new one is in use,
//! and go back.
//!
//! `cargo run -p anydisk-examples --example snapshots`

use std::error::Error;
use std::sync::Arc;

use anydisk::storage::MemoryStorage;
use anydisk::{
    CreateRequest, Disk, GuestOffset, Limits, Location, NewSnapshot, Options, SnapshotRef,
};

fn main() -> Result<(), Box<dyn Error>> {
    let format = anydisk::formats().by_name("qcow2")?;
    let (location, limits) = (Location::Other("disk".into()), Limits::default());
    let (store, options) = (Arc::new(MemoryStorage::default()), Options::of(format));
    let image = format.create(CreateRequest::new(store, &location, 1 << 20, &options, &limits))?;
    let disk = Disk::new(Arc::clone(&image));
    disk.write(GuestOffset(0), b"before")?;

    // Waits for writes in flight, and is durable when it returns. The caller tells the time.
    let snapshots = image.snapshots().ok_or("qcow2 has snapshots")?;
    let date = (1_700_000_000, 0);
    let kept = snapshots.create(&NewSnapshot { name: "kept".into(), date })?;
    disk.write(GuestOffset(0), b"after!")?;

    // The old state is a disk of its own. While it is open the snapshot cannot be deleted.
    let which = SnapshotRef::Id(kept.id);
    let old = disk.at_snapshot(&which)?;
    let mut bytes = [0; 6];
    old.read(GuestOffset(0), &mut bytes)?;
    assert_eq!(&bytes, b"before");
    disk.read(GuestOffset(0), &mut bytes)?;
    assert_eq!(&bytes, b"after!");
    drop(old);

    snapshots.apply(&which)?;
    disk.read(GuestOffset(0), &mut bytes)?;
    assert_eq!(&bytes, b"before");
    snapshots.delete(&which)?;
    assert!(snapshots.list()?.is_empty());
    println!("kept, read beside the new state, applied and deleted");
    Ok(())
}
