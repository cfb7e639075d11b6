//! Names of files as text, without loss.
//!
//! A name is bytes, and messages are text. [`shown`] makes text of any name, and [`bytes`] gives back
//! the same bytes, so that a program which wants to print a name just as it is can do so, also when it
//! comes to it inside an error: text stays as it is, and each byte that belongs to no UTF-8 becomes a
//! character of its own, one of the 128 at the very end of Unicode, which nobody uses for anything.

use std::borrow::Cow;
use std::ffi::OsStr;

/// The byte `0xNN` is shown as this and `0xNN`; only bytes from 0x80 on can be no text.
const FIRST: u32 = 0x10_ff00;

/// The text for the name of a file.
#[must_use]
pub fn of<N: AsRef<OsStr> + ?Sized>(name: &N) -> Cow<'_, str> {
    shown(name.as_ref().as_encoded_bytes())
}

/// The text for a name.
#[must_use]
pub fn shown(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.chars().all(|char| byte_of(char).is_none()) => Cow::Borrowed(text),
        _ => Cow::Owned(name.utf8_chunks().flat_map(chunk).collect()),
    }
}

/// The characters for a piece of text and what follows it.
fn chunk(chunk: std::str::Utf8Chunk<'_>) -> impl Iterator<Item = char> {
    let text = chunk.valid().chars().flat_map(|char| {
        let mut buffer = [0; 4];
        // A character that would be taken for a byte is shown as its own bytes.
        let bytes = byte_of(char).map(|_| char.encode_utf8(&mut buffer).as_bytes().to_vec());
        let plain = bytes.is_none().then_some(char);
        plain.into_iter().chain(bytes.unwrap_or_default().into_iter().filter_map(char_of))
    });
    text.chain(chunk.invalid().iter().copied().filter_map(char_of))
}

/// The bytes of the names in a text, and the rest of it as it is.
#[must_use]
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    if text.chars().all(|char| byte_of(char).is_none()) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for char in text.chars() {
        match byte_of(char) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// The character for a byte that is no text.
fn char_of(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
}

/// The byte that a character stands for.
#[must_use]
pub fn byte_of(char: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(char).checked_sub(FIRST)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_as_it_is() {
        for name in ["", "disk.qcow2", "\u{e9} \u{1f4be}", "a\u{fffd}b", "\u{10ff7f}"] {
            assert!(matches!(shown(name.as_bytes()), Cow::Borrowed(text) if text == name));
            assert!(matches!(bytes(name), Cow::Borrowed(found) if found == name.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_text_comes_back_byte_for_byte() {
        let own = "\u{10ff80}\u{10ffff}".as_bytes();
        let every: Vec<u8> = (0..=u8::MAX).collect();
        for name in
            [&b"\xff"[..], b"a\xe2\x82b\xc3\xa9\xed\xa0\x80", own, b"\xff\xf4\x8f\xbf\xbf", &every]
        {
            let text = shown(name);
            assert_eq!(&*bytes(&text), name, "{text:?}");
            assert_eq!(&*bytes(&format!("<{text}>")), [b"<", name, b">"].concat());
        }
    }
}
