//! Many threads on one image under a detector of data races (ThreadSanitizer).
//!
//! All our code is built with it. The standard library is not, since that would need its source: of
//! what our code uses, only the slow paths of locks are out of line there. A few lines of C stand
//! between, and tell the detector when they return.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{is_there, run, run_with, target};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Seconds that the race goes on, unless the variable below says otherwise.
const SECONDS: &str = "60";

/// Set to a number of seconds to look for longer.
const LONGER: &str = "ANYDISK_RACE_SECONDS";

/// What the standard library does out of line, and so unseen: its ends are told to the detector.
/// A part of the symbol's name, and the shape of the function.
const OUT_OF_LINE: &[(&str, Shape)] = &[
    ("5mutex5futexNtB2_5Mutex14lock_contended", Shape::Lock),
    ("6rwlock5futexNtB2_6RwLock14read_contended", Shape::Lock),
    ("6rwlock5futexNtB2_6RwLock15write_contended", Shape::Lock),
    ("7condvar5futexNtB2_7Condvar4wait", Shape::Wait),
    ("7condvar5futexNtB2_7Condvar12wait_timeout", Shape::WaitTimeout),
];

/// What the detector cannot see here: that a `OnceLock`, which the standard library fills, is filled
/// before others find it so; and what the test harness itself sends.
const SUPPRESSED: &str = "race:ByGuest>::at\nrace:test::event::CompletedTest\n";

#[derive(Clone, Copy)]
enum Shape {
    Lock,
    Wait,
    WaitTimeout,
}

pub(crate) fn task() -> Result<(), String> {
    let version: &[&str] = &["--version"];
    let needed = [("rustc", &["+nightly", "--version"][..]), ("cc", version), ("readelf", version)];
    if !needed.iter().all(|(program, arguments)| is_there(program, arguments)) {
        return Err("needs Linux on x86-64, a nightly toolchain, cc and readelf".into());
    }
    let folder = target().join("race");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let symbols = symbols()?;
    let flags = flags(&shim(&folder, &symbols)?, &symbols);
    let suppressions = folder.join("suppressions");
    std::fs::write(&suppressions, SUPPRESSED).map_err(|error| error.to_string())?;
    let options = format!("halt_on_error=1 suppressions={}", suppressions.display());
    let seconds = std::env::var(LONGER).unwrap_or_else(|_| SECONDS.to_owned());
    let variables = [
        ("RUSTFLAGS", &*flags),
        ("CARGO_TARGET_DIR", &*folder.display().to_string()),
        ("TSAN_OPTIONS", &options),
        (LONGER, &seconds),
    ];
    let line = [
        "+nightly",
        "test",
        "--locked",
        "-p",
        "anydisk-qcow2",
        "--test",
        "it",
        "--target",
        TARGET,
        "--",
        "--nocapture",
        "--test-threads=1",
        "race::",
    ];
    // With a target named, the flags are for it alone: build scripts run as they are.
    run_with("cargo", &line, &variables)
}

/// The flags of the compiler.
fn flags(shim: &Path, symbols: &[(String, Shape)]) -> String {
    let wrapped = symbols.iter().map(|(symbol, _)| format!("-Clink-arg=-Wl,--wrap={symbol}"));
    let detector = ["-Zsanitizer=thread", "-Cunsafe-allow-abi-mismatch=sanitizer"];
    let all = detector.into_iter().map(str::to_owned);
    let all = all.chain([format!("-Clink-arg={}", shim.display())]).chain(wrapped);
    all.collect::<Vec<_>>().join(" ")
}

/// The names of these functions in the standard library of the nightly toolchain.
fn symbols() -> Result<Vec<(String, Shape)>, String> {
    let libdir = output("rustc", &["+nightly", "--print", "target-libdir", "--target", TARGET])?;
    let files = std::fs::read_dir(libdir.trim()).map_err(|error| error.to_string())?;
    let is_std = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    };
    let library = files.filter_map(|entry| Some(entry.ok()?.path())).find(is_std);
    let library = library.ok_or_else(|| format!("no standard library for {TARGET}"))?;
    let table = output("readelf", &["-Ws", &library.display().to_string()])?;
    let found = |(part, shape): &(&str, Shape)| {
        let mut names = table.lines().filter_map(|line| line.split_whitespace().last());
        let name = names.find(|name| name.starts_with("_R") && name.ends_with(part));
        let missing = || format!("{} has no {part}", library.display());
        name.map(|name| (name.to_owned(), *shape)).ok_or_else(missing)
    };
    OUT_OF_LINE.iter().map(found).collect()
}

/// Builds what stands between our code and these functions.
fn shim(folder: &Path, symbols: &[(String, Shape)]) -> Result<PathBuf, String> {
    let parts = symbols.iter().map(|(name, shape)| shape.wrapper(name));
    let text: String = std::iter::once(HEAD.to_owned()).chain(parts).collect();
    let (source, object) = (folder.join("shim.c"), folder.join("shim.o"));
    std::fs::write(&source, text).map_err(|error| error.to_string())?;
    let (from, to) = (source.display().to_string(), object.display().to_string());
    run("cc", &["-O1", "-c", "-o", &to, &from])?;
    Ok(object)
}

/// A lock of readers and writers has its state in one of two words.
const HEAD: &str = "\
#include <stdbool.h>
#include <stdint.h>
void __tsan_acquire(void *at);
void __tsan_release(void *at);
static void acquire(char *at) { __tsan_acquire(at); __tsan_acquire(at + 4); }
";

impl Shape {
    /// The function of this name, told to the detector.
    fn wrapper(self, name: &str) -> String {
        match self {
            Self::Lock => format!(
                "void __real_{name}(void *lock);\n\
                 void __wrap_{name}(void *lock) {{ __real_{name}(lock); acquire(lock); }}\n"
            ),
            Self::Wait => format!(
                "void __real_{name}(void *self, void *lock);\n\
                 void __wrap_{name}(void *self, void *lock) {{\n\
                 __tsan_release(lock); __real_{name}(self, lock); acquire(lock); }}\n"
            ),
            Self::WaitTimeout => format!(
                "bool __real_{name}(void *self, void *lock, uint64_t s, uint32_t ns);\n\
                 bool __wrap_{name}(void *self, void *lock, uint64_t s, uint32_t ns) {{\n\
                 __tsan_release(lock); bool woken = __real_{name}(self, lock, s, ns);\n\
                 acquire(lock); return woken; }}\n"
            ),
        }
    }
}

/// What a program prints.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {arguments:?}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
