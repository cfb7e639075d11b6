//! The tasks of this workspace.

mod check;
mod demo;
mod fuzz;
mod race;
mod run;

use std::process::ExitCode;

/// A task: its name, what it does, how.
type Task = (&'static str, &'static str, fn() -> Result<(), String>);

const TASKS: &[Task] = &[
    ("demo", "convert a real VMDK to qcow2 to raw and show that the bytes agree", demo::task),
    ("ci", "everything that continuous integration runs", check::ci),
    ("lint", "formatting, clippy and documentation, warnings denied", check::lint),
    ("test", "all tests", check::test),
    ("mutants", "damaged images one at a time, the memory of each measured", check::mutants),
    ("loom", "leases, claims and tables in memory under every interleaving", check::loom),
    ("race", "threads on one image under ThreadSanitizer (needs nightly, cc, readelf)", race::task),
    ("examples", "run each example", check::examples),
    ("jobs", "convert every pair of formats, judged by qemu-img", check::jobs),
    ("fuzz", "run each fuzz target for a short while (needs nightly and cargo-fuzz)", fuzz::task),
    ("bench", "the ratios of docs/performance.md", check::bench),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        for (name, help, _) in TASKS {
            println!("cargo xtask {name:<10} {help}");
        }
        return ExitCode::SUCCESS;
    }
    for name in &wanted {
        let Some((_, _, task)) = TASKS.iter().find(|(task, ..)| task == name) else {
            eprintln!("xtask: there is no task {name:?}; run it without arguments for the list");
            return ExitCode::FAILURE;
        };
        if let Err(error) = task() {
            eprintln!("xtask: {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
