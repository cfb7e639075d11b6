//! Lines as data.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Lines that share a folder.
#[derive(Debug)]
pub(super) struct Group {
    /// Where it begins, for complaints.
    pub(super) place: String,
    pub(super) lines: Vec<Line>,
    pub(super) without_space: bool,
    pub(super) without_files: bool,
    /// How each line differs that says nothing else.
    pub(super) differs: Option<Differs>,
}

/// A command line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: &'static str,
    pub(super) by: By,
    pub(super) arguments: Vec<OsString>,
    pub(super) differs: Option<Differs>,
}

/// Who runs a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Both,
    QemuImg,
    QemuIo,
    Anydisk,
    /// Nobody: bytes are written into a file.
    Poke,
}

/// An intended difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Differs {
    pub(super) name: &'static str,
    pub(super) code: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// The groups of a file.
pub(super) fn groups(file: &str, text: &'static str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = format!("{file}.txt:{}", index + 1);
        let last = groups.last_mut();
        match line.split_at_checked(2) {
            Some(("==", title)) => groups.push(Group {
                place: format!("{place}:{title}"),
                lines: Vec::new(),
                without_space: false,
                without_files: false,
                differs: None,
            }),
            Some(("% ", "space")) => last.expect("a title").without_space = true,
            Some(("% ", "files")) => last.expect("a title").without_files = true,
            Some(("% ", mark)) => {
                last.expect("a title").differs = Some(Differs::parse(mark, &place))
            }
            None if line.is_empty() => {}
            _ if line.starts_with('#') => {}
            _ => {
                let group = last.expect("a title");
                let mut line = Line::parse(line, &place);
                line.differs = line.differs.or(group.differs);
                group.lines.push(line);
            }
        }
    }
    groups
}

impl Line {
    fn parse(line: &'static str, place: &str) -> Self {
        let (by, rest) = match line.strip_prefix('$') {
            Some(rest) => match rest.strip_prefix("io ") {
                Some(rest) => (By::QemuIo, rest),
                None if rest.starts_with("poke ") => (By::Poke, &rest[5..]),
                None if rest.starts_with("any ") => (By::Anydisk, &rest[4..]),
                None => (By::QemuImg, rest.trim_start()),
            },
            None => (By::Both, line),
        };
        let (differs, text) = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((mark, text)) => (Some(Differs::parse(mark, place)), text),
            None => (None, rest),
        };
        Self { text, by, arguments: arguments(text), differs }
    }
}

impl Differs {
    fn parse(mark: &'static str, place: &str) -> Self {
        let (name, what) = mark.split_once(": ").unwrap_or_else(|| panic!("{place}: [name: what]"));
        let what: Vec<&str> = what.split(' ').collect();
        let has = |word: &str| what.contains(&word);
        let known = what.iter().all(|word| ["code", "stdout", "stderr"].contains(word));
        assert!(known, "{place}: [name: code stdout stderr]");
        Self { name, code: has("code"), stdout: has("stdout"), stderr: has("stderr") }
    }
}

/// The words of a line: quotes and `\xNN` as in a shell.
fn arguments(line: &str) -> Vec<OsString> {
    let mut words: Vec<Option<Vec<u8>>> = vec![None];
    let mut quote = None;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match (byte, quote) {
            (b' ', None) => {
                words.push(None);
                continue;
            }
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                words.last_mut().expect("a word").get_or_insert_default();
                continue;
            }
            (end, Some(open)) if end == open => {
                quote = None;
                continue;
            }
            (b'\\', _) => escaped(&mut bytes),
            (other, _) => other,
        };
        words.last_mut().expect("a word").get_or_insert_default().push(byte);
    }
    words.into_iter().flatten().map(OsString::from_vec).collect()
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next() {
        Some(b'x') => {
            let digits: Vec<u8> = bytes.take(2).collect();
            u8::from_str_radix(str::from_utf8(&digits).expect("digits"), 16).expect("a byte")
        }
        Some(b'n') => b'\n',
        other => other.expect("something behind a backslash"),
    }
}

#[test]
fn words_are_split_as_a_shell_does() {
    let words = |line| arguments(line).into_iter().map(OsString::into_vec).collect::<Vec<_>>();
    assert_eq!(words(r#"a  'b c' "d'"e '' \xff\'"#), [&b"a"[..], b"b c", b"d'e", b"", b"\xff'"]);
}
