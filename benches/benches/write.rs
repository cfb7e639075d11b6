//! Writing 4 KiB into clusters that are allocated, and into fresh ones.

use anydisk_benches::{MIB, Outcome, create, open, places};
use anydisk_core::{Access, Disk, GuestOffset};
use criterion::{BatchSize, Criterion, Throughput};

const SIZE: u64 = 16 * MIB;
const DATA: [u8; 4096] = [7; 4096];

fn write_all(disk: &Disk, places: &[u64]) {
    for &at in places {
        disk.write(GuestOffset(at), &DATA).expect("an undamaged image");
    }
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir()?;
    let clusters: Vec<u64> = (0..SIZE).step_by(64 << 10).collect();
    for format in ["raw", "qcow2", "vdi", "vmdk", "qcow", "cow"] {
        let path = folder.path().join(format);
        let new = || -> Outcome<Disk> {
            create(&path, format, SIZE)?;
            open(&path, format, Access::ReadWrite)
        };
        let mut group = criterion.benchmark_group(format);
        group.throughput(Throughput::Elements(clusters.len() as u64));
        let disk = new()?;
        write_all(&disk, &clusters);
        let random = places(clusters.len(), 4096, SIZE);
        write_all(&disk, &random);
        group.bench_function("allocated", |bencher| bencher.iter(|| write_all(&disk, &random)));
        drop(disk);
        group.bench_function("fresh", |bencher| {
            let disk = || new().expect("a new image");
            bencher.iter_batched_ref(
                disk,
                |disk| write_all(disk, &clusters),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
