//! `anydisk check`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::common::{Bench, Qemu, said};
use anydisk_testkit::golden::cases;

/// A golden image in the folder.
fn golden(bench: &Bench, name: &str) -> String {
    let case = cases("qcow2").into_iter().find(|case| case.name == name).expect("it is there");
    let file = format!("{name}.qcow2");
    std::fs::copy(&case.unpack().path, bench.path(&file)).expect("a copy");
    file
}

/// What qemu-img would print of JSON, from what anydisk prints: all but what was found.
fn without_findings(text: &[u8]) -> String {
    let mut value: serde_json::Value = serde_json::from_slice(text).expect("JSON");
    let object = value.as_object_mut().expect("an object");
    object.shift_remove("findings");
    value.to_string()
}

const LEAKY: &str = r#"{"image-end-offset":90112,"total-clusters":16,"check-errors":0,"leaks":2,"allocated-clusters":4,"filename":"leak-1.qcow2","format":"qcow2"}"#;

#[test]
fn what_is_found_is_told_and_ends_in_the_exit_code() {
    let bench = Bench::new();
    for name in ["v2", "leak-1", "refcount-zero", "hdr-magic"] {
        golden(&bench, name);
    }
    bench.raw("plain.raw", 1 << 20, &[]);
    let clean = bench.prints(&["check", "v2.qcow2"]);
    assert!(clean.starts_with("No errors were found on the image.\n"), "{clean}");
    assert!(
        bench.fails(&["check", "plain.raw", "-f", "raw"], 63).contains("does not support checks")
    );
    assert!(bench.fails(&["check", "hdr-magic.qcow2", "-f", "qcow2"], 1).contains("magic"));
    let damaged = bench.fails(&["check", "refcount-zero.qcow2"], 2);
    assert!(damaged.contains("ERROR refcount-too-low at 0x5000: "), "{damaged}");
    let output = bench.anydisk(&["check", "--output", "json", "leak-1.qcow2"]);
    assert_eq!((without_findings(&output.stdout).as_str(), output.status.code()), (LEAKY, Some(3)));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = &json["findings"][0];
    assert_eq!((&found["severity"], &found["kind"]), (&"leak".into(), &"leak".into()));
    assert_eq!((&found["at"], &found["repaired"]), (&0x14000.into(), &false.into()));
    assert!(found["remedy"].is_string(), "{found}");
    assert!(said(&output).contains("Leaked space at 0x14000: "), "{}", said(&output));
}

#[test]
fn a_repair_tells_what_it_did_and_that_all_is_well() {
    let bench = Bench::new();
    golden(&bench, "leak-1");
    golden(&bench, "refcount-zero");
    let leaks = bench.prints(&["check", "-r", "leaks", "leak-1.qcow2"]);
    assert!(leaks.contains("    2 leaked clusters\n    0 corruptions\n"), "{leaks}");
    bench.fails(&["check", "-r", "leaks", "refcount-zero.qcow2"], 2);
    let all = bench.prints(&["check", "-r", "all", "refcount-zero.qcow2"]);
    assert!(all.ends_with("Image end offset: 36864\n"), "{all}");
    assert!(bench.prints(&["check", "refcount-zero.qcow2"]).starts_with("No errors"), "then");
}

/// Names and bytes of the files of the folder.
fn files(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(bench.path(".")).expect("a folder");
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        (path, bytes)
    };
    entries.map(file).collect()
}

/// Damage that a repair mends: in one file, and in an extent of a split disk.
fn to_be_mended(bench: &Bench) -> [&'static str; 2] {
    golden(bench, "refcount-zero");
    bench.raw("data.raw", 2 << 20, &[(0, &[1; 2 << 20])]);
    let split = ["-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse,split_size=1M"];
    bench.prints(&[&["convert"][..], &split, &["data.raw", "split.vmdk"]].concat());
    let extent = std::fs::File::options().write(true).open(bench.path("split-s002.vmdk"));
    let entry = [0xFF, 0xFF, 0xFF, 0x7F];
    extent.expect("it is there").write_all_at(&entry, 27 * 512 + 8).expect("written");
    ["refcount-zero.qcow2", "split.vmdk"]
}

