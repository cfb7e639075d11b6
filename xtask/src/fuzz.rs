//! Each fuzz target for a short while.

use crate::run::{cargo, is_there, root, run};

/// Seconds for one target, unless the variable below says otherwise.
const SECONDS: &str = "10";

/// Set to a number of seconds to look for longer, and each time somewhere else.
const LONGER: &str = "ANYDISK_FUZZ_SECONDS";

pub(crate) fn task() -> Result<(), String> {
    if !is_there("cargo", &["+nightly", "fuzz", "--version"]) {
        return Err("needs a nightly toolchain and `cargo install cargo-fuzz --locked`".into());
    }
    let mut names: Vec<String> = std::fs::read_dir(root().join("fuzz/targets"))
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(String::from))
        .collect();
    names.sort();
    cargo(&["run", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--bin", "seed"])?;
    // A short run begins the same each time: the same commit has the same verdict.
    let (seconds, seed) = match std::env::var(LONGER) {
        Ok(seconds) => (seconds, "-seed=0"),
        Err(_) => (SECONDS.to_owned(), "-seed=1"),
    };
    let limit = format!("-max_total_time={seconds}");
    for name in &names {
        run(
            "cargo",
            &[
                "+nightly",
                "fuzz",
                "run",
                name,
                "--",
                &limit,
                seed,
                "-rss_limit_mb=2048",
                "-timeout=10",
            ],
        )?;
    }
    Ok(())
}
