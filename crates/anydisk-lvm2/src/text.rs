//! The grammar of LVM's text: bytes to a tree of sections, values and lists. Pure, and bounded in
//! depth and number of items.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::HashSet;

use anydisk_core::{Error, HostOffset, Invalid, Result, Value};

use crate::{NAME, limits};

/// A section: named items in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Section<'t> {
    pub(crate) items: Vec<Item<'t>>,
    /// Where it begins in the text.
    pub(crate) at: usize,
}

/// A named item of a section.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item<'t> {
    pub(crate) name: &'t str,
    /// Where it begins in the text.
    pub(crate) at: usize,
    pub(crate) body: Body<'t>,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body<'t> {
    Section(Section<'t>),
    Value(Scalar<'t>),
    List(Vec<Scalar<'t>>),
}

/// A single value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'t> {
    Number(i64),
    /// No number that we use is one of these.
    Float,
    Text(Cow<'t, str>),
}

/// The text as one section.
///
/// # Errors
/// [`Error::Invalid`] with the place in the text, [`Error::Limit`] for a text of too many items.
pub(crate) fn parse(text: &[u8]) -> Result<Section<'_>> {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or_default();
    let mut parser = Parser { text, at: 0, items: 0 };
    parser.items_until_end(None, 0)
}

struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    items: usize,
}

impl<'t> Parser<'t> {
    /// Items up to `closing`, or up to the end of the text.
    fn items_until_end(&mut self, closing: Option<u8>, depth: usize) -> Result<Section<'t>> {
        let mut section = Section { items: Vec::new(), at: self.at };
        let mut names = HashSet::new();
        loop {
            match self.peek() {
                None if closing.is_none() => return Ok(section),
                found if closing.is_some() && found == closing => {
                    self.step();
                    return Ok(section);
                }
                _ => {}
            }
            let item = self.item(depth)?;
            if !names.insert(item.name) {
                return Err(self.wrong_at(item.at, "a name that does not stand there twice"));
            }
            section.items.push(item);
        }
    }

    fn item(&mut self, depth: usize) -> Result<Item<'t>> {
        let at = self.at;
        let name = self.name()?;
        self.count()?;
        let body = match self.peek() {
            Some(b'{') if depth < limits::DEPTH => {
                self.step();
                Body::Section(self.items_until_end(Some(b'}'), depth.saturating_add(1))?)
            }
            Some(b'{') => return Err(self.wrong("sections less deep")),
            Some(b'=') => {
                self.step();
                self.value()?
            }
            _ => return Err(self.wrong("\"=\" or \"{\"")),
        };
        Ok(Item { name, at, body })
    }

    fn value(&mut self) -> Result<Body<'t>> {
        if self.peek() != Some(b'[') {
            return Ok(Body::Value(self.scalar()?));
        }
        self.step();
        let mut list = Vec::new();
        loop {
            if self.peek() == Some(b']') {
                self.step();
                return Ok(Body::List(list));
            }
            list.push(self.scalar()?);
            match self.peek() {
                Some(b',') => self.step(),
                Some(b']') => {}
                _ => return Err(self.wrong("\",\" or \"]\"")),
            }
        }
    }

    fn scalar(&mut self) -> Result<Scalar<'t>> {
        self.count()?;
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => self.number(),
            Some(_) => Ok(Scalar::Text(Cow::Borrowed(self.name()?))),
            None => Err(self.wrong("a value")),
        }
    }

    fn string(&mut self, quote: u8) -> Result<Scalar<'t>> {
        self.step();
        let rest = self.rest();
        let mut escaped = false;
        let mut backslashes = false;
        for (index, &byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quote == b'"' => (escaped, backslashes) = (true, true),
                _ if byte == quote => {
                    let raw = rest.get(..index).unwrap_or_default();
                    self.at = self.at.saturating_add(index).saturating_add(1);
                    return Ok(Scalar::Text(unescaped(raw, backslashes)));
                }
                _ => {}
            }
        }
        Err(self.wrong("a string that ends"))
    }

    fn number(&mut self) -> Result<Scalar<'t>> {
        let at = self.at;
        let word = self.word(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        if word.contains('.') {
            return Ok(Scalar::Float);
        }
        let number = word.parse().map_err(|_| self.wrong_at(at, "a number of 64 bits"))?;
        Ok(Scalar::Number(number))
    }

    /// A name, which may begin with a digit and hold dots, dashes and more.
    fn name(&mut self) -> Result<&'t str> {
        self.skip_blanks();
        let name = self.word(|byte| byte.is_ascii_graphic() && !b"#={}[],\"'".contains(&byte));
        if name.is_empty() { Err(self.wrong("a name")) } else { Ok(name) }
    }

    /// The longest run of bytes (all of them ASCII) that `fits`.
    fn word(&mut self, fits: impl Fn(u8) -> bool) -> &'t str {
        let rest = self.rest();
        let len = rest.iter().position(|&byte| !fits(byte)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(len);
        str::from_utf8(rest.get(..len).unwrap_or_default()).unwrap_or_default()
    }

    fn count(&mut self) -> Result<()> {
        self.items = self.items.saturating_add(1);
        limits::check("items of a volume group's text", self.items as u64, limits::ITEMS as u64)
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The next byte that is neither blank nor comment.
    fn peek(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.rest().first().copied()
    }

    fn skip_blanks(&mut self) {
        let mut comment = false;
        let blank = |byte: u8| {
            comment = (comment || byte == b'#') && byte != b'\n';
            comment || byte.is_ascii_whitespace()
        };
        let rest = self.rest();
        let mut blank = blank;
        let len = rest.iter().position(|&byte| !blank(byte)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(len);
    }

    fn wrong(&self, expected: &'static str) -> Error {
        self.wrong_at(self.at, expected)
    }

    #[cold]
    fn wrong_at(&self, at: usize, expected: &'static str) -> Error {
        let rest = self.text.get(at..).unwrap_or_default();
        let found = match rest.get(..rest.len().min(16)) {
            Some(bytes) if !bytes.is_empty() => Value::from(bytes),
            _ => Value::Missing,
        };
        invalid("text of the volume group", at, found, expected).into()
    }
}

/// What a string says: a backslash keeps the next character as it is.
fn unescaped(raw: &[u8], backslashes: bool) -> Cow<'_, str> {
    if !backslashes {
        return String::from_utf8_lossy(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(if byte == b'\\' { rest.next().copied().unwrap_or(byte) } else { byte });
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// An [`Invalid`] for something in the text; places count from its start.
pub(crate) fn invalid(
    field: impl Into<Cow<'static, str>>,
    at: usize,
    found: Value,
    expected: impl Into<Cow<'static, str>>,
) -> Invalid {
    let at = HostOffset(at as u64);
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }
}

impl<'t> Section<'t> {
    pub(crate) fn get(&self, name: &str) -> Option<&Item<'t>> {
        self.items.iter().find(|item| item.name == name)
    }

    /// The sections among the items.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&Item<'t>, &Section<'t>)> {
        self.items.iter().filter_map(|item| match &item.body {
            Body::Section(section) => Some((item, section)),
            _ => None,
        })
    }

    /// The section of this name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section<'t>> {
        self.sections().find(|(item, _)| item.name == name).map(|(_, section)| section)
    }

    /// A number that must be there.
    pub(crate) fn number(&self, name: &'static str) -> Result<u64, Invalid> {
        self.optional_number(name)?.ok_or_else(|| self.missing(name, "a number"))
    }

    /// A number that need not be there.
    pub(crate) fn optional_number(&self, name: &'static str) -> Result<Option<u64>, Invalid> {
        let Some(item) = self.get(name) else { return Ok(None) };
        match item.body {
            Body::Value(Scalar::Number(number)) if number >= 0 => Ok(Some(number.unsigned_abs())),
            _ => Err(item.wrong(name, "a number that is not negative")),
        }
    }

    /// A number of at least 1 that must be there.
    pub(crate) fn positive(&self, name: &'static str) -> Result<u64, Invalid> {
        match self.number(name)? {
            0 => Err(invalid(name, self.at, Value::Number(0), "at least 1")),
            number => Ok(number),
        }
    }

    /// A string that must be there.
    pub(crate) fn text(&self, name: &'static str) -> Result<&str, Invalid> {
        self.optional_text(name)?.ok_or_else(|| self.missing(name, "a string"))
    }

    /// A string that need not be there.
    pub(crate) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, Invalid> {
        let Some(item) = self.get(name) else { return Ok(None) };
        match &item.body {
            Body::Value(Scalar::Text(text)) => Ok(Some(text)),
            _ => Err(item.wrong(name, "a string")),
        }
    }

    /// The entries of a list that must be there.
    pub(crate) fn list(&self, name: &'static str) -> Result<&[Scalar<'t>], Invalid> {
        match self.get(name) {
            None => Err(self.missing(name, "a list")),
            Some(Item { body: Body::List(list), .. }) => Ok(list),
            Some(item) => Err(item.wrong(name, "a list")),
        }
    }

    /// The strings of a list; none if it is not there.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Item { body: Body::List(list), .. }) => {
                list.iter().filter_map(Scalar::as_text).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn missing(&self, name: &'static str, expected: &'static str) -> Invalid {
        invalid(name, self.at, Value::Missing, expected)
    }
}

