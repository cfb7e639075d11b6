//! An incremental backup of a logical volume: what a snapshot says was changed, into a new overlay
//! over the last backup.
//!
//! `cargo run -p anydisk-examples --example incremental_backup`

use std::error::Error;

use anydisk::convert::{
    Comparison, NewImage, Settings, Sources, Strictness, Unwatched, compare, copy_to_file,
};
use anydisk::{Members, OpenDisk, Options, back_up_changes};
use anydisk_testkit::lvm;

const ID: &str = "0123456789abcdefghijklmnopqrstuv";
const EXTENT: usize = 64 << 10;

/// A disk with a group: `data` was snapshotted as `monday`, then its extent 2 was written.
fn machine() -> Vec<u8> {
    let mut extents: Vec<u8> = (0..8_u8).flat_map(|number| [number; EXTENT]).collect();
    // The store of the snapshot, at extent 8: header, list, and the old bytes of one chunk.
    let mut store = vec![0; 2 * EXTENT];
    store[..4].copy_from_slice(b"SnAp");
    for (at, number) in [(4, 1_u32), (8, 1), (12, 128)] {
        store[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    store.resize(4 * EXTENT, 0);
    store[EXTENT..EXTENT + 8].copy_from_slice(&2_u64.to_le_bytes());
    store[EXTENT + 8..EXTENT + 16].copy_from_slice(&2_u64.to_le_bytes());
    store[2 * EXTENT..3 * EXTENT].fill(2);
    extents[2 * EXTENT..3 * EXTENT].fill(0xEE);
    extents.extend(store);
    let tie = "type = \"snapshot\" chunk_size = 128 origin = \"data\" cow_store = \"monday\"";
    let volumes = lvm::linear("data", 8, "pv0", 0)
        + &lvm::linear("monday", 4, "pv0", 8)
        + &lvm::volume("snapshot0", 8, tie);
    lvm::device(ID, &lvm::text(&[ID], 1, &volumes), &extents)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("machine.raw");
    std::fs::write(&path, machine())?;
    let inside = OpenDisk::new().format("raw").inside(&[&path], true)?;
    for member in inside.members() {
        println!("{}: {}", member.path, member.kind);
    }

    // On Monday: all of the volume as it was when the snapshot was taken.
    let (then, now) = (inside.disk("vg/monday", None)?, inside.disk("vg/data", None)?);
    let (monday, tuesday) =
        (folder.path().join("monday.qcow2"), folder.path().join("tuesday.qcow2"));
    let qcow2 = anydisk::formats().by_name("qcow2")?;
    let options = Options::of(qcow2);
    let image = NewImage::new(qcow2, &options, then.size());
    copy_to_file(&Sources::one(&then), &monday, &image, &Settings::default(), &Unwatched)?;

    // On Tuesday: what was written since, over Monday's backup.
    let mut changes = inside.changes("vg/monday", "vg/data")?;
    let report = back_up_changes(&now, &mut *changes, &monday, &tuesday, &Unwatched)?;
    assert_eq!(report.data, EXTENT as u64);

    let backup = OpenDisk::new().path(&tuesday)?;
    let settings = Settings::default();
    let compared = compare(&backup, &now, Strictness::Content, &settings, &Unwatched)?;
    assert_eq!(compared, Comparison::Identical { sizes_differ: false });
    println!("{} of {} bytes were copied", report.data, report.size);
    Ok(())
}
