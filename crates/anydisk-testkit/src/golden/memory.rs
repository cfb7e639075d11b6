//! How much memory a case takes, measured in a process of its own.

use std::process::Command;
use std::thread;

use anydisk_core::Registry;

use super::judge::open;
use super::{Case, cases};
use crate::digest::{Reading, content_sha256};
use crate::memory::Meter;

/// Memory that one image may take, in KiB.
const LIMIT: u64 = 64 << 10;

/// Set in the process that measures.
const MEASURE: &str = "ANYDISK_MEASURE_MEMORY";

/// Opens and reads all cases of a format in another process, and looks at the most memory that each
/// took. `test` is the path of the test that calls this; the other process runs only that.
///
/// # Panics
/// If one took too much.
pub fn judge_memory(test: &str, format: &str, registry: &Registry) {
    if std::env::var_os(MEASURE).is_some() {
        return measure_all(format, registry);
    }
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let program = std::env::current_exe().expect("the test runs from a file");
    let output = Command::new(program)
        .args([name, "--exact", "--nocapture"])
        .env(MEASURE, "1")
        .output()
        .expect("the test can be run again");
    let (out, err) = (&output.stdout, &output.stderr);
    let told = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(told.contains("1 passed"), "{told}");
    eprint!("{}", String::from_utf8_lossy(err));
}

fn measure_all(format: &str, registry: &Registry) {
    if Meter::start().is_none() {
        eprintln!("skipped: this system does not tell the most memory that a process took");
        return;
    }
    let taken: Vec<(u64, Case)> =
        cases(format).into_iter().map(|case| (measure(&case, registry), case)).collect();
    let (most, case) = taken.iter().max_by_key(|(most, _)| *most).expect("there are cases");
    eprintln!("golden images of {format}: {case} takes the most memory, {most} KiB");
    let over: Vec<String> = taken
        .iter()
        .filter(|(most, _)| *most >= LIMIT)
        .map(|(most, case)| format!("{case}: {most} KiB"))
        .collect();
    assert!(over.is_empty(), "more than {LIMIT} KiB: {over:?}");
}

/// The memory that opening and reading the case takes at most, in KiB.
fn measure(case: &Case, registry: &Registry) -> u64 {
    let unpacked = case.unpack();
    let meter = Meter::start();
    let (case, registry) = (case.clone(), registry.clone());
    // What comes out, or whether it panics, is for the other test to judge.
    let _ = thread::spawn(move || {
        let disk = open(&case, &registry, &unpacked)?;
        content_sha256(&disk, Reading::Large)
    })
    .join();
    meter.map_or(0, |meter| meter.taken())
}
