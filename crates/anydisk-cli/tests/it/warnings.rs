//! What should be known of an image that opens, on every command.

use std::process::Output;

use anydisk_testkit::golden::cases;

use crate::common::{Bench, said};

const BROKEN: &str = ": The bitmaps are ignored: ";
const LOST: &str = ": the footer at the end of the file is missing: its copy is used";
const DROPPED: &str = ": Its dirty bitmaps are dropped";

/// Each command, and what it says: `bitmaps` is an image whose bitmaps are broken, so that it can be
/// read only, `footer` one whose footer is lost, `account` one whose dirty bitmaps a writer drops.
const LINES: &[(&str, &str)] = &[
    ("create -f qcow2 -b bitmaps -F qcow2 new", BROKEN),
    ("convert -O raw bitmaps new", BROKEN),
    ("convert -O raw footer new", LOST),
    ("bitmap --changes bitmaps nothing", BROKEN),
    ("info bitmaps", BROKEN),
    ("info --output=json bitmaps", BROKEN),
    ("info --backing-chain --output=json bitmaps", BROKEN),
    ("map --output=json bitmaps", BROKEN),
    ("check --output=json footer", LOST),
    ("check --output=json bitmaps", BROKEN),
    ("compact account", DROPPED),
    ("salvage -O raw footer new", LOST),
    ("compare footer footer", LOST),
    ("compare footer bitmaps", LOST),
    ("dd if=footer of=new", LOST),
    ("bench -c 1 footer", LOST),
    ("serve -r -B nothing footer", LOST),
    ("measure -O qcow2 --output=json footer", LOST),
    ("resize footer 200M", LOST),
    ("snapshot -l bitmaps", BROKEN),
    ("members footer", LOST),
    ("rebase -u -b account -F parallels footer", LOST),
    ("rebase -u -b bitmaps -F qcow2 over", BROKEN),
    ("commit account", DROPPED),
];

/// Commands that open no image, or one that can be written without a word, or tell it as their answer.
const SILENT: [&str; 4] = ["amend", "completions", "inspect", "man"];

fn prepared() -> Bench {
    let bench = Bench::new();
    for (format, case, name) in [
        ("qcow2", "bitmap-type-2", "bitmaps"),
        ("vhd", "footer-lost", "footer"),
        ("parallels", "ext-dirty-bitmap", "account"),
    ] {
        let case = cases(format).into_iter().find(|found| found.name == case).expect("a case");
        std::fs::copy(case.unpack().path, bench.path(name)).expect("a copy");
    }
    bench.prints(&["create", "-q", "-f", "qcow2", "over", "1M"]);
    bench
}

fn run(line: &str) -> Output {
    prepared().anydisk(&line.split(' ').collect::<Vec<_>>())
}

/// How often a warning is said.
fn count(bytes: &[u8], warning: &str) -> usize {
    String::from_utf8_lossy(bytes).matches(warning).count()
}

#[test]
fn every_command_is_in_the_table() {
    let help = Bench::new().prints(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).expect("a list");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        let is_told = LINES.iter().any(|(line, _)| line.split(' ').next() == Some(command));
        assert!(is_told != SILENT.contains(&command), "{command}");
    }
}

#[test]
fn every_command_says_once_on_standard_error_what_should_be_known_of_an_image() {
    let mut complaints = Vec::new();
    for (line, warning) in LINES {
        let output = run(line);
        let (out, err) = (count(&output.stdout, warning), count(&output.stderr, warning));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = text.lines().find(|line| line.contains(warning)).unwrap_or_default();
        if (out, err) != (0, 1) || !told.starts_with("anydisk: warning: ") {
            complaints.push(format!("{line}: {}", said(&output)));
        }
        if line.contains("json") {
            let json = serde_json::from_slice::<serde_json::Value>(&output.stdout);
            assert!(json.is_ok(), "{line}: {}", said(&output));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn nothing_is_said_if_it_is_to_be_quiet() {
    for line in ["convert -q -O raw footer new", "check -q footer", "compare -q footer footer"] {
        let output = run(line);
        assert!(output.stderr.is_empty(), "{line}: {}", said(&output));
    }
}

#[test]
fn an_image_below_warns_as_well() {
    let bench = prepared();
    let make = ["create", "-q", "-u", "-f", "qcow2", "-b", "footer", "-F", "vpc", "top", "1M"];
    bench.prints(&make);
    let output = bench.anydisk(&["map", "top"]);
    assert_eq!(count(&output.stderr, LOST), 1, "{}", said(&output));
    // Of the top alone nothing is to be said.
    assert!(bench.anydisk(&["info", "top"]).stderr.is_empty());
}
