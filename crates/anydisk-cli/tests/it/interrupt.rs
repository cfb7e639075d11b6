//! Ctrl-C, and files that others hold.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::common::{Bench, said};
use anydisk::storage::{FileStorage, OpenOptions};

/// Bytes that do not compress, so that packing them takes its time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

#[test]
fn a_copy_that_is_interrupted_leaves_what_was_there_and_nothing_else() {
    let bench = Bench::new();
    std::fs::write(bench.path("source"), noise(96 << 20)).unwrap();
    std::fs::write(bench.path("target"), b"old").unwrap();
    let line = ["convert", "-p", "-c", "-m1", "-f", "raw", "-O", "qcow2", "source", "target"];
    let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
    let pipes = command.args(line).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // Progress is told: the copy is under way.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).ends_with("anydisk: cancelled\n"), "{}", said(&output));
    assert_eq!(std::fs::read(bench.path("target")).unwrap(), b"old");
    let names = std::fs::read_dir(bench.path("")).unwrap().count();
    assert_eq!(names, 2);
}

#[test]
fn a_copy_into_a_pipe_that_nobody_reads_ends_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    std::fs::write(bench.path("source"), noise(4 << 20)).unwrap();
    for format in [&["-O", "raw"][..], &["-O", "vmdk", "-o", "subformat=streamOptimized"]] {
        let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        let line = [&["convert", "-f", "raw"], format, &["source", "-"]].concat();
        let mut child = command.args(line).stdout(Stdio::piped()).spawn().unwrap();
        // It writes, and the pipe is soon full.
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
        let pid = child.id().to_string();
        // Whoever runs the tests in the background has the other signal ignored.
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(15), "{status:?}");
    }
}

#[test]
fn a_file_that_another_program_writes_to_is_neither_read_nor_replaced() {
    let bench = Bench::new();
    bench.raw("held", 1 << 20, &[]);
    bench.raw("free", 1 << 20, &[]);
    let path = bench.path("held");
    let held = FileStorage::open(&path, &OpenOptions::new().write(true)).unwrap();
    let asked = "Is another process using the image [held]?\n";
    for line in [
        &["info", "-f", "raw", "held"][..],
        &["convert", "-f", "raw", "held", "new"],
        &["convert", "-f", "raw", "free", "held"],
        &["convert", "-n", "-f", "raw", "free", "held"],
        &["create", "held", "1M"],
    ] {
        let error = bench.fails(line, 1);
        assert!(error.contains("Failed to get ") && error.ends_with(asked), "{line:?}: {error}");
    }
    bench.prints(&["info", "-U", "-f", "raw", "held"]);
    drop(held);
    bench.prints(&["convert", "-f", "raw", "free", "held"]);
}
