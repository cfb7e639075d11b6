//! `json:{...}` as flat options: what lies in objects gets names with dots.

use std::collections::BTreeSet;

use super::{Flat, MAX_NAME, Scalar};

/// More text than this is no name.
const MAX_LEN: usize = 1 << 20;

/// Reads an object of JSON (the text behind `json:`).
///
/// # Errors
/// What is wrong with it, in words.
pub fn flat(text: &[u8]) -> Result<Flat, String> {
    if text.len() > MAX_LEN {
        return Err(format!("it is longer than {MAX_LEN} bytes"));
    }
    let text = str::from_utf8(text).map_err(|error| error.to_string())?;
    let text = in_double_quotes(text);
    let value = serde_json::from_str(&text).map_err(|error| match error.is_eof() {
        true => format!("JSON parse error, premature EOI\n{error}"),
        false => format!("JSON parse error, {error}"),
    })?;
    // Of two values one program would take the first, another the last.
    if let Some(key) = doubled_key(&text) {
        return Err(format!("JSON parse error, duplicate key: {key} is given twice"));
    }
    let serde_json::Value::Object(members) = value else {
        return Err("JSON options must be an object".into());
    };
    let mut flat = Flat::new();
    members.iter().try_for_each(|(name, value)| add(&mut flat, name, value))?;
    Ok(flat)
}

/// Depth is bounded by the length of names.
fn add(flat: &mut Flat, name: &str, value: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value;
    if name.len() > MAX_NAME {
        return Err(too_long(name));
    }
    let scalar = match value {
        Value::Null => Scalar::Null,
        Value::Bool(flag) => Scalar::Flag(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(number) => Scalar::Number(number),
            None => return Err(format!("{name} is {number}, expected a whole number")),
        },
        Value::String(text) => Scalar::Text(text.into()),
        Value::Array(_) => return Err(format!("{name} is a list")),
        Value::Object(members) => {
            let below = |(key, value)| add(flat, &format!("{name}.{key}"), value);
            return members.iter().try_for_each(below);
        }
    };
    match flat.insert(name.to_owned(), scalar) {
        Some(_) => Err(format!("{name} is given twice")),
        None => Ok(()),
    }
}

/// A key that one of the objects in a text of JSON has twice.
fn doubled_key(text: &str) -> Option<String> {
    // The keys of each object that is open; none of a list.
    let mut open: Vec<Option<BTreeSet<String>>> = Vec::new();
    let mut is_key = false;
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'{' => open.push(Some(BTreeSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let end = at + string_len(&text[at..]);
                if let (true, Some(Some(keys))) = (is_key, open.last_mut()) {
                    let key: String = serde_json::from_str(&text[at..end]).ok()?;
                    if !keys.insert(key.clone()) {
                        return Some(key);
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        is_key = match byte {
            b'{' | b',' => matches!(open.last(), Some(Some(_))),
            b' ' | b'\n' | b'\r' | b'\t' => is_key,
            _ => false,
        };
        at += 1;
    }
    None
}

/// The length of the string that a text begins with, with its quotes.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let ends = |byte: u8| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    };
    text.bytes().skip(1).position(ends).map_or(text.len(), |at| at + 2)
}

/// What is said of an option's name that is longer than [`MAX_NAME`].
#[must_use]
pub fn too_long(name: &str) -> String {
    let begin: String = name.chars().take(20).collect();
    let len = name.len();
    format!("the name of the option '{begin}...' has {len} bytes, expected at most {MAX_NAME}")
}

/// qemu allows texts in single quotes, which shells make easy to write: they become plain JSON.
fn in_double_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open = None;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, open) {
            ('\\', Some(_)) => match chars.next() {
                Some('\'') => out.push('\''),
                next => out.extend(std::iter::once('\\').chain(next)),
            },
            ('"', Some('\'')) => out.push_str("\\\""),
            ('\'' | '"', None) => {
                open = Some(char);
                out.push('"');
            }
            (quote, Some(began)) if quote == began => {
                open = None;
                out.push('"');
            }
            (other, _) => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_names_with_dots() {
        let flat = flat(br#"{"driver": "raw", "file": {"filename": "a.b"}, "size": 5}"#).unwrap();
        assert_eq!(flat["driver"], Scalar::Text("raw".into()));
        assert_eq!(flat["file.filename"], Scalar::Text("a.b".into()));
        assert_eq!(flat["size"], Scalar::Number(5));
    }

    #[test]
    fn a_key_is_given_once_in_each_object() {
        for text in [r#"{"a": 1, "a": 2}"#, r#"{"b": {"a": 1, "\u0061": {}}}"#] {
            let error = flat(text.as_bytes()).unwrap_err();
            assert!(error.contains("duplicate key: a is given twice"), "{text}: {error}");
        }
        for text in [r#"{"a": "a", "b": {"a": "}{\"a\":"}, "c": {"a": 1}}"#, "{}"] {
            assert!(flat(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn texts_may_stand_in_single_quotes() {
        assert_eq!(
            in_double_quotes(r#"{'a"': "b'", 'c\'': '\n'}"#),
            r#"{"a\"": "b'", "c'": "\n"}"#
        );
        assert!(flat(b"{'a': 'x'}").is_ok());
    }

    #[test]
    fn what_is_too_long_too_deep_or_no_object_is_refused() {
        assert!(flat(&vec![b' '; MAX_LEN + 1]).unwrap_err().contains("longer than"));
        assert!(flat("[".repeat(100_000).as_bytes()).unwrap_err().contains("recursion"));
        assert_eq!(flat(b"[]").unwrap_err(), "JSON options must be an object");
        assert!(flat(br#"{"a": {"b": 1}, "a.b": 2}"#).unwrap_err().contains("twice"));
        assert!(flat(b"{\"a\": 1e9}").unwrap_err().contains("whole number"));
    }
}
