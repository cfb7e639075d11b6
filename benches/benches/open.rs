//! Opening images of any size, and walking their maps.

use std::hint::black_box;

use anydisk_benches::{MIB, Outcome, copy, create, open, write_raw};
use anydisk_core::{Access, Disk, GuestRange};
use criterion::Criterion;

/// Number of runs.
fn walk(disk: &Disk) -> u64 {
    let mut rest = GuestRange::whole(disk.size());
    let mut runs = 0;
    while !rest.is_empty() {
        let len = disk.map(rest).expect("an undamaged image").extent.len;
        rest = rest.skip(len);
        runs += 1;
    }
    runs
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir()?;
    for (name, size) in [("1 GiB", 1 << 30), ("64 TiB", 64 << 40)] {
        let path = folder.path().join(name);
        create(&path, "qcow2", size)?;
        criterion.bench_function(&format!("open qcow2 of {name}"), |bencher| {
            bencher.iter(|| open(&path, "qcow2", Access::Read).expect("our own image"));
        });
        let disk = open(&path, "qcow2", Access::Read)?;
        criterion.bench_function(&format!("walk the map of an empty qcow2 of {name}"), |bencher| {
            bencher.iter(|| black_box(walk(&disk)));
        });
    }
    let (raw, full) = (folder.path().join("raw"), folder.path().join("full"));
    write_raw(&raw, 64 * MIB)?;
    copy(&open(&raw, "raw", Access::Read)?, &full, "qcow2", false)?;
    let disk = open(&full, "qcow2", Access::Read)?;
    criterion.bench_function("walk the map of a full qcow2 of 64 MiB", |bencher| {
        bencher.iter(|| black_box(walk(&disk)));
    });
    criterion.final_summary();
    Ok(())
}
