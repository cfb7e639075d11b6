//! What strangers' files say, for people.

use std::fmt::Write;

use anydisk_storage::name;

/// Text from a stranger's file such that a terminal shows it and does nothing else: control
/// characters, also [those that are no text](anydisk_storage::name), and characters that change the
/// direction of what follows are escaped. For [notes](crate::Member::note).
#[must_use]
pub fn one_line(text: &str) -> String {
    let turns = |letter| matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match name::byte_of(letter) {
            // Control characters to terminals of eight bits.
            Some(byte) if byte < 0xa0 => {
                write!(line, "\\x{byte:02x}").expect("a string takes any text");
            }
            _ if letter.is_control() || turns(letter) => line.extend(letter.escape_default()),
            _ => line.push(letter),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_acts_upon_are_escaped_and_others_are_as_they_were() {
        let text = "a\n\u{1b}[2J\u{9b}\u{202e}b \"'\\ \u{e9}\u{4e2d}";
        let expected = "a\\n\\u{1b}[2J\\u{9b}\\u{202e}b \"'\\ \u{e9}\u{4e2d}";
        assert_eq!(one_line(text), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped_where_a_terminal_of_eight_bits_acts_upon_them() {
        let line = one_line(&name::shown(b"a\x9bb\xffc"));
        assert_eq!(&*name::bytes(&line), b"a\\x9bb\xffc");
    }
}
