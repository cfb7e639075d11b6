//! `anydisk measure`.

mod common;

use common::Bench;

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
fn either_a_size_or_a_file_is_measured() {
    let bench = Bench::new();
    bench.fails(&["measure"], 1);
    bench.fails(&["measure", "--size", "1G", "disk"], 1);
}
