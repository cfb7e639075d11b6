//! Bytes from and to a client, bounded.

use std::io::{self, Read, Write};

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Result, protocol};

/// Reads one struct of the protocol.
pub(crate) fn read<T: FromBytes + IntoBytes>(input: &mut impl Read) -> io::Result<T> {
    let mut value = T::new_zeroed();
    input.read_exact(value.as_mut_bytes())?;
    Ok(value)
}

/// Reads `len` bytes, at most `most`.
///
/// # Errors
/// That there are more, before any memory is taken for them.
pub(crate) fn read_bytes(input: &mut impl Read, len: u32, most: u32) -> Result<Vec<u8>> {
    if len > most {
        return Err(protocol(format!("sent {len} bytes, expected {most} at most")));
    }
    let mut bytes = Vec::new();
    input.by_ref().take(len.into()).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != u64::from(len) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(bytes)
}

/// Writes the structs and bytes of one message at once.
pub(crate) fn write(output: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    output.write_all(&parts.concat())?;
    output.flush()
}

/// The data of an option, field by field; `None` where it ends too early.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// A text behind its length.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_reach_behind_the_end_are_none() {
        assert_eq!(Fields(b"\0\0\0\x02ab").text(), Some("ab"));
        assert_eq!(Fields(b"\0\0\0\x03ab").text(), None);
        assert_eq!(Fields(b"\xff\xff\xff\xffab").text(), None);
        assert_eq!(Fields(b"\0\0\0\x01\xff").text(), None);
        assert_eq!(Fields(b"\0\0").text(), None);
    }

    #[test]
    fn more_than_is_allowed_is_refused_before_it_is_read() {
        let error = read_bytes(&mut io::repeat(0), u32::MAX, 16).expect_err("too many");
        assert_eq!(error.to_string(), "the client: sent 4294967295 bytes, expected 16 at most");
        let error = read_bytes(&mut &b"abc"[..], 4, 16).expect_err("too few");
        assert!(error.to_string().starts_with("the connection: "), "{error}");
    }
}
