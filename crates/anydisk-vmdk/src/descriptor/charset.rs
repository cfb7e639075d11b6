//! The encoding of names in a text, as its line `encoding=` says.
//!
//! Names are UTF-8 everywhere else, so that the files are found that somebody else's programs copied
//! here. What is not in the encoding that is said stays as it is, byte for byte.

use encoding_rs::{Encoding, UTF_8};

/// How names are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charset(Option<&'static Encoding>);

impl Charset {
    /// That of a text with this value of `encoding`. What is not known is left alone, and so are the
    /// few in which a quote may be part of another character.
    pub(crate) fn of(value: Option<&[u8]>) -> Self {
        let known = value.and_then(Encoding::for_label);
        Self(known.filter(|found| *found != UTF_8 && found.is_ascii_compatible()))
    }

    /// A name as it is in UTF-8.
    pub(crate) fn decode(self, name: &[u8]) -> Vec<u8> {
        let decoded = self
            .0
            .and_then(|found| found.decode_without_bom_handling_and_without_replacement(name));
        decoded.map_or_else(|| name.to_vec(), |text| text.into_owned().into_bytes())
    }

    /// A name as the text has it; `None` if it has characters that the encoding does not.
    pub(crate) fn encode(self, name: &[u8]) -> Option<Vec<u8>> {
        let (Some(charset), Ok(text)) = (self.0, std::str::from_utf8(name)) else {
            return Some(name.to_vec());
        };
        let (bytes, _, is_lossy) = charset.encode(text);
        (!is_lossy).then(|| bytes.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_utf_8_here_and_as_before_in_the_text() {
        for (label, written, name) in [
            ("GBK", &b"\xb4\xc5\xc5\xcc.vmdk"[..], "磁盘.vmdk"),
            ("Shift_JIS", b"\x83\x66\x83\x42\x83\x58\x83\x4e.vmdk", "ディスク.vmdk"),
            ("windows-1252", b"gr\xfc\xdfe.vmdk", "grüße.vmdk"),
            ("windows-1251", b"\xe4\xe8\xf1\xea", "диск"),
            ("UTF-8", "диск".as_bytes(), "диск"),
            ("who-knows", "диск".as_bytes(), "диск"),
            ("UTF-16", "диск".as_bytes(), "диск"),
        ] {
            let charset = Charset::of(Some(label.as_bytes()));
            assert_eq!(charset.decode(written), name.as_bytes(), "{label}");
            assert_eq!(charset.encode(name.as_bytes()).as_deref(), Some(written), "{label}");
        }
        let charset = Charset::of(Some(b"GBK"));
        assert_eq!(charset.decode(b"a\xff"), b"a\xff");
        assert_eq!(charset.encode(b"a\xff").as_deref(), Some(&b"a\xff"[..]));
        assert_eq!(Charset::of(Some(b"windows-1252")).encode("磁".as_bytes()), None);
        assert_eq!(Charset::of(None).decode(b"\xb4"), b"\xb4");
    }
}
