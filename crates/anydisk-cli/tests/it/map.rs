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

/// Draws a disk; fails unless the drawing is well-formed XML that asks for nothing.
fn drawing(bench: &Bench, disk: &str) -> String {
    bench.prints(&["map", "--svg", "drawing.svg", disk]);
    let text = std::fs::read_to_string(bench.path("drawing.svg")).expect("text");
    let mut reader = quick_xml::Reader::from_str(&text);
    reader.config_mut().check_end_names = true;
    let mut depth = 0_i32;
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error}: {text}")) {
            quick_xml::events::Event::Start(_) => depth += 1,
            quick_xml::events::Event::End(_) => depth -= 1,
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "{text}");
    let outside = ["href", "<script", "@import", "<image"];
    assert!(!outside.iter().any(|word| text.contains(word)), "{text}");
    text
}

#[test]
fn a_drawing_shows_each_kind_the_chain_and_the_file_and_is_the_same_each_time() {
    let bench = Bench::new();
    bench.raw("base", 8 << 20, &[(0, &[1; 1 << 20])]);
    bench.raw("more", 8 << 20, &[(0, &[1; 1 << 20]), (4 << 20, &[2; 300_000])]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a <&\"> b", "8M"]);
    bench.prints(&["convert", "-q", "-n", "-f", "raw", "-O", "qcow2", "more", "a <&\"> b"]);
    let text = drawing(&bench, "a <&\"> b");
    for part in [
        "<title id=\"t\">a &lt;&amp;&quot;&gt; b</title>",
        "a chain of 2 images",
        ">data: ",
        ">zero: ",
        ">The images of the chain",
        ">How it lies in the file",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(drawing(&bench, "a <&\"> b"), text);
    assert_eq!(bench.prints(&["map", "--svg", "-", "a <&\"> b"]), text);
    bench.prints(&["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "base", "packed"]);
    let text = drawing(&bench, "packed");
    assert!(text.contains(">compressed: 1 MiB") && text.contains("url(#hatch)"), "{text}");
}

#[test]
fn a_drawing_has_a_bounded_size_whatever_the_disk() {
    let bench = Bench::new();
    bench.raw("empty", 0, &[]);
    drawing(&bench, "empty");
    // Every second block holds data.
    let blocks: Vec<(u64, &[u8])> = (0..2000).map(|block| (block * 8192, &[1; 4096][..])).collect();
    bench.raw("comb", 2000 * 8192, &blocks);
    let comb = drawing(&bench, "comb");
    bench.prints(&["create", "-q", "-f", "qcow2", "huge", "64T"]);
    let huge = drawing(&bench, "huge");
    assert!(comb.len() < 200_000 && huge.len() < 10_000, "{} and {}", comb.len(), huge.len());
    assert!(comb.contains("The file holds 2000 pieces of data, all in order."), "it is in pieces");
}
