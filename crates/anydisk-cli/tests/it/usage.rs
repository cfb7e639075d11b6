//! What is said about the command line itself.

use crate::common::{Bench, said};

#[test]
fn a_complaint_begins_with_the_programs_name_and_ends_with_where_help_is() {
    let bench = Bench::new();
    for (line, about, command) in [
        (&["nothing"][..], "Command not found: nothing", ""),
        (&["info"], "anydisk: Expecting one image file name", " info"),
        (&["create", "--nothing"], "anydisk create: unrecognized option '--nothing'", " create"),
        (&["map", "--output=xml", "a"], "--output expects 'human' or 'json' not 'xml'", " map"),
        (&["compare", "a"], "anydisk: Expecting two image file names", " compare"),
    ] {
        let error = bench.fails(line, 1);
        assert!(error.starts_with("anydisk") && error.contains(about), "{error}");
        let help = format!("Try 'anydisk{command} --help' for more info\n");
        assert!(error.ends_with(&help), "{error}");
    }
}

#[test]
fn the_programs_name_is_the_one_it_was_called_by() {
    let bench = Bench::new();
    let program = bench.path("qemu-img");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_anydisk"), &program).unwrap();
    let output = bench.command(program.to_str().unwrap()).args(["info", "no"]).output().unwrap();
    let expected =
        "qemu-img: Could not open 'no': Could not open 'no': No such file or directory\n";
    assert_eq!(said(&output), expected);
}

#[test]
fn under_the_name_of_qemu_img_programs_find_its_version_and_the_formats() {
    let bench = Bench::new();
    let program = bench.path("qemu-img");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_anydisk"), &program).unwrap();
    let prints = |option: &str| {
        let output = bench.command(program.to_str().unwrap()).arg(option).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let version = prints("--version");
    assert!(version.starts_with("qemu-img version 10.0.0 (anydisk "), "{version}");
    assert_eq!(prints("-V"), version);
    let help = prints("--help");
    let formats = help.lines().find_map(|line| line.strip_prefix("Supported formats: ")).unwrap();
    let formats: Vec<_> = formats.split(' ').collect();
    assert!(formats.contains(&"qcow2") && formats.contains(&"vmdk"), "{formats:?}");
    assert!(help.contains("\nUsage: qemu-img <COMMAND>\n"), "{help}");
    assert!(bench.prints(&["--version"]).starts_with("anydisk "));
}

#[test]
fn pages_and_drawings_get_their_names_when_they_are_whole() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"x")]);
    for (name, line) in [
        ("anydisk.1", &["man", "."][..]),
        ("disk.svg", &["map", "-f", "raw", "--svg", "disk.svg", "disk"]),
    ] {
        std::fs::write(bench.path(name), "old").unwrap();
        std::fs::hard_link(bench.path(name), bench.path("link")).unwrap();
        bench.prints(line);
        assert_eq!(std::fs::read(bench.path("link")).unwrap(), b"old", "{name}");
        assert!(std::fs::read(bench.path(name)).unwrap().len() > 100, "{name}");
        std::fs::remove_file(bench.path("link")).unwrap();
    }
}

#[test]
fn help_is_no_error_and_shows_examples() {
    let bench = Bench::new();
    assert!(bench.prints(&["--help"]).contains("Examples:\n  anydisk info disk.qcow2\n"));
    for command in ["create", "convert", "info", "map", "compare", "measure", "check", "members"] {
        let help = bench.prints(&[command, "--help"]);
        assert!(help.contains(&format!("\n  anydisk {command} ")), "{help}");
    }
}

#[test]
fn every_command_has_a_manual_page_with_its_examples() {
    let bench = Bench::new();
    bench.prints(&["man", "."]);
    let page = |name: &str| std::fs::read_to_string(bench.path(format!("{name}.1"))).expect(name);
    let main = page("anydisk");
    assert!(main.contains(".TH anydisk 1"), "{main}");
    let help = bench.prints(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).expect("a list").lines();
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let page = page(&format!("anydisk-{command}"));
        assert!(page.contains(&format!("anydisk {command} ")), "{command}: {page}");
    }
    bench.raw("file", 512, &[]);
    let error = bench.fails(&["man", "file/man"], 1);
    assert!(error.contains("file/man: Not a directory"), "{error}");
}

