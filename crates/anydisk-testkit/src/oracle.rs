//! Other programs, asked for their opinion.
//!
//! A test that needs one begins with `let Some(qemu) = Qemu::find() else { return };`, which says
//! aloud that it is skipped where the program is missing. Where the environment variable
//! `ANYDISK_REQUIRE_QEMU` is set, a missing program is a failure.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use anydisk_core::{HostOffset, Storage};
use serde_json::Value;

/// Whether a program is on the search path. Says aloud if not, so that a test may just end.
#[must_use]
pub fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// qemu-img and qemu-io.
#[derive(Clone, Debug)]
pub struct Qemu {
    version: String,
}

/// What `qemu-img check` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Clusters that nothing names: space is lost, no data.
    pub leaks: u64,
    /// Damage.
    pub corruptions: u64,
}

/// A run of `qemu-img map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedByQemu {
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Which image of the chain it is in; 0 is the top.
    pub depth: u64,
    /// An image of the chain has something there.
    pub present: bool,
    /// It reads as zero.
    pub zero: bool,
    /// It is stored as data.
    pub data: bool,
    /// It is packed.
    pub compressed: bool,
    /// Where it is in its file, if it is there as it is.
    pub offset: Option<u64>,
}

impl Qemu {
    /// The programs of the search path, or `None`, said aloud.
    ///
    /// # Panics
    /// If they are missing and `ANYDISK_REQUIRE_QEMU` is set.
    #[must_use]
    pub fn find() -> Option<Self> {
        let version = |program: &str| Command::new(program).arg("--version").output();
        match (version("qemu-img"), version("qemu-io")) {
            (Ok(img), Ok(_)) => {
                let text = String::from_utf8_lossy(&img.stdout);
                let version = text.lines().next().unwrap_or_default().to_owned();
                Some(Self { version })
            }
            (img, _) => {
                let missing = if img.is_err() { "qemu-img" } else { "qemu-io" };
                let required = std::env::var_os("ANYDISK_REQUIRE_QEMU").is_some();
                assert!(!required, "{missing} is not installed, and ANYDISK_REQUIRE_QEMU is set");
                eprintln!("skipped: {missing} is not installed");
                None
            }
        }
    }

    /// The line that tells its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Makes an image: `create("qcow2", &["cluster_size=512"], path, "1M")`.
    ///
    /// # Panics
    /// If qemu-img does not.
    pub fn create(&self, format: &str, options: &[&str], path: &Path, size: &str) {
        let mut arguments = vec![os("create"), os("-q"), os("-f"), os(format)];
        push_options(&mut arguments, options);
        arguments.extend([path.into(), os(size)]);
        succeed("qemu-img", arguments);
    }

    /// Checks an image, without repairing it.
    ///
    /// # Errors
    /// What qemu-img says where it cannot even check.
    pub fn check(&self, path: &Path, format: &str) -> Result<Checked, String> {
        let arguments = [os("check"), os("--output=json"), os("-f"), os(format), path.into()];
        let output = run("qemu-img", arguments).map_err(|error| error.to_string())?;
        // 2: corruptions, 3: leaks; both have been counted.
        if !matches!(output.status.code(), Some(0 | 2 | 3)) {
            return Err(told(&output));
        }
        let found = json(&output.stdout)?;
        if found["check-errors"].as_u64().unwrap_or(0) > 0 {
            return Err(told(&output));
        }
        let count = |name: &str| found[name].as_u64().unwrap_or(0);
        Ok(Checked { leaks: count("leaks"), corruptions: count("corruptions") })
    }

    /// Fails unless the image is undamaged. Leaks are allowed.
    ///
    /// # Panics
    /// With what qemu-img found.
    pub fn assert_undamaged(&self, path: &Path, format: &str) {
        let checked = self.check(path, format).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(checked.corruptions, 0, "{}", path.display());
    }

    /// Fails unless two images hold the same.
    ///
    /// # Panics
    /// With what qemu-img says of the difference.
    pub fn assert_same(&self, a: (&Path, &str), b: (&Path, &str)) {
        let formats = [os("-f"), os(a.1), os("-F"), os(b.1)];
        let arguments = [os("compare")].into_iter().chain(formats).chain([a.0.into(), b.0.into()]);
        succeed("qemu-img", arguments);
    }

    /// Converts an image.
    ///
    /// # Panics
    /// If qemu-img does not.
    pub fn convert(&self, from: (&Path, &str), to: (&Path, &str), options: &[&str]) {
        let mut arguments = vec![os("convert"), os("-f"), os(from.1), os("-O"), os(to.1)];
        push_options(&mut arguments, options);
        arguments.extend([from.0.into(), to.0.into()]);
        succeed("qemu-img", arguments);
    }

    /// What `qemu-img info` says, as JSON.
    ///
    /// # Panics
    /// If qemu-img fails.
    #[must_use]
    pub fn info(&self, path: &Path, format: &str) -> Value {
        let arguments = [os("info"), os("--output=json"), os("-f"), os(format), path.into()];
        json(&succeed("qemu-img", arguments).stdout).expect("qemu-img writes JSON")
    }

