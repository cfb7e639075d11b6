//! The options that formats declare: in the documentation, in help, in completions.

use std::collections::BTreeMap;
use std::fmt::Write;

use anydisk::{OptionKind, OptionSpec};

use crate::common::{Bench, Qemu};

const PAGE: &str = "../../docs/options.md";

const HEAD: &str = "\
# Options of formats

What `-o name=value,...` takes, by format: what the formats themselves declare, from which the parser,
`-o help`, completions and this page come. Every format takes `size` too, in place of the size on
the command line. A comma inside a value is written twice.

Written by `ANYDISK_BLESS=1 cargo nextest run -p anydisk-cli page_of_options`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for format in anydisk::formats().formats() {
        let name = format.name();
        for (title, specs) in [
            (format!("## {name}\n"), format.create_options()),
            (format!("### {name}: amend\n"), format.amend_options()),
        ] {
            if !specs.is_empty() {
                page +=
                    &format!("\n{title}\n| option | takes | if not given | |\n|---|---|---|---|\n");
                specs.iter().for_each(|spec| page += &row(spec));
            }
        }
    }
    page
}

fn row(spec: &OptionSpec) -> String {
    let takes = match spec.kind {
        OptionKind::Flag => "on, off".to_owned(),
        OptionKind::Number => "a number".to_owned(),
        OptionKind::Size => "a size".to_owned(),
        OptionKind::Word(words) => words.join(", "),
        _ => "text".to_owned(),
    };
    let mut row = String::new();
    let default = spec.default.unwrap_or_default();
    writeln!(row, "| `{}` | {takes} | {default} | {} |", spec.name, spec.help).unwrap();
    row
}

#[test]
fn the_page_of_options_is_what_formats_declare() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("ANYDISK_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == page(), "docs/options.md is not what the formats declare");
}

/// Names and what they take, of the lines `  name=<kind> - text`.
fn listed(help: &str) -> BTreeMap<String, String> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("=<"));
    lines
        .map(|(name, rest)| (name.to_owned(), rest.split('>').next().unwrap().to_owned()))
        .collect()
}

/// Options of qemu-img that are not there yet, or take less: a number instead of any text.
const OTHERS: &[(&str, &str)] = &[("luks", "detached-header"), ("vmdk", "toolsversion")];

#[test]
fn every_option_of_qemu_img_is_there_and_takes_the_same() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    for format in ["raw", "qcow2", "qcow", "vmdk", "vdi", "luks"] {
        let line = ["create", "-f", format, "-o", "help"];
        let output = bench.command("qemu-img").args(line).output().unwrap();
        let mine = listed(&bench.prints(&line));
        for (name, kind) in listed(&String::from_utf8_lossy(&output.stdout)) {
            if !OTHERS.contains(&(format, &name)) {
                assert_eq!(mine.get(&name), Some(&kind), "{format}: {name}");
            }
        }
    }
}

#[test]
fn completions_know_formats_and_options() {
    let script = Bench::new().prints(&["completions", "bash"]);
    for word in ["qcow2", "vmdk", "cluster_size=", "refcount_bits="] {
        assert!(script.contains(word), "{word}");
    }
}