#[test]
fn completions_are_printed_for_every_usual_shell() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(bench.prints(&["completions", shell]).contains("convert"), "{shell}");
    }
}

#[test]
fn the_long_options_of_qemu_img_are_understood() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"x")]);
    for line in [
        "create --quiet --format qcow2 --options cluster_size=4k --backing disk --backing-format raw a",
        "create --quiet --format qcow2 --backing-unsafe --backing gone --backing-format raw b 1M",
        "convert --source-format raw --target-format qcow2 --target-options cluster_size=4k --compress \
         --source-cache none --target-cache writeback --sparse-size 8k --parallel 2 --oob-writes \
         --force-share --quiet disk c",
        "convert --source-format raw --target-format qcow2 --no-create --target-is-zero --progress disk c",
        "convert --source-format raw --output-format qcow2 --backing disk --backing-format raw disk d",
        "info --format raw --output json --force-share --backing-chain disk",
        "map --format raw --output json --start-offset 0 --max-length 4k --force-share disk",
        "compare --a-format raw --b-format raw --strict --cache none --force-share --quiet disk disk",
        "measure --target-format raw --size 1M --output json --force-share",
    ] {
        bench.prints(&line.split_whitespace().collect::<Vec<_>>());
    }
}

/// Options in a line of help: `  -f, --format FMT`.
fn options_in(line: &str) -> Vec<String> {
    let Some(rest) = line.strip_prefix("  ").filter(|rest| rest.starts_with('-')) else {
        return Vec::new();
    };
    let words = rest.split([' ', ',', '=']).filter(|word| word.starts_with('-'));
    words.map(|word| word.trim_end_matches('|').to_owned()).collect()
}

/// Long options of upstream's qemu-img 10 that Debian's does not list.
const UPSTREAM: &[(&str, &[&str])] = &[
    ("bench", &["--flush-interval", "--no-drain", "--pattern", "--image-opts", "--force-share"]),
    ("bitmap", &["--merge", "--add", "--remove", "--clear", "--enable", "--disable", "--object"]),
    ("convert", &["--source-image-opts", "--target-is-zero", "--skip-broken-bitmaps", "--salvage"]),
    ("info", &["--output", "--backing-chain"]),
    ("map", &["--start-offset", "--max-length"]),
    ("measure", &["--size", "--output"]),
    ("resize", &["--preallocation", "--shrink"]),
];

#[test]
fn every_option_that_qemu_img_lists_is_known() {
    let Some(_) = crate::common::Qemu::find() else { return };
    let bench = Bench::new();
    let commands = [
        "amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd",
        "info", "map", "measure", "rebase", "resize", "snapshot",
    ];
    let mut unknown = Vec::new();
    for command in commands {
        let help = bench.command("qemu-img").args([command, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let listed: Vec<String> = help.lines().flat_map(options_in).collect();
        assert!(listed.len() > 2, "{command}: {help}");
        let upstream = UPSTREAM.iter().filter(|(name, _)| *name == command);
        let upstream = upstream.flat_map(|(_, options)| options.iter().map(|o| (*o).to_owned()));
        for option in listed.into_iter().chain(upstream) {
            let answer = said(&bench.anydisk(&[command, &option]));
            if answer.contains("unrecognized option") || answer.contains("invalid option") {
                unknown.push(format!("{command} {option}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn progress_goes_from_nothing_to_all_on_one_line() {
    let bench = Bench::new();
    bench.raw("disk", 4 << 20, &[(0, &[7; 4 << 20])]);
    for line in [
        &["convert", "-p", "-f", "raw", "-O", "qcow2", "disk", "base"][..],
        &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"],
        &["compare", "-p", "base", "top"],
        &["amend", "-p", "-o", "lazy_refcounts=on", "top"],
        &["rebase", "-p", "-b", "disk", "-F", "raw", "top"],
        &["commit", "-p", "-q", "-f", "qcow2", "top"],
        &["convert", "-p", "-q", "-f", "raw", "disk", "copy"],
    ] {
        let text = bench.prints(line);
        if !line.contains(&"-p") || line.contains(&"-q") {
            assert_eq!(text, "", "{line:?}");
            continue;
        }
        let whole = text.starts_with("    (0.00/100%)\r") && text.contains("    (100.00/100%)\r");
        assert!(whole, "{line:?}: {text:?}");
    }
}
