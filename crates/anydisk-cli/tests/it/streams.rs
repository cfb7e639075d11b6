//! Standard input and output in place of files.

use std::fs::File;
use std::process::{Output, Stdio};

use crate::common::{Bench, said};

/// Runs anydisk with a file as its standard input.
fn with_input(bench: &Bench, file: &str, arguments: &[&str]) -> Output {
    let input = File::open(bench.path(file)).expect("it is there");
    let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
    command.args(arguments).stdin(Stdio::from(input)).output().expect("anydisk runs")
}

fn disk(bench: &Bench) -> Vec<u8> {
    bench.raw("disk", 1 << 20, &[(0, b"begin"), (700_000, &[9; 70_000])]);
    std::fs::read(bench.path("disk")).expect("it was made")
}

#[test]
fn a_raw_disk_goes_to_standard_output_byte_for_byte() {
    let bench = Bench::new();
    let bytes = disk(&bench);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "qcow2", "-c", "disk", "packed"]);
    let output = bench.anydisk(&["convert", "-p", "-O", "raw", "packed", "-"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stdout == bytes);
    assert!(!bench.path("-").exists());
}

#[test]
fn formats_that_are_written_in_one_pass_are_the_same_as_in_a_file() {
    let bench = Bench::new();
    disk(&bench);
    let options = "subformat=streamOptimized";
    let line = ["convert", "-q", "-f", "raw", "-O", "vmdk", "-o", options, "disk", "-"];
    let output = bench.anydisk(&line);
    std::fs::write(bench.path("stream.vmdk"), &output.stdout).expect("a file");
    let compare = ["compare", "-f", "raw", "disk", "stream.vmdk"];
    assert_eq!(bench.prints(&compare), "Images are identical.\n");
    let output = bench.anydisk(&["convert", "-q", "-f", "raw", "-O", "ova", "disk", "-"]);
    std::fs::write(bench.path("box.ova"), &output.stdout).expect("a file");
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "ova", "disk", "machine.ova"]);
    let file = std::fs::read(bench.path("machine.ova")).expect("it was made");
    assert_eq!(file.len(), output.stdout.len(), "{}", said(&output));
    let disk = std::fs::read(bench.path("disk")).expect("it is there");
    for package in ["box", "machine"] {
        let (file, member) = (format!("{package}.ova"), "machine-disk1.vmdk");
        bench.prints(&["convert", "--member", member, "-O", "raw", &file, "back"]);
        assert!(std::fs::read(bench.path("back")).expect("it was made") == disk, "{package}");
    }
}

#[test]
fn a_format_that_is_written_in_place_is_refused_with_what_to_do() {
    let bench = Bench::new();
    disk(&bench);
    let error = bench.fails(&["convert", "-f", "raw", "-O", "qcow2", "disk", "-"], 1);
    let expected = "anydisk: qcow2 with these options is not written in one pass, as a pipe needs it\n\
                    Name a file, or take raw, ova, or vmdk with -o subformat=streamOptimized.\n";
    assert_eq!(error, expected);
}

#[test]
fn an_image_of_any_format_comes_through_standard_input() {
    let bench = Bench::new();
    let bytes = disk(&bench);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "qcow2", "disk", "image"]);
    let line = ["convert", "-f", "qcow2", "-O", "raw", "-", "copy"];
    let output = with_input(&bench, "image", &line);
    assert!(output.status.success(), "{}", said(&output));
    assert!(std::fs::read(bench.path("copy")).expect("it was made") == bytes);
    let output = with_input(&bench, "disk", &["compare", "-f", "raw", "-", "image"]);
    assert_eq!(said(&output), "Images are identical.\n");
    let output = with_input(&bench, "disk", &["convert", "-f", "raw", "-O", "raw", "-", "-"]);
    assert!(output.stdout == bytes);
    let output = with_input(&bench, "disk", &["map", "--untrusted", "-"]);
    assert!(said(&output).contains("no format recognises standard input"), "{}", said(&output));
}

