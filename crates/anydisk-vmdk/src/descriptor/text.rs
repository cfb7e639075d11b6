//! Lines of text, byte for byte.

use std::ops::Range;

use anydisk_core::HostOffset;

/// One line, with its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    bytes: Vec<u8>,
    at: HostOffset,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Blank, a comment, or nothing we know.
    Other,
    /// `key = value`: where in the line they are, the value without its quotes.
    Pair { key: Range<usize>, value: Range<usize> },
    /// An extent.
    Extent,
}

/// Whether the text is one of a descriptor: its first comment says so, or its first other line is
/// the version.
pub(crate) fn is_descriptor(text: &[u8]) -> bool {
    let text = without_mark(text);
    let heading = b"# disk descriptorfile";
    if text.get(..heading.len()).is_some_and(|head| head.eq_ignore_ascii_case(heading)) {
        return true;
    }
    let mut rest = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = rest.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.is_some_and(|line| pair(line).is_some_and(|(key, _)| is_key(&line[key], "version")))
}

/// Some editors put a byte order mark before a text in UTF-8.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The lines of a text that begins at `at` in its file.
pub(crate) fn lines(text: &[u8], at: HostOffset) -> Vec<Line> {
    let mut place = at;
    let mut lines = Vec::new();
    for bytes in text.split_inclusive(|byte| *byte == b'\n') {
        lines.push(Line { bytes: bytes.to_vec(), at: place, kind: kind(bytes) });
        place = place.saturating_add(bytes.len() as u64);
    }
    lines
}

fn kind(bytes: &[u8]) -> Kind {
    let text = without_mark(bytes).trim_ascii_start();
    if text.is_empty() || text.starts_with(b"#") {
        return Kind::Other;
    }
    let first = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    if ["RW", "RDONLY", "NOACCESS"].iter().any(|word| is_key(first, word)) {
        return Kind::Extent;
    }
    pair(bytes).map_or(Kind::Other, |(key, value)| Kind::Pair { key, value })
}

/// Where key and value are in a line, trimmed, the value without its quotes.
fn pair(line: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let sign = line.iter().position(|byte| *byte == b'=')?;
    let key = trimmed(line, 0..sign);
    let value = trimmed(line, sign + 1..line.len());
    let quoted = value.len() >= 2 && line[value.start] == b'"' && line[value.end - 1] == b'"';
    Some((key, if quoted { value.start + 1..value.end - 1 } else { value }))
}

fn trimmed(line: &[u8], range: Range<usize>) -> Range<usize> {
    let blank = |index: &usize| !line[*index].is_ascii_whitespace();
    match (range.clone().find(blank), range.clone().rfind(blank)) {
        (Some(first), Some(last)) => first..last + 1,
        _ => range.start..range.start,
    }
}

/// Keys are the same in upper and lower case.
fn is_key(found: &[u8], key: &str) -> bool {
    found.eq_ignore_ascii_case(key.as_bytes())
}

impl Line {
    /// A line of this text, of which nobody asks where it is.
    pub(crate) fn new(text: &[u8], end: &[u8]) -> Self {
        let bytes = [text, end].concat();
        Self { kind: kind(&bytes), bytes, at: HostOffset::ZERO }
    }

    /// All bytes, the end of the line included.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes it end, if it does not: the last line of a text may not.
    pub(crate) fn end_with(&mut self, end: &[u8]) {
        if !self.bytes.ends_with(b"\n") {
            self.bytes.extend_from_slice(end);
        }
    }

    /// Where the line begins in its file.
    pub(crate) fn at(&self) -> HostOffset {
        self.at
    }

    pub(crate) fn is_pair(&self, wanted: &str) -> bool {
        match &self.kind {
            Kind::Pair { key, .. } => is_key(&self.bytes[key.clone()], wanted),
            _ => false,
        }
    }

    pub(crate) fn is_extent(&self) -> bool {
        self.kind == Kind::Extent
    }

    /// The value of a pair, without its quotes.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Pair { value, .. } => Some(&self.bytes[value.clone()]),
            _ => None,
        }
    }

    /// Changes word number `number` of an extent, counted from 0. Words in quotes are none.
    pub(crate) fn set_word(&mut self, number: usize, new: &str) {
        let mut at = 0;
        for left in (0..=number).rev() {
            let is_blank = |byte: &u8| byte.is_ascii_whitespace();
            let start = self.bytes[at..].iter().position(|byte| !is_blank(byte));
            let start = at + start.unwrap_or(self.bytes.len() - at);
            let len = self.bytes[start..].iter().position(is_blank);
            at = start + len.unwrap_or(self.bytes.len() - start);
            if left == 0 {
                self.bytes.splice(start..at, new.bytes());
            }
        }
    }

    /// Changes what stands in quotes.
    pub(crate) fn set_quoted(&mut self, new: &[u8]) {
        let mut quotes = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'"');
        if let (Some((start, _)), Some((end, _))) = (quotes.next(), quotes.next()) {
            self.bytes.splice(start + 1..end, new.iter().copied());
        }
    }

    /// Changes the value of a pair; false if the line is none.
    pub(crate) fn set(&mut self, new: &str) -> bool {
        let Kind::Pair { value, .. } = &mut self.kind else { return false };
        self.bytes.splice(value.clone(), new.bytes());
        value.end = value.start + new.len();
        true
    }
}
