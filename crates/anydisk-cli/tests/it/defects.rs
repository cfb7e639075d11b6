//! What qemu-img gets wrong and no comparison of lines can show, since it hangs, dies or takes for
//! ever; and the page that lists all that is known to be wrong with qemu, held to its tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::Bench;
use anydisk_testkit::golden::cases;

const PAGE: &str = include_str!("../../../../docs/qemu-defects.md");

fn crates() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of crates")
}

/// All tests of the workspace: how often each name occurs.
fn tests(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            // Attributes may stand between the two.
            for part in text.split("#[test]").skip(1) {
                let name = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
                *found.entry(name.unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
    }
}

/// The rows of all tables: their cells.
fn rows() -> Vec<Vec<&'static str>> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn every_defect_that_is_listed_has_tests_that_are_there() {
    let mut known = BTreeMap::new();
    tests(crates(), &mut known);
    let mut named = 0;
    for row in rows() {
        let [what, _, tests] = row[..] else { panic!("not three cells: {row:?}") };
        assert!(tests.starts_with('`') && tests.ends_with('`'), "no test for: {what}");
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(known.contains_key(name), "there is no test {name}, for: {what}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} tests named");
}

/// The other way round, for tests that are there for the page.
#[test]
fn every_test_of_a_defect_is_on_the_page() {
    for package in ["anydisk-qcow2", "anydisk-luks", "anydisk-cli"] {
        let path = crates().join(package).join("tests/it/defects.rs");
        let text = std::fs::read_to_string(path).expect("it is there");
        for part in text.split("\n#[test]\nfn ").skip(1) {
            let name = part.split('(').next().expect("a name");
            let is_of_the_page = name.starts_with("every_");
            assert!(is_of_the_page || PAGE.contains(&format!("`{name}`")), "{name}");
        }
    }
}

/// A backing file that is the image itself: qemu-img's `map`, `check` and `convert` recurse until
/// memory is gone.
#[test]
fn an_image_that_names_itself_as_the_one_below_is_an_error_at_once() {
    let case = cases("qcow2").into_iter().find(|case| case.name == "backing-self-loop");
    let unpacked = case.expect("it is there").unpack();
    let bench = Bench::new();
    let name = unpacked.path.file_name().expect("a name").to_str().expect("text");
    std::fs::copy(&unpacked.path, bench.path(name)).expect("a copy");
    for (line, code) in [
        (&["map", name][..], 1),
        (&["convert", "-O", "raw", name, "out"], 1),
        (&["compare", name, name], 2),
        (&["check", name], 2),
    ] {
        let told = bench.fails(line, code);
        assert!(told.contains("comes back to"), "{line:?}: {told}");
    }
    assert!(!bench.path("out").exists());
}

/// qemu-img asks for the state of one L2 table at a time, also where there is none: minutes of
/// processor time for an empty disk.
#[test]
fn an_empty_disk_of_a_pebibyte_is_mapped_checked_and_converted_at_once() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "1P"]);
    let start = Instant::now();
    let map = bench.prints(&["map", "--output=json", "a.qcow2"]);
    assert_eq!(map.lines().count(), 1, "{map}");
    bench.prints(&["check", "-q", "a.qcow2"]);
    bench.prints(&["convert", "-O", "qcow2", "a.qcow2", "b.qcow2"]);
    bench.prints(&["compare", "a.qcow2", "b.qcow2"]);
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
}

/// Clusters larger below than above, and disks that end in the middle of them: qemu-img 10.0.2 dies
/// on an assertion or corrupts its memory.
#[test]
fn a_rebase_over_images_with_larger_clusters_and_odd_sizes_keeps_the_content() {
    let bench = Bench::new();
    let data: &[(u64, &[u8])] = &[(0, b"begin"), ((2 << 20) - 512, &[3; 4096])];
    bench.raw("old.raw", (4 << 20) + 1536, data);
    bench.raw("new.raw", (3 << 20) + 512, &[(1 << 20, b"other"), ((3 << 20) - 100, &[9; 612])]);
    let create = |name: &str, size: &str, below: &str, format: &str, cluster: &str| {
        let option = format!("cluster_size={cluster}");
        let line = ["create", "-q", "-f", "qcow2", "-o", &option, "-b", below, "-F", format];
        bench.prints(&[&line[..], &[name, size]].concat());
    };
    create("old.qcow2", "4195840", "old.raw", "raw", "2M");
    create("new.qcow2", "3146240", "new.raw", "raw", "1M");
    create("top.qcow2", "5245440", "old.qcow2", "qcow2", "64k");
    bench.prints(&["convert", "-O", "raw", "top.qcow2", "before.raw"]);
    bench.prints(&["rebase", "-b", "new.qcow2", "-F", "qcow2", "top.qcow2"]);
    let same = ["compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "before.raw"];
    assert_eq!(bench.prints(&same), "Images are identical.\n");
    bench.prints(&["rebase", "-b", "", "top.qcow2"]);
    assert_eq!(bench.prints(&same), "Images are identical.\n");
    bench.prints(&["check", "-q", "top.qcow2"]);
}

/// The new base is the file of the old one, read as another format or from another place on:
/// qemu-img 10.0.2 takes the first for the same and changes the disk.
#[test]
fn a_rebase_onto_another_reading_of_the_same_file_keeps_the_content() {
    let bench = Bench::new();
    let blocks: Vec<u8> = (0..32_u8).flat_map(|block| [block + 1; 1 << 16]).collect();
    bench.raw("b.raw", 2 << 20, &[(0, &blocks)]);
    bench.prints(&["convert", "-f", "raw", "-O", "qcow2", "b.raw", "b.qcow2"]);
    let part =
        r#"json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"b.raw"}}"#;
    for (old, format, new) in
        [("b.qcow2", "qcow2", "b.qcow2"), ("b.raw", "raw", part), (part, "raw", "b.raw")]
    {
        bench.prints(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            old,
            "-F",
            format,
            "top.qcow2",
            "512k",
        ]);
        bench.prints(&["convert", "-O", "raw", "top.qcow2", "before.raw"]);
        bench.prints(&["rebase", "-b", new, "-F", "raw", "top.qcow2"]);
        let same = ["compare", "-f", "qcow2", "-F", "raw", "top.qcow2", "before.raw"];
        assert_eq!(bench.prints(&same), "Images are identical.\n", "{old} to {new}");
    }
}