    /// What `qemu-img map` says of the whole chain.
    ///
    /// # Panics
    /// If qemu-img fails.
    #[must_use]
    pub fn map(&self, path: &Path, format: &str) -> Vec<MappedByQemu> {
        let arguments = [os("map"), os("--output=json"), os("-f"), os(format), path.into()];
        let map = json(&succeed("qemu-img", arguments).stdout).expect("qemu-img writes JSON");
        let runs = map.as_array().expect("a map is a list");
        runs.iter().map(MappedByQemu::parse).collect()
    }

    /// Runs commands of qemu-io on an image (`write -P 7 0 64k`), and returns what it prints.
    ///
    /// # Panics
    /// If qemu-io fails, or a pattern that was to be verified is not there.
    pub fn io(&self, path: &Path, format: &str, commands: &[&str]) -> String {
        let mut arguments = vec![os("-f"), os(format)];
        arguments.extend(commands.iter().flat_map(|command| [os("-c"), os(command)]));
        arguments.push(path.into());
        let output = told(&succeed("qemu-io", arguments));
        assert!(!output.contains("Pattern verification failed"), "{output}");
        output
    }

    /// Whether an image that is in any store is undamaged; for
    /// [`FormatFixture::checked_by`](crate::suite::FormatFixture::checked_by). Starting a program
    /// takes milliseconds, so this is for tests that ask rarely.
    ///
    /// # Errors
    /// What qemu-img found. Leaks are allowed.
    pub fn check_store(&self, store: &Arc<dyn Storage>, format: &str) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        save(&**store, file.path()).map_err(|error| error.to_string())?;
        match self.check(file.path(), format)? {
            Checked { corruptions: 0, .. } => Ok(()),
            Checked { corruptions, .. } => Err(format!("qemu-img finds {corruptions} corruptions")),
        }
    }
}

impl MappedByQemu {
    fn parse(json: &Value) -> Self {
        let flag = |name: &str| json[name].as_bool().unwrap_or(false);
        Self {
            start: json["start"].as_u64().expect("a run has a start"),
            length: json["length"].as_u64().expect("a run has a length"),
            depth: json["depth"].as_u64().unwrap_or(0),
            present: flag("present"),
            zero: flag("zero"),
            data: flag("data"),
            compressed: flag("compressed"),
            offset: json["offset"].as_u64(),
        }
    }
}

/// Copies all bytes of a store to a file.
fn save(store: &dyn Storage, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut bytes = vec![0; usize::try_from(store.len()?)?];
    store.read_at(HostOffset::ZERO, &mut bytes)?;
    Ok(std::fs::write(path, bytes)?)
}

fn os(text: &str) -> OsString {
    text.into()
}

fn push_options(arguments: &mut Vec<OsString>, options: &[&str]) {
    arguments.extend(options.iter().flat_map(|option| [os("-o"), os(option)]));
}

fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<Output> {
    Command::new(program).args(arguments).output()
}

/// Runs a program that must succeed.
fn succeed(program: &str, arguments: impl IntoIterator<Item = OsString>) -> Output {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let output = run(program, &arguments).unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", told(&output));
    output
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use anydisk_storage::MemoryStorage;

    use super::*;

    #[test]
    fn qemu_makes_fills_maps_and_compares_an_image() {
        let Some(qemu) = Qemu::find() else { return };
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.qcow2"), folder.path().join("b.raw"));
        qemu.create("qcow2", &["cluster_size=512"], &a, "64k");
        qemu.io(&a, "qcow2", &["write -P 7 512 1k", "read -P 7 512 1k"]);
        qemu.convert((&a, "qcow2"), (&b, "raw"), &[]);
        qemu.assert_same((&a, "qcow2"), (&b, "raw"));
        assert_eq!(std::fs::read(&b).unwrap()[512..1536], [7; 1024]);
        assert_eq!(qemu.check(&a, "qcow2"), Ok(Checked { leaks: 0, corruptions: 0 }));
        assert_eq!(qemu.info(&a, "qcow2")["cluster-size"], 512);
        let map = qemu.map(&a, "qcow2");
        let data: Vec<_> = map.iter().filter(|run| run.data).map(|r| (r.start, r.length)).collect();
        assert_eq!(data, [(512, 1024)]);
    }

    #[test]
    #[should_panic(expected = "Pattern verification failed")]
    fn a_pattern_that_is_not_there_is_a_failure() {
        let Some(qemu) = Qemu::find() else { panic!("Pattern verification failed: no qemu") };
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(512).unwrap();
        qemu.io(file.path(), "raw", &["read -P 1 0 512"]);
    }

    #[test]
    fn damage_in_a_store_is_found() {
        let Some(qemu) = Qemu::find() else { return };
        let file = tempfile::NamedTempFile::new().unwrap();
        qemu.create("qcow2", &[], file.path(), "1M");
        qemu.io(file.path(), "qcow2", &["write -P 7 0 64k"]);
        let mut bytes = std::fs::read(file.path()).unwrap();
        let store =
            |bytes: &[u8]| -> Arc<dyn Storage> { Arc::new(MemoryStorage::new(bytes.into())) };
        assert_eq!(qemu.check_store(&store(&bytes), "qcow2"), Ok(()));
        bytes[2 << 16..3 << 16].fill(0); // The refcounts.
        assert!(qemu.check_store(&store(&bytes), "qcow2").unwrap_err().contains("corruptions"));
    }
}
