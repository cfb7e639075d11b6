//! Each fuzz target for a short while.

use std::sync::Mutex;

use crate::run::{cargo, is_there, root, run, run_quietly};

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
    run("cargo", &["+nightly", "fuzz", "build"])?;
    // A short run begins the same each time: the same commit has the same verdict.
    let (seconds, seed) = match std::env::var(LONGER) {
        Ok(seconds) => (seconds, "-seed=0"),
        Err(_) => (SECONDS.to_owned(), "-seed=1"),
    };
    let limit = format!("-max_total_time={seconds}");
    side_by_side(&names, |name| {
        let target = ["+nightly", "fuzz", "run", name, "--"];
        let how = [&limit, seed, "-rss_limit_mb=2048", "-timeout=10"];
        run_quietly("cargo", &[&target[..], &how[..]].concat())
    })
}

/// Does the work for each name, as many at once as there are processors, until one fails.
fn side_by_side(
    names: &[String],
    work: impl Fn(&str) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Mutex::new(names.iter());
    let lane = || {
        let take = || next.lock().ok()?.next();
        std::iter::from_fn(take).try_for_each(|name| {
            work(name).inspect_err(|_| {
                // The others end what they are at, and take nothing more.
                while take().is_some() {}
            })
        })
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| "a lane panicked")?)
    })
}