#[test]
fn every_command_that_reads_one_image_takes_it_from_standard_input() {
    let bench = Bench::new();
    disk(&bench);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "qcow2", "disk", "image"]);
    bench.prints(&["snapshot", "-c", "one", "image"]);
    for (line, said_of_it) in [
        (&["info", "-"][..], "file format: qcow2\nvirtual size: 1 MiB"),
        (&["info", "--output=json", "-"], "\"filename\": \"-\""),
        (&["inspect", "-"], "-: accept\nfile format: qcow2"),
        (&["check", "-"], "No errors were found on the image."),
        (&["map", "-"], "Offset "),
        (&["measure", "-O", "raw", "-"], "required size: 1048576"),
        (&["snapshot", "-l", "-"], "one"),
        (&["bench", "-c", "1", "-"], "Run completed"),
        (&["dd", "if=-", "of=part", "count=1"], ""),
        (&["salvage", "-", "saved"], "0 B are lost"),
    ] {
        let output = with_input(&bench, "image", line);
        assert!(output.status.success(), "{line:?}: {}", said(&output));
        assert!(said(&output).contains(said_of_it), "{line:?}: {}", said(&output));
    }
    for line in [
        &["check", "-r", "all", "-"][..],
        &["resize", "-", "2M"],
        &["snapshot", "-c", "two", "-"],
        &["amend", "-o", "compat=0.10", "-"],
        &["rebase", "-u", "-b", "", "-"],
        &["compact", "-"],
        &["commit", "-"],
        &["bitmap", "--add", "-", "monday"],
    ] {
        let output = with_input(&bench, "image", line);
        assert!(
            said(&output).contains("Standard input cannot be changed"),
            "{line:?}: {}",
            said(&output)
        );
    }
    assert!(!bench.path("-").exists());
}

#[test]
fn what_cannot_be_done_with_standard_output_is_refused_aloud() {
    let bench = Bench::new();
    disk(&bench);
    for options in [&["-o", "backing_file=x,backing_fmt=vmdk"][..], &["--output=json"], &["-n"]] {
        let line = ["convert", "-f", "raw", "-O", "vmdk", "disk", "-"];
        let output = bench.anydisk(&[&line[..], options].concat());
        assert!(!output.status.success() && output.stdout.is_empty(), "{}", said(&output));
        assert!(said(&output).contains("not supported"), "{}", said(&output));
    }
}

#[test]
fn an_image_whose_reader_stops_or_is_not_there_is_told_to_be_lost() {
    let bench = Bench::new();
    disk(&bench);
    for format in ["raw", "ova"] {
        let line = ["convert", "-f", "raw", "-O", format, "disk", "-"];
        let mut child = bench
            .command(env!("CARGO_BIN_EXE_anydisk"))
            .args(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert!(
            said(&output).contains("closed by its reader before the image was whole"),
            "{}",
            said(&output)
        );
    }
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let line = ["convert", "-f", "raw", "disk", "-"];
    let closed =
        bench.command(env!("CARGO_BIN_EXE_anydisk")).args(line).stdout(null).output().unwrap();
    assert!(said(&closed).contains("Standard output is closed"), "{}", said(&closed));
    let thrown_away =
        bench.command(env!("CARGO_BIN_EXE_anydisk")).args(line).stdout(Stdio::null()).status();
    // The standard library opens it to write only, as a shell does.
    assert!(thrown_away.unwrap().success());
}

#[test]
fn a_file_that_is_called_so_is_a_file() {
    let bench = Bench::new();
    bench.raw("-", 1 << 20, &[(0, b"here")]);
    let text = bench.prints(&["map", "--output=json", "-f", "raw", "./-"]);
    assert_eq!(bench.prints(&["map", "--output=json", "-f", "raw", "-"]), text);
}

#[test]
fn dd_writes_to_standard_output_and_one_name_of_standard_input_is_one_disk() {
    let bench = Bench::new();
    let bytes = disk(&bench);
    let output = with_input(&bench, "disk", &["dd", "if=-", "of=-", "bs=64k", "count=2"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stdout == bytes[..128 << 10]);
    assert!(!bench.path("-").exists());
    let output = with_input(&bench, "disk", &["compare", "-f", "raw", "-F", "raw", "-", "-"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Images are identical.\n");
    let error = bench.fails(&["dd", "-f", "raw", "-O", "qcow2", "if=disk", "of=-"], 1);
    assert!(error.contains("is not written in one pass"), "{error}");
}
