//! `anydisk snapshot`: what qemu-img has not.

use serde_json::Value;

use crate::common::Bench;

/// An image with a snapshot `one`, and data written since to 256 KiB and 1 MiB.
fn image(bench: &Bench) {
    bench.raw("first", 2 << 20, &[(0, &[1; 4096]), (256 << 10, &[1; 512])]);
    bench.raw("second", 2 << 20, &[(0, &[1; 4096]), (256 << 10, &[2; 512]), (1 << 20, &[2; 1024])]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "qcow2", "first", "disk"]);
    bench.prints(&["snapshot", "-c", "one", "disk"]);
    bench.prints(&["convert", "-q", "-n", "-f", "raw", "-O", "qcow2", "second", "disk"]);
    bench.prints(&["snapshot", "-c", "two", "disk"]);
}

#[test]
fn a_list_is_json_if_asked_for_also_an_empty_one() {
    let bench = Bench::new();
    image(&bench);
    let list = bench.prints(&["snapshot", "--output=json", "disk"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(names, [Some("one"), Some("two")]);
    assert_eq!(list[0]["id"], "1");
    bench.prints(&["create", "-q", "-f", "qcow2", "empty", "1M"]);
    let list = bench.prints(&["snapshot", "-l", "--output=json", "empty"]);
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), Value::Array(Vec::new()));
}

#[test]
fn a_change_prints_the_list_that_it_leaves_if_json_is_asked_for() {
    let bench = Bench::new();
    image(&bench);
    let names = |line: &[&str]| {
        let list: Value = serde_json::from_str(&bench.prints(line)).expect("JSON");
        let list = list.as_array().unwrap().clone();
        list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["snapshot", "--output=json", "-d", "one", "disk"]), ["two"]);
    assert_eq!(names(&["snapshot", "--output=json", "-c", "three", "disk"]), ["two", "three"]);
}

#[test]
fn an_export_takes_the_options_of_a_new_image_or_refuses_them() {
    let bench = Bench::new();
    image(&bench);
    let line = ["snapshot", "--export", "one", "-O", "qcow2", "--output=json", "disk"];
    let text = bench.prints(&[&line[..], &["-o", "size=4M", "file:larger"]].concat());
    assert!(text.contains("\"filename\": \"larger\"") && text.contains("4194304"), "{text}");
    let object = ["--object", "secret,id=s,data=abc"];
    let options = ["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "closed"];
    bench.prints(&[&line[..], &object, &options].concat());
    assert!(bench.prints(&["info", "closed"]).contains("encrypted: yes"));
    let backing = ["-o", "backing_file=first,backing_fmt=raw", "over"];
    let error = bench.fails(&[&line[..], &backing].concat(), 1);
    assert!(error.contains("A backing file is not supported here"), "{error}");
    assert!(!bench.path("over").exists());
}

#[test]
fn a_snapshot_is_exported_as_an_image_of_any_format() {
    let bench = Bench::new();
    image(&bench);
    for format in ["raw", "qcow2", "vmdk"] {
        bench.prints(&["snapshot", "-q", "--export", "one", "-O", format, "disk", "old"]);
        let line = ["compare", "-f", "raw", "-F", format, "first", "old"];
        assert_eq!(bench.prints(&line), "Images are identical.\n");
    }
    let error = bench.fails(&["snapshot", "--export", "none", "disk", "new"], 1);
    assert!(error.contains("Can't find snapshot"), "{error}");
    assert!(!bench.path("new").exists());
}

#[test]
fn what_differs_from_a_snapshot_is_told_to_the_sector() {
    let bench = Bench::new();
    image(&bench);
    let table =
        "Offset          Length\n0x40000         0x200\n0x100000        0x400\n1.5 KiB differ.\n";
    assert_eq!(bench.prints(&["snapshot", "--diff", "one", "disk"]), table);
    assert_eq!(bench.prints(&["snapshot", "--diff", "one", "--to", "two", "disk"]), table);
    let none = "Offset          Length\n0 B differ.\n";
    assert_eq!(bench.prints(&["snapshot", "--diff", "two", "disk"]), none);
    let json = bench.prints(&["snapshot", "--diff", "one", "--output=json", "disk"]);
    let expected =
        "[{ \"start\": 262144, \"length\": 512},\n{ \"start\": 1048576, \"length\": 1024}]\n";
    assert_eq!(json, expected);
    assert_eq!(bench.prints(&["snapshot", "--diff", "two", "--output=json", "disk"]), "[]\n");
}

#[test]
fn what_is_done_with_snapshots_does_not_mix() {
    let bench = Bench::new();
    image(&bench);
    for line in [
        &["snapshot", "--diff", "one", "--export", "one", "disk", "new"][..],
        &["snapshot", "--export", "one", "disk"],
        &["snapshot", "--to", "one", "disk"],
        &["snapshot", "-l", "--diff", "one", "disk"],
        &["snapshot", "-l", "disk", "new"],
    ] {
        bench.fails(line, 1);
    }
}

#[test]
fn a_snapshot_gets_another_name() {
    let bench = Bench::new();
    image(&bench);
    bench.prints(&["snapshot", "--rename", "one", "first", "disk"]);
    let list = bench.prints(&["snapshot", "-l", "disk"]);
    assert!(list.contains("first") && !list.contains("one "), "{list}");
    bench.prints(&["snapshot", "--diff", "first", "disk"]);
    let error = bench.fails(&["snapshot", "--rename", "one", "other", "disk"], 1);
    assert!(error.contains("Could not rename snapshot 'one': snapshot not found"), "{error}");
    bench.fails(&["snapshot", "--rename", "two", "disk"], 1);
    bench.fails(&["snapshot", "-l", "--rename", "two", "second", "disk"], 1);
}
