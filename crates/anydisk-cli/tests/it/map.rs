//! `anydisk map`.

use crate::common::{Bench, Qemu};

#[test]
fn maps_are_qemus_byte_for_byte() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    for disk in bench.disks() {
        bench.assert_same(&format!("map {disk}"));
        bench.assert_same(&format!("map --output=json {disk}"));
        bench.assert_same(&format!("map --output=json -s 70k -l 200k {disk}"));
        bench.assert_same(&format!("map --output=json --start-offset=1G {disk}"));
    }
}

#[test]
fn the_holes_of_a_raw_file_are_zero_and_the_rest_is_data() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(65536, &[1; 4096])]);
    let text = bench.prints(&["map", "disk.raw"]);
    let line = "0x10000         0x1000          0x10000         disk.raw\n";
    assert_eq!(text, format!("Offset          Length          Mapped to       File\n{line}"));
}

#[test]
fn a_picture_shows_where_the_data_is_and_explains_itself() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(0, &[1; 4096])]);
    let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
    let command = command.env("NO_COLOR", "1").args(["map", "--picture", "disk.raw"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<_> = text.lines().collect();
    assert_eq!(rows[0], format!("        0  ##{}", "0".repeat(62)));
    assert_eq!(rows[7], format!("  896 KiB  {}", "0".repeat(64)));
    assert_eq!(rows.last(), Some(&"# data  0 zero; a cell is 2 KiB"));
}
