//! The options that formats declare: in help, in completions, in the manual.

use std::collections::BTreeMap;

use crate::common::{Bench, Qemu};

/// Names and what they take, of the lines `  name=<kind> - text`.
fn listed(help: &str) -> BTreeMap<String, String> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_once("=<"));
    let kind = |rest: &str| rest.split('>').next().unwrap_or_default().to_owned();
    lines.map(|(name, rest)| (name.to_owned(), kind(rest))).collect()
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

#[test]
fn the_manual_has_a_page_with_every_option_of_every_format() {
    let bench = Bench::new();
    bench.prints(&["man", "man"]);
    let page = std::fs::read_to_string(bench.path("man/anydisk-options.7")).unwrap();
    for format in anydisk::formats().formats() {
        for spec in format.create_options().iter().chain(format.amend_options()) {
            let name = spec.name.replace('-', "\\-");
            assert!(page.contains(&format!("\n.B {name}=")), "{}: {name}", format.name());
        }
    }
}

/// Long options of a command, from its help.
fn long_options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    words.map(|word| word.trim_end_matches('.').to_owned()).collect()
}

#[test]
fn manual_pages_and_completions_have_every_command_with_every_option() {
    let bench = Bench::new();
    bench.prints(&["man", "share/man/man1"]);
    let scripts = ["bash", "zsh", "fish"].map(|shell| bench.prints(&["completions", shell]));
    let main = std::fs::read_to_string(bench.path("share/man/man1/anydisk.1")).unwrap();
    let help = bench.prints(&["--help"]);
    let commands: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().expect("a command"))
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        assert!(main.contains(&format!("anydisk\\-{command}(1)")), "{command} is not in anydisk.1");
        let page = format!("share/man/man1/anydisk-{command}.1");
        let page = std::fs::read_to_string(bench.path(&page)).unwrap();
        for option in long_options(&bench.prints(&[command, "--help"])) {
            let escaped = option.replace('-', "\\-");
            assert!(
                page.contains(&format!("\\fB{escaped}\\fR")),
                "{command}: {option} has no place in its page"
            );
            let name = option.trim_start_matches('-');
            for (script, shell) in scripts.iter().zip(["bash", "zsh", "fish"]) {
                assert!(script.contains(name), "{command}: {option} is not completed by {shell}");
            }
        }
    }
}