#[test]
fn a_dry_run_tells_what_the_repair_then_does_and_changes_nothing() {
    let bench = Bench::new();
    for name in to_be_mended(&bench) {
        let before = files(&bench);
        let run = |more: &[&str]| {
            let output = bench.anydisk(&[&["check", "-r", "all"][..], more, &[name]].concat());
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            (told, String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
        };
        let (told, out, code) = run(&["--dry-run"]);
        assert!(files(&bench) == before, "{name}: a dry run has changed a file");
        assert!(out.contains("were found and would be repaired"), "{out}");
        let (done, report, then) = run(&[]);
        assert_eq!((told.replace("would be repaired", "repaired"), code), (done, then), "{name}");
        assert_eq!(out.lines().last(), report.lines().last(), "{name}");
    }
    assert!(bench.fails(&["check", "--dry-run", "refcount-zero.qcow2"], 1).contains("--repair"));
}

#[test]
fn data_that_cannot_be_unpacked_is_found_when_it_is_read() {
    let bench = Bench::new();
    for name in ["compressed-garbage", "stream-zstd-plain"] {
        golden(&bench, name);
    }
    bench.prints(&["check", "compressed-garbage.qcow2"]);
    let told = bench.fails(&["check", "--data", "compressed-garbage.qcow2"], 2);
    assert!(told.contains("ERROR compressed-data-broken at 0x"), "{told}");
    assert!(bench.prints(&["check", "--data", "stream-zstd-plain.qcow2"]).starts_with("No errors"));
}

#[test]
fn what_is_printed_is_what_qemu_prints() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("plain.raw", 1 << 20, &[]);
    for name in [
        "v2",
        "leak-1",
        "snapshots",
        "zlib-4096",
        "leak-refcount2",
        "snap-l1-too-large",
        "data-unaligned",
    ] {
        let file = golden(&bench, name);
        for options in ["", "-q ", "-f qcow2 "] {
            bench.assert_same(&format!("check {options}{file}"));
        }
        let [qemu, ours] = ["qemu-img", env!("CARGO_BIN_EXE_anydisk")].map(|program| {
            let mut run = bench.command(program);
            run.args(["check", "--output=json", &file]).output().expect(program)
        });
        assert_eq!(without_findings(&ours.stdout), without_findings(&qemu.stdout), "{file}");
    }
    bench.qemu("convert -f raw -O vdi plain.raw plain.vdi");
    for line in ["check plain.vdi", "check --output=json plain.vdi"] {
        bench.assert_same(line);
    }
    for line in ["check plain.raw -f raw", "check missing", "check -f qcow2 plain.raw"] {
        bench.assert_same(line);
    }
    let repaired = ["qemu-img", env!("CARGO_BIN_EXE_anydisk")].map(|program| {
        let file = golden(&bench, "leak-1");
        bench.command(program).args(["check", "-r", "leaks", &file]).output().expect(program)
    });
    let [qemu, ours] = repaired.map(|output| String::from_utf8(output.stdout).expect("text"));
    assert_eq!(ours, qemu);
}

#[test]
fn of_very_many_findings_the_first_are_told_and_how_many_more_there_were() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "64M"]);
    // 2048 entries of the L1 table that are no places of tables.
    let mut bytes = std::fs::read(bench.path("a.qcow2")).expect("read");
    let at = u64::from_be_bytes(bytes[40..48].try_into().expect("eight bytes"));
    let at = usize::try_from(at).expect("small");
    bytes[at..at + 8 * 2048].fill(0x81);
    std::fs::write(bench.path("a.qcow2"), bytes).expect("written");
    let output = bench.anydisk(&["check", "a.qcow2"]);
    assert_eq!(output.status.code(), Some(2));
    let told = said(&output);
    assert_eq!(told.lines().filter(|line| line.starts_with("ERROR")).count(), 1000);
    let more =
        told.lines().find_map(|line| line.strip_prefix("and ")?.strip_suffix(" more like these"));
    assert!(
        more.and_then(|more| more.parse::<u64>().ok()).is_some_and(|more| more > 500),
        "{told}"
    );
    let output = bench.anydisk(&["convert", "--salvage", "-O", "raw", "a.qcow2", "b"]);
    assert!(said(&output).lines().count() <= 1001, "{}", said(&output));
}

/// The findings of a check, each with its severity and kind, and its exit code.
fn findings(bench: &Bench, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let output = bench.anydisk(&[&["check", "--output=json"], arguments].concat());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = json["findings"].as_array().cloned().unwrap_or_default();
    let word = |one: &serde_json::Value, key: &str| one[key].as_str().expect("text").to_owned();
    let found = found.iter().map(|one| word(one, "severity") + " " + &word(one, "kind"));
    (found.collect(), output.status.code())
}

#[test]
fn what_an_image_says_of_the_one_below_is_checked_and_what_is_missing_is_told() {
    let bench = Bench::new();
    bench.raw("data", 1 << 20, &[(70_000, b"data")]);
    for format in ["vdi", "vmdk", "qcow2"] {
        let (base, top) = (format!("base.{format}"), format!("top.{format}"));
        bench.prints(&["create", "-q", "-f", format, &base, "1M"]);
        bench.prints(&["create", "-q", "-f", format, "-b", &base, "-F", format, &top]);
        assert_eq!(findings(&bench, &[&top]), (vec![], Some(0)), "{format}");
        let higher = format!("higher.{format}");
        bench.prints(&["create", "-q", "-f", format, "-b", &top, "-F", format, &higher]);
        // Somebody writes to it.
        bench.prints(&["convert", "-n", "-f", "raw", "-O", format, "data", &base]);
        let another = match format {
            "qcow2" => (vec![], Some(0)),
            _ => (vec!["corruption parent-mismatch".to_owned()], Some(2)),
        };
        assert_eq!(findings(&bench, &[&top]), another, "{format}");
        // Nothing of an image over that one can be opened either.
        assert_eq!(findings(&bench, &[&higher]).1, another.1, "{format}");
        // A VMDK says what it should be called and hold.
        let unread = match format {
            "vmdk" => (vec!["unreadable parent-unreadable".to_owned()], Some(1)),
            _ => (vec!["note parent-unreadable".to_owned()], Some(0)),
        };
        assert_eq!(findings(&bench, &["--untrusted", &top]), unread, "{format}");
        std::fs::remove_file(bench.path(&base)).expect("it was there");
        assert_eq!(findings(&bench, &[&top]), unread, "{format}");
    }
    let text = bench.anydisk(&["check", "top.vdi"]);
    assert!(said(&text).contains("the image below was not looked at: "), "{}", said(&text));
}
