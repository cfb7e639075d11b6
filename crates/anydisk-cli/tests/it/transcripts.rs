//! What is typed and what is answered: a file for each command, to be read as well.
//!
//! Every line behind `$ ` is run by a shell in a folder of its own; what it prints and its exit code
//! must be what stands below it. `ANYDISK_BLESS=1` writes what is printed now into the files; the
//! difference is the review.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::common::{Bench, said};

const PROMPT: &str = "$ ";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transcripts")
}

/// The transcript as it is now.
fn replayed(transcript: &str) -> String {
    let bench = Bench::new();
    let program = Path::new(env!("CARGO_BIN_EXE_anydisk")).parent().expect("it is in a folder");
    let search = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    let mut now = String::new();
    // What stands before the first line is about the transcript.
    let about = transcript.lines().take_while(|line| !line.starts_with(PROMPT));
    about.for_each(|line| writeln!(now, "{line}").expect("a string"));
    for line in transcript.lines().filter_map(|line| line.strip_prefix(PROMPT)) {
        let mut shell = bench.command("sh");
        shell.args(["-c", &format!("exec 2>&1; {line}")]).env("PATH", &search).env("TZ", "UTC");
        shell.env_remove("ANYDISK_UNTRUSTED").env("LC_ALL", "C.UTF-8").env("COLUMNS", "100");
        let output = shell.output().expect("a shell");
        let text = said(&output);
        writeln!(now, "{PROMPT}{line}").expect("a string");
        text.lines().for_each(|line| writeln!(now, "{}", steady(line)).expect("a string"));
        match output.status.code() {
            Some(0) => {}
            code => writeln!(now, "[{}]", code.unwrap_or(-1)).expect("a string"),
        }
    }
    now
}

/// The line without what differs from time to time, and from one file system to the other.
fn steady(line: &str) -> String {
    const LABELS: [&str; 5] =
        ["disk size: ", "\"actual-size\": ", "\"date-sec\": ", "\"date-nsec\": ", "Formats: "];
    for label in LABELS {
        if let Some(at) = line.find(label) {
            return format!("{}...", &line[..at + label.len()]);
        }
    }
    let is_date =
        |word: &str| word.len() == 10 && word.starts_with("20") && word.matches('-').count() == 2;
    match line.split(' ').find(|word| is_date(word)) {
        // A date and a time of day.
        Some(date) => {
            let at = line.find(date).expect("it was found");
            format!("{}YYYY-MM-DD HH:MM:SS{}", &line[..at], &line[at + 19..])
        }
        None => line.to_owned(),
    }
}

fn replay(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let now = replayed(&expected);
    if std::env::var_os("ANYDISK_BLESS").is_some() {
        std::fs::write(&path, now).expect("a file of the source");
        return;
    }
    assert!(
        now == expected,
        "{name} is not as in its transcript any more. If that is as it should be, run the tests with \
         ANYDISK_BLESS=1 and look at the difference.\n{now}"
    );
}

macro_rules! transcripts {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*
        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

transcripts!(
    amend, bitmap, check, commit, compact, compare, convert, create, info, inspect, map, measure,
    members, rebase, resize, salvage, snapshot, usage
);

#[test]
fn every_transcript_is_replayed() {
    for entry in std::fs::read_dir(folder()).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let name = name.strip_suffix(".txt").expect("a transcript");
        assert!(REPLAYED.contains(&name), "{name}");
    }
}