impl Item<'_> {
    fn wrong(&self, name: &'static str, expected: &'static str) -> Invalid {
        let found = match &self.body {
            Body::Value(Scalar::Number(number)) => Value::Text(number.to_string().into_bytes()),
            Body::Value(Scalar::Text(text)) => Value::from(text.as_bytes()),
            _ => Value::Text(b"something else".to_vec()),
        };
        invalid(name, self.at, found, expected)
    }
}

impl Scalar<'_> {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "buffers of the tests' own making"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn sections_values_lists_and_comments_are_told_apart() {
        let text =
            b"# from the start\nvg.a-b+c { 1 = 2 # two\n empty=[] list=[\"a\",\n 'b\\', -3,] \
            {}\0{{{";
        let refused = parse(text).unwrap_err();
        assert!(refused.to_string().contains("expected a name"), "{refused}");
        let text = b"vg.a-b+c { 1 = 2 # two\n empty=[] list=[\"a\\\"\",\n 'b\\', -3,] f=1.5 }\0{{{";
        let tree = parse(text).unwrap();
        let section = tree.section("vg.a-b+c").unwrap();
        assert_eq!(section.number("1").unwrap(), 2);
        assert_eq!(section.words("empty"), [""; 0]);
        assert_eq!(section.words("list"), ["a\"", "b\\"]);
        assert_eq!(section.list("list").unwrap()[2], Scalar::Number(-3));
        assert!(section.number("f").is_err());
        assert_eq!(section.number("other").unwrap_err().found, Value::Missing);
    }

    #[test]
    fn what_breaks_the_grammar_is_told_with_its_place() {
        for (text, complaint) in [
            ("a = ", "at 0x4 is missing, expected a value"),
            ("a = \"b", "at 0x5 is \"b\", expected a string that ends"),
            ("a b", "at 0x2 is \"b\", expected \\\"=\\\" or \\\"{\\\""),
            ("a = [1 2]", "at 0x7 is \"2]\""),
            ("a = 99999999999999999999", "expected a number of 64 bits"),
            ("a = 1 a = 2", "expected a name that does not stand there twice"),
            ("}", "at 0x0 is \"}\", expected a name"),
        ] {
            let complaint = complaint.replace("\\\"", "\"");
            assert!(error(text).contains(&complaint), "{text}: {}", error(text));
        }
    }

    #[test]
    fn depth_and_number_of_items_are_bounded() {
        let deep = "a{".repeat(1000);
        assert!(error(&deep).contains("sections less deep"));
        let long = format!("a=[{}]", "1,".repeat(limits::ITEMS));
        assert!(error(&long).contains("more than the limit"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(0_u8..128, 0..200)) {
            let _ = parse(&text);
        }

        #[test]
        fn no_tokens_make_the_parser_panic(words in proptest::collection::vec(
            proptest::sample::select(vec!["a", "=", "{", "}", "[", "]", ",", "\"", "1", " ", "\\", "#", "\n"]), 0..60,
        )) {
            let _ = parse(words.concat().as_bytes());
        }
    }
}
