//! Converting between raw and qcow2.

use anydisk_benches::{MIB, Outcome, copy, open, write_raw};
use anydisk_core::Access;
use criterion::{Criterion, Throughput};

const SIZE: u64 = 64 * MIB;

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    write_raw(&path("raw"), SIZE)?;
    let raw = open(&path("raw"), "raw", Access::Read)?;
    copy(&raw, &path("qcow2"), "qcow2", false)?;
    let qcow2 = open(&path("qcow2"), "qcow2", Access::Read)?;
    let mut group = criterion.benchmark_group("convert");
    group.sample_size(10).throughput(Throughput::Bytes(SIZE));
    let cases = [
        ("raw to qcow2", &raw, "qcow2", false),
        ("raw to qcow2, packed", &raw, "qcow2", true),
        ("qcow2 to raw", &qcow2, "raw", false),
    ];
    for (what, from, to, compress) in cases {
        group.bench_function(what, |bencher| {
            bencher.iter(|| copy(from, &path("target"), to, compress).expect("room for a copy"));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
