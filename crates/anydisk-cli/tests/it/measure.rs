//! `anydisk measure`.

use crate::common::{Bench, Qemu};

#[test]
fn a_fully_allocated_raw_disk_has_its_virtual_size() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, &[1; 4096])]);
    let text = bench.prints(&["measure", "-O", "raw", "-f", "raw", "disk"]);
    assert!(text.ends_with("fully allocated size: 1048576\n"), "{text}");
    let json =
        bench.prints(&["measure", "--output=json", "-o", "preallocation=full", "--size", "1G"]);
    assert_eq!(json, "{\n    \"required\": 1073741824,\n    \"fully-allocated\": 1073741824\n}\n");
}

#[test]
fn sizes_are_qemus() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    let disks = bench.disks();
    for target in ["raw", "qcow2", "qcow2 -o cluster_size=4k,extended_l2=off"] {
        for line in ["--size 1G", "--size 0", "--size 5T"] {
            bench.assert_same(&format!("measure -O {target} {line}"));
            bench.assert_same(&format!("measure --output=json -O {target} {line}"));
        }
        for disk in &disks {
            bench.assert_same(&format!("measure -O {target} {disk}"));
            bench.assert_same(&format!("measure --output=json -O {target} {disk}"));
        }
    }
}

#[test]
fn bitmaps_are_measured_as_qemu_measures_them() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.qemu("create -q -f qcow2 marked.qcow2 3G");
    bench.qemu("create -q -f qcow2 -o compat=0.10 old.qcow2 3G");
    bench.qemu("bitmap --add marked.qcow2 first");
    bench.qemu("bitmap --add -g 512 marked.qcow2 a-longer-name");
    bench.qemu("bitmap --add --disable -g 2M marked.qcow2 c");
    for options in ["", " -o cluster_size=512", " -o cluster_size=2M", " -o compat=0.10"] {
        for file in ["marked.qcow2", "old.qcow2"] {
            bench.assert_same(&format!("measure -O qcow2{options} {file}"));
            bench.assert_same(&format!("measure --output=json -O qcow2{options} {file}"));
        }
    }
    bench.assert_same("measure -O raw marked.qcow2");
}

#[test]
fn an_image_with_a_data_file_is_measured_as_qemu_does() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("disk", 8 << 20, &[(0, &[1; 4096]), (5 << 20, &[2; 100_000])]);
    bench.qemu("create -q -f qcow2 -o data_file=data.bin outside.qcow2 16M");
    for file in ["outside.qcow2", "-f raw disk"] {
        bench.assert_same(&format!("measure -O qcow2 {file}"));
        bench.assert_same(&format!("measure -O qcow2 -o data_file=x.bin {file}"));
    }
}

#[test]
fn either_a_size_or_a_file_is_measured() {
    let bench = Bench::new();
    bench.fails(&["measure"], 1);
    bench.fails(&["measure", "--size", "1G", "disk"], 1);
}
