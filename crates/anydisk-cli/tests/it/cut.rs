//! Files that were cut off: whoever is asked about one of them gives the same answer.

use std::fs;
use std::process::Output;

use anydisk_testkit::golden::{OpenVerdict, ReadVerdict, cases};

use crate::common::{Bench, said};

/// Formats by their folders, how the tool calls them, and whether a check finds what is missing. (Of a
/// packed stream at the end it may not.)
const FORMATS: [(&str, &str, bool); 7] = [
    ("qcow2", "qcow2", true),
    ("qcow", "qcow", true),
    ("vmdk", "vmdk", true),
    ("vdi", "vdi", true),
    ("vhd", "vpc", true),
    ("vhdx", "vhdx", true),
    ("qed", "qed", true),
];

/// So many images of a format.
const IMAGES: usize = 9;

/// Longer files are left out.
const MAX_LEN: u64 = 4 << 20;

/// What is said of a file.
#[derive(Debug)]
struct Told {
    inspect: Option<i32>,
    check: Option<i32>,
    convert: Option<i32>,
    /// Bytes that salvaging lost; `None`: it has no account.
    lost: Option<u64>,
    words: String,
}

impl Told {
    fn of(bench: &Bench, format: &str) -> Self {
        let run = |line: &[&str]| bench.anydisk(line);
        let inspect = run(&["inspect", "-f", format, "cut"]);
        // Reading the data too is refused where a check does not.
        let how = if format == "qcow2" { "--data" } else { "-q" };
        let check = run(&["check", "-q", how, "-f", format, "cut"]);
        let convert = run(&["convert", "-f", format, "-O", "raw", "cut", "copy"]);
        let salvage = run(&["salvage", "-f", format, "--output=json", "cut", "saved"]);
        let words = |output: &Output| said(output);
        let told = serde_json::from_slice::<serde_json::Value>(&salvage.stdout).ok();
        Self {
            inspect: inspect.status.code(),
            check: check.status.code(),
            convert: convert.status.code(),
            lost: told.and_then(|told| told["lost-size"].as_u64()),
            words: [&inspect, &check, &convert, &salvage].map(words).concat(),
        }
    }

    fn is_whole(&self) -> bool {
        self.convert == Some(0) && self.lost == Some(0)
    }

    /// What does not fit together.
    fn contradiction(&self, finds: bool) -> Option<&'static str> {
        let is_copied = self.convert == Some(0);
        match self.lost {
            // Of qcow2's last cluster copies take for zeroes what is missing: inspecting does not accept it.
            Some(1..) if is_copied && self.inspect != Some(0) => None,
            _ if is_copied != (self.lost == Some(0)) => Some("convert and salvage"),
            Some(0) => None,
            _ if self.inspect == Some(0) => Some("inspect takes what is not whole"),
            _ if finds && self.check == Some(0) => Some("check calls whole what is not"),
            _ => None,
        }
    }
}

fn agree_about(format: &str) {
    let (folder, name, finds) = FORMATS.into_iter().find(|(folder, ..)| *folder == format).unwrap();
    let is_whole = |case: &anydisk_testkit::golden::Case| {
        case.expect.open == OpenVerdict::Ok
            && case.expect.read == ReadVerdict::Ok
            && case.files.len() == 1
            && case.parent.is_none()
            && case.secret.is_none()
            && case.files[0].size <= MAX_LEN
            // What a stream without its footer held, salvaging does not tell yet.
            && !case.name.starts_with("streamOptimized")
    };
    let cases: Vec<_> = cases(folder).into_iter().filter(is_whole).collect();
    let mut wrong = Vec::new();
    let mut cuts = 0;
    for case in cases.iter().step_by(cases.len().div_ceil(IMAGES)) {
        let bench = Bench::new();
        let bytes = fs::read(&case.unpack().path).unwrap();
        fs::write(bench.path("cut"), &bytes).unwrap();
        if !Told::of(&bench, name).is_whole() {
            continue;
        }
        let len = bytes.len();
        for cut in [len - 1, len - 513, len / 8 * 7, len / 4 * 3, len / 2] {
            fs::write(bench.path("cut"), &bytes[..cut]).unwrap();
            let told = Told::of(&bench, name);
            cuts += 1;
            if let Some(what) = told.contradiction(finds && !case.name.starts_with("stream-")) {
                wrong.push(format!(
                    "{case} cut to {cut} of {len}: {what}: {told:?}\n{}",
                    told.words
                ));
            }
        }
    }
    assert!(cuts >= 5, "only {cuts} cuts");
    assert!(wrong.is_empty(), "{} of {cuts}\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! formats {
    ($($format:ident)*) => {
        $(
            #[test]
            fn $format() {
                agree_about(stringify!($format));
            }
        )*
    };
}

/// Inspecting, checking, copying and salvaging agree on whether a file that was cut off is whole.
mod all_four_agree_on {
    use super::agree_about;

    formats! { qcow2 qcow vmdk vdi vhd vhdx qed }
}
