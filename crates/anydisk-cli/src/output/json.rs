//! JSON as qemu-img prints it: members in the order of its hash table, not of a schema.

use std::borrow::Cow;
use std::fmt::Write;

use anydisk::storage::name;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Object(Object),
}

/// Named values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object(Vec<(Cow<'static, str>, Value)>);

impl Object {
    /// Adds a member.
    pub(crate) fn with(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Value>,
    ) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// Adds a member if there is one.
    pub(crate) fn with_any(
        self,
        name: impl Into<Cow<'static, str>>,
        value: Option<impl Into<Value>>,
    ) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Whether there are no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members as qemu's hash table gives them out: by bucket, and in a bucket the one that
    /// came last first.
    pub(crate) fn members(&self) -> Vec<(&str, &Value)> {
        let mut members: Vec<_> =
            self.0.iter().rev().map(|(name, value)| (&**name, value)).collect();
        members.sort_by_key(|(name, _)| bucket(name));
        members
    }
}

/// The bucket of a name in qemu's QDict.
fn bucket(name: &str) -> u32 {
    const BUCKETS: u32 = 512;
    let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let shifts = (0_u32..).map(|index| index * 5 % 24);
    let hash =
        name.bytes().zip(shifts).fold(0x238f_13af_u32.wrapping_mul(len), |hash, (byte, shift)| {
            hash.wrapping_add(u32::from(byte) << shift)
        });
    hash.wrapping_mul(1_103_515_243).wrapping_add(12345) % BUCKETS
}

/// The document, with a newline at its end.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    value.write(&mut out, 0);
    out.push('\n');
    out
}

impl Value {
    /// As qemu-img writes it in a name: on one line, with blanks behind colons and commas.
    pub(crate) fn in_one_line(&self) -> String {
        let list = |open, items: Vec<String>, close| format!("{open}{}{close}", items.join(", "));
        match self {
            Self::List(items) => list("[", items.iter().map(Self::in_one_line).collect(), "]"),
            Self::Object(object) => {
                let member = |(name, value): (&str, &Value)| {
                    format!("{}: {}", Self::from(name).in_one_line(), value.in_one_line())
                };
                list("{", object.members().into_iter().map(member).collect(), "}")
            }
            other => {
                let mut out = String::new();
                other.write(&mut out, 0);
                out
            }
        }
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Self::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Text(text) => write_text(out, text),
            Self::List(items) => {
                let items = items.iter().map(|item| (None, item));
                write_members(out, depth, ['[', ']'], items);
            }
            Self::Object(object) => {
                let members = object.members().into_iter();
                let members = members.map(|(name, value)| (Some(name), value));
                write_members(out, depth, ['{', '}'], members);
            }
        }
    }
}

fn write_members<'a>(
    out: &mut String,
    depth: usize,
    [open, close]: [char; 2],
    members: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
) {
    out.push(open);
    for (index, (name, value)) in members.enumerate() {
        out.push_str(if index > 0 { ",\n" } else { "\n" });
        out.push_str(&"    ".repeat(depth + 1));
        if let Some(name) = name {
            write_text(out, name);
            out.push_str(": ");
        }
        value.write(out, depth + 1);
    }
    out.push('\n');
    out.push_str(&"    ".repeat(depth));
    out.push(close);
}

/// Only ASCII leaves: the rest is escaped as UTF-16.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    // What is no text, in the name of a file, is replaced.
    for unit in String::from_utf8_lossy(&name::bytes(text)).encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'"') => out.push_str("\\\""),
            Ok(b'\\') => out.push_str("\\\\"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(b'\r') => out.push_str("\\r"),
            Ok(b'\t') => out.push_str("\\t"),
            Ok(8) => out.push_str("\\b"),
            Ok(12) => out.push_str("\\f"),
            Ok(byte @ b' '..=b'~') => out.push(char::from(byte)),
            _ => write!(out, "\\u{unit:04X}").expect("a string takes any text"),
        }
    }
    out.push('"');
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(items)
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_the_order_of_qemus_hash_table() {
        let names = ["format", "filename", "virtual-size", "children", "dirty-flag"];
        let object = names.iter().fold(Object::default(), |object, name| object.with(*name, 0_u64));
        let members: Vec<_> = object.members().into_iter().map(|(name, _)| name).collect();
        assert_eq!(members, ["children", "virtual-size", "filename", "format", "dirty-flag"]);
        let object = Object::default().with("fully-allocated", 1_u64).with("required", 1_u64);
        assert_eq!(object.members()[0].0, "required");
    }

    #[test]
    fn text_is_escaped_to_ascii() {
        let text = document(&Value::from("a\"\\\n\u{7f}ü😀"));
        assert_eq!(text, "\"a\\\"\\\\\\n\\u007F\\u00FC\\uD83D\\uDE00\"\n");
    }
}
