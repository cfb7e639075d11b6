//! Files with strange names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::common::{Bench, said};

/// Names that break what is careless with them.
const NAMES: &[&[u8]] = &[
    b"with blanks",
    b"colon:inside",
    b"vbox:127.0.0.1",
    b"word:{}",
    b"comma,comma,,",
    b"-leading-dash",
    b"--output=json",
    b"quote'\"\\",
    b"line\nbreak",
    b"\xff\xfe not text",
    "\u{1f4be} \u{e9}".as_bytes(),
];

fn run(bench: &Bench, options: &[&str], names: &[&OsStr]) -> String {
    let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
    let output = command.args(options).arg("--").args(names).output().unwrap();
    assert!(output.status.success(), "{options:?} {names:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_takes_every_name() {
    for name in NAMES.iter().map(|name| OsStr::from_bytes(name)) {
        let bench = Bench::new();
        let mut copy = OsString::from(name);
        copy.push(".qcow2");
        run(&bench, &["create", "-q", "-f", "raw"], &[name, OsStr::new("1M")]);
        run(&bench, &["convert", "-f", "raw", "-O", "qcow2"], &[name, &copy]);
        assert!(run(&bench, &["info"], &[&copy]).contains("file format: qcow2"));
        run(&bench, &["info", "--output=json"], &[&copy]);
        run(&bench, &["map", "-f", "raw", "--output=json"], &[name]);
        run(&bench, &["measure", "-f", "raw"], &[name]);
        let same = run(&bench, &["compare", "-f", "raw"], &[name, &copy]);
        assert_eq!(same, "Images are identical.\n");
        for line in [
            &["check"][..],
            &["inspect"],
            &["snapshot", "-c", "one"],
            &["snapshot", "-l"],
            &["snapshot", "-d", "one"],
            &["bitmap", "--add", "-g", "64k"],
            &["amend", "-o", "lazy_refcounts=on"],
            &["compact"],
            &["bench", "-c", "1"],
        ] {
            match line {
                // The name of the bitmap stands behind that of the file.
                ["bitmap", ..] => run(&bench, line, &[&copy, OsStr::new("changes")]),
                _ => run(&bench, line, &[&copy]),
            };
        }
        run(&bench, &["resize"], &[&copy, OsStr::new("+1M")]);
        run(&bench, &["salvage"], &[&copy, OsStr::new("salvaged")]);
        let operand = |word: &str, name: &OsStr| {
            let mut operand = OsString::from(word);
            operand.push(name);
            operand
        };
        run(
            &bench,
            &["dd", "-f", "raw"],
            &[&operand("if=", name), &operand("of=", OsStr::new("d"))],
        );
        run(
            &bench,
            &["dd", "-f", "raw"],
            &[&operand("if=", OsStr::new("d")), &operand("of=", name)],
        );
    }
}

#[test]
fn an_overlay_of_every_name_is_committed_and_put_over_another_image() {
    for name in NAMES.iter().map(|name| OsStr::from_bytes(name)) {
        let bench = Bench::new();
        bench.raw("base", 1 << 20, &[(0, &[7; 4096])]);
        bench.raw("other", 1 << 20, &[]);
        run(&bench, &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw"], &[name]);
        run(&bench, &["bench", "-w", "--pattern", "9", "-s", "65536", "-c", "1"], &[name]);
        run(&bench, &["commit", "-q"], &[name]);
        assert_eq!(std::fs::read(bench.path("base")).unwrap()[..1 << 16], [9; 1 << 16]);
        run(&bench, &["rebase", "-b", "other", "-F", "raw"], &[name]);
        run(&bench, &["rebase", "-u", "-b", ""], &[name]);
        let out = run(&bench, &["compare", "-F", "raw"], &[name, OsStr::new("base")]);
        assert_eq!(out, "Images are identical.\n", "{name:?}");
    }
}

#[test]
fn a_comma_in_the_value_of_an_option_is_written_twice() {
    let bench = Bench::new();
    let option = "data_file=a,,b=c,,.data,data_file_raw=on";
    bench.prints(&["create", "-q", "-f", "qcow2", "-o", option, "disk", "1M"]);
    assert!(bench.path("a,b=c,.data").is_file());
    assert!(bench.prints(&["info", "disk"]).contains("data file: a,b=c,.data"));
}

#[test]
fn an_overlay_names_the_image_below_byte_for_byte() {
    // Names with a word and a colon are protocols to qemu, so no image may name a file so.
    let names = NAMES.iter().filter(|name| !name.contains(&b':'));
    for name in names.map(|name| OsStr::from_bytes(name)) {
        let bench = Bench::new();
        std::fs::write(bench.path(name), [7; 4096]).unwrap();
        let mut backing = OsString::from("-b");
        backing.push(name);
        let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw"]).arg(backing).arg("top");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name:?}: {}", said(&output));
        run(&bench, &["convert"], &[OsStr::new("top"), OsStr::new("out")]);
        assert_eq!(std::fs::read(bench.path("out")).unwrap(), [7; 4096], "{name:?}");
    }
}

#[test]
fn a_name_that_is_no_text_is_printed_byte_for_byte_wherever_it_stands() {
    let bench = Bench::new();
    let name = OsStr::from_bytes(b"a\xff\x9bb");
    let run = |line: &[&OsStr]| {
        let output = bench.command(env!("CARGO_BIN_EXE_anydisk")).args(line).output().unwrap();
        [output.stdout, output.stderr].concat()
    };
    let has = |line: &[&str]| {
        let line: Vec<_> = line.iter().map(OsStr::new).collect();
        let said = run(&[&line[..], &[name]].concat());
        assert!(said.windows(4).any(|found| found == name.as_bytes()), "{line:?}: {said:?}");
    };
    has(&["info"]);
    std::fs::write(bench.path(name), [7; 512]).unwrap();
    has(&["info", "-f", "raw"]);
    has(&["map", "-f", "raw"]);
    has(&["check", "-f", "qcow2"]);
    let over = run(&["create", "-f", "qcow2", "-F", "raw", "top", "-b"]
        .map(OsStr::new)
        .iter()
        .copied()
        .chain([name])
        .collect::<Vec<_>>());
    assert!(over.windows(4).any(|found| found == name.as_bytes()), "{over:?}");
    std::fs::remove_file(bench.path(name)).unwrap();
    let missing = run(&["map", "top"].map(OsStr::new));
    assert!(missing.windows(4).any(|found| found == name.as_bytes()), "{missing:?}");
}

#[test]
fn a_file_may_be_named_with_the_file_protocol() {
    let bench = Bench::new();
    bench.raw("disk", 512, &[]);
    assert!(bench.prints(&["info", "-f", "raw", "file:disk"]).starts_with("image: disk\n"));
    bench.raw("file:disk", 1024, &[]);
    assert!(bench.prints(&["info", "-f", "raw", "file:disk"]).starts_with("image: ./file:disk\n"));
}

#[test]
fn no_file_is_made_under_the_name_of_what_qemu_would_reach_by_a_protocol() {
    let bench = Bench::new();
    bench.raw("a", 512, &[(0, &[7])]);
    for name in ["nbd:127.0.0.1:10809", "json:{}", "rbd:pool", "null-co://"] {
        for line in [
            vec!["create", name, "1M"],
            vec!["convert", "-f", "raw", "a", name],
            vec!["salvage", "-f", "raw", "a", name],
        ] {
            let error = bench.fails(&line, 1);
            assert!(error.to_lowercase().contains("protocol"), "{line:?}: {error}");
        }
        let of = format!("of={name}");
        bench.fails(&["dd", "-f", "raw", "if=a", &of], 1);
    }
    // Whoever means a file can say so, and reads it by its name.
    bench.prints(&["convert", "-f", "raw", "a", "./nbd:127.0.0.1"]);
    assert!(bench.prints(&["info", "-f", "raw", "nbd:127.0.0.1"]).contains("512 bytes"));
}

#[test]
fn a_null_disk_is_read_written_and_lain_over_like_any_other() {
    let bench = Bench::new();
    bench.raw("a", 512, &[(0, &[7])]);
    bench.prints(&["convert", "-n", "-f", "raw", "a", "null-co://"]);
    let small = ["--image-opts", "driver=null-co,size=64k", "b"];
    bench.prints(&[&["convert"][..], &small[..]].concat());
    assert_eq!(std::fs::read(bench.path("b")).unwrap(), vec![0; 65536]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "null-co://", "-F", "raw", "top"]);
    assert!(bench.prints(&["compare", "top", "null-co://"]).contains("identical"));
    let error = bench.fails(&["info", "--untrusted", "--backing-chain", "top"], 1);
    assert!(error.contains("not followed"), "{error}");
}

#[test]
fn other_protocols_are_refused_by_name() {
    let error = Bench::new().fails(&["info", "nbd://host/disk"], 1);
    assert!(error.contains("Could not open 'nbd://host/disk': Unknown protocol 'nbd'"), "{error}");
}
