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
    assert!(file == output.stdout, "{}", said(&output));
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
fn a_file_that_is_called_so_is_a_file() {
    let bench = Bench::new();
    bench.raw("-", 1 << 20, &[(0, b"here")]);
    let text = bench.prints(&["map", "--output=json", "-f", "raw", "./-"]);
    assert_eq!(bench.prints(&["map", "--output=json", "-f", "raw", "-"]), text);
}
