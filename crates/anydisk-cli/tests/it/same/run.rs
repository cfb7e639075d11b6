//! Runs groups.

use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anydisk::storage::name;

use super::judge;
use super::line::{By, Group, Line, groups};
use super::normal;

/// A folder for each program, side by side, and the program in it under the same name.
pub(super) struct Twins {
    folder: tempfile::TempDir,
}

/// Runs the groups of a file and complains of all that differs.
pub(super) fn file(name: &str, text: &'static str) {
    let groups = groups(name, text);
    let complaints: Vec<String> = groups.iter().flat_map(group).collect();
    assert!(complaints.is_empty(), "{} differences\n{}", complaints.len(), complaints.join("\n"));
}

/// What differs in a group.
fn group(group: &Group) -> Vec<String> {
    let twins = Twins::new();
    let mut complaints = Vec::new();
    let (prepared, lines): (Vec<_>, Vec<_>) =
        group.lines.iter().partition(|line| line.by != By::Both);
    twins.prepare(&prepared);
    for line in lines {
        let outputs = twins.run(line);
        let told = differences(group, line, &outputs);
        complaints.extend(told.map(|what| format!("{}\n{what}", group.place)));
    }
    if !group.without_files {
        let [mine, qemus] = [twins.mine(), twins.qemus()];
        let told = judge::files(&mine, &qemus).into_iter();
        complaints.extend(told.map(|what| format!("{}\n  left behind: {what}", group.place)));
    }
    complaints
}

impl Twins {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let twins = Self { folder };
        let common = twins.common();
        std::fs::create_dir(&common).expect("a folder");
        let data = std::fs::File::create(common.join("data")).expect("a file");
        data.set_len(1 << 20).expect("its length");
        for (at, bytes) in [(0, &[1; 512][..]), (70_000, &[2; 40_000]), (0xf_f000, &[3; 4096])] {
            data.write_all_at(bytes, at).expect("its data");
        }
        let link = twins.folder.path().join("qemu-img");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_anydisk"), link).expect("a link");
        twins
    }

    fn common(&self) -> PathBuf {
        self.folder.path().join("common")
    }

    fn mine(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn qemus(&self) -> PathBuf {
        self.folder.path().join("b")
    }

    /// Runs lines that make what both begin with, and gives it to both: holes stay holes.
    fn prepare(&self, lines: &[&Line]) {
        for line in lines {
            if line.by == By::Poke {
                self.poke(&line.arguments);
                continue;
            }
            let program = match line.by {
                By::QemuIo => Path::new("qemu-io"),
                By::Anydisk => Path::new(env!("CARGO_BIN_EXE_anydisk")),
                _ => Path::new("qemu-img"),
            };
            let output = run(program, &self.common(), &line.arguments);
            assert!(output.status.success(), "{}: {output:?}", line.text);
        }
        for twin in ["a", "b"] {
            let copy = ["-a", "common", twin].map(OsString::from);
            assert!(run(Path::new("cp"), self.folder.path(), &copy).status.success());
        }
    }

    /// Writes bytes into a file: its name, an offset, the bytes.
    fn poke(&self, arguments: &[OsString]) {
        let texts: Vec<&str> = arguments.iter().map(|text| text.to_str().expect("text")).collect();
        let [name, at, hex] = texts[..] else { panic!("{texts:?}: file, offset, bytes") };
        let at = u64::from_str_radix(at.trim_start_matches("0x"), 16).expect("an offset");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal bytes");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let file = std::fs::File::options().write(true).open(self.common().join(name));
        file.expect("a file").write_all_at(&bytes, at).expect("a write");
    }

    /// What anydisk and qemu-img answer.
    fn run(&self, line: &Line) -> [Output; 2] {
        let mine = self.folder.path().join("qemu-img");
        [
            run(&mine, &self.mine(), &line.arguments),
            run(Path::new("qemu-img"), &self.qemus(), &line.arguments),
        ]
    }
}

fn run(program: &Path, folder: &Path, arguments: &[OsString]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env("TZ", "UTC");
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// What is not as it should be: a difference that is not intended, or one that is gone.
fn differences(group: &Group, line: &Line, [mine, qemus]: &[Output; 2]) -> Option<String> {
    let out = |output: &Output| normal::output(&name::shown(&output.stdout), group.without_space);
    let complaint = |output: &Output| normal::complaint(&name::shown(&output.stderr));
    let (my_words, qemus_words) = (complaint(mine), complaint(qemus));
    // More may be said than qemu says, where it says something.
    let same_words = qemus_words.iter().all(|line| my_words.contains(line))
        && (!qemus_words.is_empty() || my_words.is_empty());
    let found = [
        ("code", mine.status.code() == qemus.status.code()),
        ("stdout", out(mine) == out(qemus)),
        ("stderr", same_words),
    ];
    let intended = |what| {
        line.differs.is_some_and(|differs| match what {
            "code" => differs.code,
            "stdout" => differs.stdout,
            _ => differs.stderr,
        })
    };
    let wrong: Vec<String> = found
        .into_iter()
        .filter(|(what, same)| *same == intended(what))
        .map(
            |(what, same)| {
                if same { format!("{what} is the same") } else { format!("{what} differs") }
            },
        )
        .collect();
    let told = |who: &str, output: &Output, stdout: String, words: &[String]| {
        let code = output.status.code();
        let (stdout, words) = (indented(&stdout), indented(&words.join("\n")));
        format!("    {who}: {code:?}\n{stdout}{words}")
    };
    (!wrong.is_empty()).then(|| {
        format!(
            "  {}\n    {}\n{}{}",
            line.text,
            wrong.join(", "),
            told("anydisk", mine, out(mine), &my_words),
            told("qemu-img", qemus, out(qemus), &qemus_words),
        )
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("        {line}\n")).collect()
}
