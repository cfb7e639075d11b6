//! Reading: raw, qcow2 and packed qcow2, VDI, VMDK, qcow, cow, sequential and random, with 1 and 2 threads.

use std::hint::black_box;

use anydisk_benches::{MIB, Outcome, copy, open, places, write_raw};
use anydisk_core::{Access, Disk, GuestOffset};
use criterion::{Criterion, Throughput};

const SIZE: u64 = 64 * MIB;

fn read_all(disk: &Disk, places: &[u64], len: usize) {
    let mut buf = vec![0; len];
    for &at in places {
        disk.read(GuestOffset(at), &mut buf).expect("an undamaged image");
        black_box(&buf);
    }
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    write_raw(&path("raw"), SIZE)?;
    let raw = open(&path("raw"), "raw", Access::Read)?;
    copy(&raw, &path("qcow2"), "qcow2", false)?;
    copy(&raw, &path("packed"), "qcow2", true)?;
    copy(&raw, &path("vdi"), "vdi", false)?;
    copy(&raw, &path("vmdk"), "vmdk", false)?;
    copy(&raw, &path("qcow"), "qcow", false)?;
    copy(&raw, &path("cow"), "cow", false)?;
    let disks = [
        ("raw", raw),
        ("qcow2", open(&path("qcow2"), "qcow2", Access::Read)?),
        ("qcow2 packed", open(&path("packed"), "qcow2", Access::Read)?),
        ("vdi", open(&path("vdi"), "vdi", Access::Read)?),
        ("vmdk", open(&path("vmdk"), "vmdk", Access::Read)?),
        ("qcow", open(&path("qcow"), "qcow", Access::Read)?),
        ("cow", open(&path("cow"), "cow", Access::Read)?),
    ];
    let sequential: Vec<u64> = (0..SIZE).step_by(1 << 20).collect();
    let random = places(256, 4096, SIZE);
    for (what, places, len) in
        [("1 MiB sequential", sequential, 1 << 20), ("4 KiB random", random, 4096)]
    {
        let mut group = criterion.benchmark_group(what);
        for (format, disk) in &disks {
            for threads in [1, 2] {
                group.throughput(Throughput::Bytes((places.len() * len * threads) as u64));
                group.bench_function(format!("{format}, {threads} threads"), |bencher| {
                    bencher.iter(|| {
                        std::thread::scope(|scope| {
                            for _ in 1..threads {
                                scope.spawn(|| read_all(disk, &places, len));
                            }
                            read_all(disk, &places, len);
                        });
                    });
                });
            }
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
