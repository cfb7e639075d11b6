//! What continuous integration runs.

use std::path::{Path, PathBuf};

use crate::run::{anydisk, cargo, cargo_program, is_there, root, run, run_with, target};
use crate::{demo, fuzz};

/// Everything, in the order in which it fails fastest.
pub(crate) fn ci() -> Result<(), String> {
    if !is_there("qemu-img", &["--version"]) {
        return Err("qemu-img is missing, and our output is judged by it".into());
    }
    lint()?;
    test()?;
    mutants()?;
    loom()?;
    examples()?;
    cargo(&["bench", "--locked", "-p", "anydisk-benches", "--no-run"])?;
    demo::task()?;
    jobs()?;
    fuzz::task()
}

pub(crate) fn lint() -> Result<(), String> {
    run("bash", &["-n", ".ci/run"])?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    let documented = ["doc", "--locked", "--workspace", "--no-deps"];
    run_with(&cargo_program(), &documented, &[("RUSTDOCFLAGS", "-D warnings")])
}

/// The README's own command, with the judges required.
pub(crate) fn test() -> Result<(), String> {
    let all = ["test", "--locked", "--workspace"];
    run_with(&cargo_program(), &all, &[("ANYDISK_REQUIRE_QEMU", "1")])
}

/// Damaged images again, one test at a time: then the memory that each takes can be measured.
pub(crate) fn mutants() -> Result<(), String> {
    let line =
        ["test", "--locked", "--workspace", "--test", "it", "mutants", "--", "--test-threads=1"];
    run_with(&cargo_program(), &line, &[("ANYDISK_ALONE", "1")])
}

pub(crate) fn examples() -> Result<(), String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("examples"))
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(String::from))
        .collect();
    names.sort();
    let run = |name: &String| cargo(&["run", "--quiet", "--locked", "--example", name]);
    names.iter().try_for_each(run)
}

/// The parts without locks under every interleaving. A folder of its own: all is built anew.
pub(crate) fn loom() -> Result<(), String> {
    let line = ["test", "--locked", "-p", "anydisk-core", "--lib", "interleavings"];
    let folder = target().join("loom").display().to_string();
    let variables = [("RUSTFLAGS", "--cfg anydisk_loom"), ("CARGO_TARGET_DIR", &*folder)];
    run_with(&cargo_program(), &line, &variables)
}

pub(crate) fn bench() -> Result<(), String> {
    anydisk()?;
    for tables in ["ratios", "snapshots"] {
        cargo(&["run", "--release", "--locked", "-p", "anydisk-benches", "--bin", tables])?;
    }
    Ok(())
}

/// A format to convert to: `-O`, whether `-c`, and `-o`.
type Kind = (&'static str, bool, &'static str);

const KINDS: &[Kind] = &[
    ("raw", false, ""),
    ("qcow2", false, ""),
    ("qcow2", false, "cluster_size=512"),
    ("qcow2", false, "cluster_size=2M"),
    ("qcow2", true, ""),
    ("qcow2", true, "compression_type=zstd"),
    ("vdi", false, ""),
    ("vdi", false, "static=on"),
    ("vmdk", false, ""),
    ("vmdk", false, "subformat=streamOptimized"),
];

/// Every ordered pair of formats; each output is checked and compared by qemu-img.
pub(crate) fn jobs() -> Result<(), String> {
    let folder = target().join("jobs");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let tool = anydisk()?;
    let raw = folder.join("source.raw");
    write_source(&raw).map_err(|error| error.to_string())?;
    for (number, from) in KINDS.iter().enumerate() {
        let source = folder.join(format!("{number}.{}", from.0));
        convert(&tool, ("raw", &raw), (*from, &source))?;
        judge(("raw", &raw), (from.0, &source))?;
        for to in KINDS {
            let target = folder.join(format!("target.{}", to.0));
            convert(&tool, (from.0, &source), (*to, &target))?;
            judge(("raw", &raw), (to.0, &target))?;
        }
    }
    std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())
}

/// 24 MiB with data, text that packs well, noise and holes, and an odd size.
fn write_source(path: &Path) -> std::io::Result<()> {
    let mut bytes = vec![0; (24 << 20) + 512];
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    for (index, byte) in bytes.iter_mut().enumerate() {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *byte = match (index >> 16) % 7 {
            0 | 1 => u8::try_from(index % 251).unwrap_or(0),
            2 => u8::try_from(noise >> 56).unwrap_or(0),
            3 if index % 65536 < 4096 => 7,
            _ => 0,
        };
    }
    std::fs::write(path, bytes)
}

fn convert(tool: &str, from: (&str, &PathBuf), to: (Kind, &PathBuf)) -> Result<(), String> {
    let (source, target) = (from.1.display().to_string(), to.1.display().to_string());
    let (format, packed, options) = to.0;
    let mut line = vec!["convert", "-f", from.0, "-O", format];
    if packed {
        line.push("-c");
    }
    if !options.is_empty() {
        line.extend(["-o", options]);
    }
    line.extend([&*source, &*target]);
    run(tool, &line)
}

fn judge(source: (&str, &PathBuf), target: (&str, &PathBuf)) -> Result<(), String> {
    let (first, second) = (source.1.display().to_string(), target.1.display().to_string());
    if target.0 != "raw" {
        run("qemu-img", &["check", "-q", "-f", target.0, &second])?;
    }
    run("qemu-img", &["compare", "-f", source.0, "-F", target.0, &first, &second])
}
