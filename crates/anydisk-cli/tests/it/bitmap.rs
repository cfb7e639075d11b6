//! `bitmap`, and bitmaps in `info` and `convert`: as qemu-img has them.

use crate::common::{Bench, Qemu};

/// The bitmaps in the JSON of `info`, without white space.
fn listed(bench: &Bench, file: &str) -> String {
    let text = bench.prints(&["info", "--output=json", file]);
    let text: String = text.split_whitespace().collect();
    let list =
        text.split("\"bitmaps\":[").nth(1).and_then(|rest| rest.split("],\"refcount").next());
    list.unwrap_or_default().to_owned()
}

fn bitmap(flags: &str, name: &str, granularity: u64) -> String {
    format!("{{\"flags\":[{flags}],\"name\":\"{name}\",\"granularity\":{granularity}}}")
}

const AUTO: &str = "\"auto\"";

#[test]
fn bitmaps_are_added_changed_shown_and_removed() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    bench.prints(&["bitmap", "--add", "a.qcow2", "one"]);
    bench.prints(&["bitmap", "--add", "-g", "4k", "--disable", "a.qcow2", "two"]);
    let expected = [bitmap(AUTO, "one", 65536), bitmap("", "two", 4096)].join(",");
    assert_eq!(listed(&bench, "a.qcow2"), expected);
    bench.prints(&["bitmap", "--merge", "one", "--enable", "a.qcow2", "two"]);
    bench.prints(&["bitmap", "--clear", "--disable", "a.qcow2", "one"]);
    let expected = [bitmap("", "one", 65536), bitmap(AUTO, "two", 4096)].join(",");
    assert_eq!(listed(&bench, "a.qcow2"), expected);
    bench.prints(&["bitmap", "--remove", "a.qcow2", "one"]);
    assert_eq!(listed(&bench, "a.qcow2"), bitmap(AUTO, "two", 4096));
    if Qemu::find().is_some() {
        bench.qemu("check -q a.qcow2");
        bench.qemu("bitmap --add --merge two a.qcow2 three");
        assert!(listed(&bench, "a.qcow2").ends_with(&bitmap(AUTO, "three", 65536)));
    }
}

#[test]
fn what_cannot_be_done_is_told_in_qemus_words() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    bench.raw("b.raw", 4096, &[]);
    let said = bench.fails(&["bitmap", "a.qcow2", "one"], 1);
    assert!(said.contains("Need at least one of --add, --remove"), "{said}");
    let said = bench.fails(&["bitmap", "--clear", "a.qcow2", "one"], 1);
    assert!(
        said.contains("Operation clear on bitmap one failed: Dirty bitmap 'one' not found"),
        "{said}"
    );
    let said = bench.fails(&["bitmap", "--add", "-f", "raw", "b.raw", "one"], 1);
    assert!(said.contains("Format driver 'raw' does not support bitmaps"), "{said}");
    let said = bench.fails(&["convert", "--bitmaps", "b.raw", "a.qcow2", "c.raw"], 1);
    assert!(said.contains("Copying bitmaps only possible with single source"), "{said}");
}

#[test]
fn bitmaps_go_along_with_a_copy_if_that_is_asked_for() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    bench.prints(&["bitmap", "--add", "-g", "4k", "a.qcow2", "one"]);
    bench.prints(&["bitmap", "--add", "--disable", "a.qcow2", "two"]);
    bench.prints(&["convert", "-O", "qcow2", "--bitmaps", "a.qcow2", "b.qcow2"]);
    assert_eq!(listed(&bench, "b.qcow2"), listed(&bench, "a.qcow2"));
    bench.prints(&["convert", "-O", "qcow2", "a.qcow2", "c.qcow2"]);
    assert!(listed(&bench, "c.qcow2").is_empty());
    let said = bench.fails(&["convert", "-O", "raw", "--bitmaps", "a.qcow2", "d.raw"], 1);
    assert!(said.contains("Format driver 'raw' does not support bitmaps"), "{said}");
    assert!(!bench.path("d.raw").exists());
}

#[test]
fn a_bitmap_that_cannot_be_trusted_stops_a_copy_or_is_left_out_aloud() {
    let case = anydisk_testkit::golden::cases("qcow2")
        .into_iter()
        .find(|case| case.name == "bitmap-in-use")
        .expect("a golden image");
    let bench = Bench::new();
    std::fs::copy(case.unpack().path, bench.path("a.qcow2")).expect("a copy");
    let said = bench.fails(&["convert", "-O", "qcow2", "--bitmaps", "a.qcow2", "b.qcow2"], 1);
    assert!(said.contains("Cannot copy inconsistent bitmap 'b-auto'"), "{said}");
    let arguments =
        ["convert", "-O", "qcow2", "--bitmaps", "--skip-broken-bitmaps", "a.qcow2", "b.qcow2"];
    let output = bench.anydisk(&arguments);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Skipping inconsistent bitmap 'b-auto'"), "{said}");
    let expected = [bitmap("", "b-disabled", 65536), bitmap(AUTO, "b-fine", 512)].join(",");
    assert_eq!(listed(&bench, "b.qcow2"), expected);
}

#[test]
fn what_a_bitmap_has_recorded_is_told_in_ranges() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "8M"]);
    bench.prints(&["bitmap", "--add", "a.qcow2", "monday"]);
    let none = "Offset          Length\n0 B changed.\n";
    assert_eq!(bench.prints(&["bitmap", "--changes", "a.qcow2", "monday"]), none);
    bench.raw("new", 8 << 20, &[(70_000, b"new"), (4 << 20, &[1; 100_000])]);
    bench.prints(&["convert", "-q", "-n", "-f", "raw", "-O", "qcow2", "new", "a.qcow2"]);
    let json = bench.prints(&["bitmap", "--changes", "--output=json", "a.qcow2", "monday"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let starts: Vec<_> = json.as_array().unwrap().iter().map(|one| one["start"].as_u64()).collect();
    assert!(!starts.is_empty(), "{json}");
    let error = bench.fails(&["bitmap", "--changes", "a.qcow2", "none"], 1);
    assert!(error.contains("Dirty bitmap 'none' not found"), "{error}");
    bench.fails(&["bitmap", "--changes", "--clear", "a.qcow2", "monday"], 1);
    bench.fails(&["bitmap", "--changes", "-g", "4k", "a.qcow2", "monday"], 1);
}
