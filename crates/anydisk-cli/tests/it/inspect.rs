//! `anydisk inspect`.

use anydisk_testkit::golden::cases;
use serde_json::Value;

use crate::common::{Bench, said};

const SCHEMA: &str = include_str!("../../../../docs/inspect.schema.json");
const PAGE: &str = include_str!("../../../../docs/inspect.md");

/// Holds a value against a schema of the few words that ours is made of.
fn check(value: &Value, schema: &Value, at: &str) {
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value}");
    }
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        other => other.is_none(),
    };
    assert!(is_type, "{at}: {value} is no {}", schema["type"]);
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        assert!(value.get(name).is_some(), "{at}.{name} is missing");
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => check(member, schema, &format!("{at}.{name}")),
            None => assert!(schema["additionalProperties"].is_null(), "{at}.{name} is not known"),
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(item, &schema["items"], &format!("{at}[]"));
    }
}

/// Inspects an image and returns what is said of it, and the exit code.
fn inspect(bench: &Bench, arguments: &[&str]) -> (Value, i32) {
    let output = bench.anydisk(&[&["inspect", "--output=json"], arguments].concat());
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", said(&output)));
    check(&value, &serde_json::from_str(SCHEMA).expect("a schema"), "$");
    (value, output.status.code().expect("an exit code"))
}

#[test]
fn the_exit_code_is_the_verdict_and_the_json_keeps_to_its_schema() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "good", "1M"]);
    bench.prints(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        "evil",
        "1M",
    ]);
    bench.raw("raw", 1 << 20, &[(510, &[0x55, 0xAA])]);
    for (arguments, verdict, code) in [
        (&["good"][..], "accept", 0),
        (&["--allow=qcow2,vmdk", "--max-size=1M", "good"], "accept", 0),
        (&["--allow=vmdk", "good"], "refuse", 2),
        (&["--max-size=1023k", "good"], "refuse", 2),
        (&["-f", "raw", "good"], "refuse", 2),
        (&["evil"], "refuse", 2),
        (&["--allow-references", "evil"], "accept", 0),
        (&["raw"], "doubt", 3),
        (&["--allow", "raw", "raw"], "accept", 0),
        (&["-f", "raw", "raw"], "accept", 0),
    ] {
        let (value, found) = inspect(&bench, arguments);
        assert_eq!((value["verdict"].as_str(), found), (Some(verdict), code), "{arguments:?}");
    }
    let error = bench.fails(&["inspect", "nowhere"], 1);
    assert_eq!(
        error,
        "anydisk: Could not open 'nowhere': Could not open 'nowhere': No such file or directory\n"
    );
    let error = bench.fails(&["inspect", "--allow=nothing", "good"], 1);
    assert!(error.starts_with("anydisk: Unknown format 'nothing'\nFormats: qcow2, "), "{error}");
}

#[test]
fn damaged_golden_images_are_told_as_the_schema_says_with_remarks_of_the_documented_kinds() {
    let bench = Bench::new();
    let images = ["qcow2", "vmdk"].into_iter().flat_map(cases).step_by(9);
    for case in images {
        let unpacked = case.unpack();
        let path = unpacked.path.to_str().expect("text");
        let (value, _) = inspect(&bench, &[path]);
        for remark in value["remarks"].as_array().expect("a list") {
            let kind = format!("`{}`", remark["kind"].as_str().expect("text"));
            assert!(PAGE.contains(&kind), "{kind} of {case} is not in docs/inspect.md");
        }
    }
}

#[test]
fn people_are_told_what_it_is_and_why_it_is_not_taken() {
    let bench = Bench::new();
    let line =
        ["create", "-q", "-f", "qcow2", "-u", "-b", "a\u{1b}[2Jb", "-F", "raw", "evil", "1M"];
    bench.prints(&line);
    let text = bench.fails(&["inspect", "evil"], 2);
    let begin = "evil: refuse\nfile format: qcow2 (by its magic)\n\
                 virtual size: 1 MiB (1048576 bytes)\nfile length: ";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("\nbacking file: a\\u{1b}[2Jb (raw)\n"), "{text}");
    let end =
        "refuse: it needs the backing file \"a\\u{1b}[2Jb\", which was not opened [reference]\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn a_member_of_a_package_is_inspected_and_the_package_itself_is_no_disk() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(0, b"data")]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "ova", "disk.raw", "box.ova"]);
    let (package, code) = inspect(&bench, &["box.ova"]);
    assert_eq!((package["remarks"][0]["kind"].as_str(), code), (Some("package"), 3));
    let members = bench.prints(&["members", "box.ova"]);
    let disk = members.split_whitespace().find(|word| word.ends_with(".vmdk")).expect("a disk");
    let (value, code) = inspect(&bench, &["--member", disk, "box.ova"]);
    assert_eq!((value["format"].as_str(), code), (Some("vmdk"), 0), "{value}");
    assert_eq!(value["filename"].as_str(), Some(disk));
}

#[test]
fn a_disk_that_the_manifest_of_its_package_leaves_out_is_doubted_wherever_it_is_asked_about() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(0, b"data")]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "ova", "disk.raw", "box.ova"]);
    let tar = |line: &[&str]| {
        assert!(bench.command("tar").args(line).status().expect("tar").success());
    };
    tar(&["-xf", "box.ova"]);
    let (ovf, disk, mf) = ("box.ovf", "box-disk1.vmdk", "box.mf");
    let manifest = bench.path(mf);
    let pack = |name| tar(&["--format=ustar", "-cf", name, ovf, mf, disk]);
    pack("whole.ova");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let of_descriptor = text.lines().next().expect("a line");
    let whole = inspect(&bench, &["--member", disk, "whole.ova"]);
    assert_eq!((whole.0.get("package-findings"), whole.1), (None, 0), "{whole:?}");
    std::fs::write(&manifest, format!("{of_descriptor}\n")).expect("a manifest");
    pack("part.ova");

    let (value, code) = inspect(&bench, &["--member", disk, "part.ova"]);
    assert_eq!((code, value["remarks"][0]["kind"].as_str()), (3, Some("unverified")), "{value}");
    let told = &value["package-findings"][0];
    assert_eq!(
        (told["kind"].as_str(), told["member"].as_str()),
        (Some("not-in-manifest"), Some(disk))
    );
    let info = bench.prints(&["info", "--output=json", "--member", disk, "part.ova"]);
    let info: Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(&info["package-findings"][0], told);
    let text = bench.prints(&["info", "--member", disk, "part.ova"]);
    assert!(text.ends_with("the manifest does not have it [not-in-manifest]\n"), "{text}");
    let members = bench.prints(&["members", "--output=json", "part.ova"]);
    let members: Value = serde_json::from_str(&members).expect("JSON");
    let member = members.as_array().expect("a list").iter().find(|one| one["path"] == disk);
    assert_eq!(member.expect("the disk")["findings"][0]["kind"], "not-in-manifest");

    tar(&["--format=ustar", "-cf", "none.ova", ovf, disk]);
    let (value, code) = inspect(&bench, &["--member", disk, "none.ova"]);
    assert_eq!((code, value["package-findings"][0]["kind"].as_str()), (0, Some("no-manifest")));
}
