//! Header extensions: what follows the header in the first cluster. Pure.

use std::borrow::Cow;
use std::mem::offset_of;

use anydisk_core::{Error, HostOffset, Invalid, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::NAME;
use crate::layout::{ExtensionHead, extension};

const HEAD_LEN: u64 = size_of::<ExtensionHead>() as u64;

/// One header extension, as it stands in the file. Known ones are kept in the same form as unknown
/// ones, so that writing the header back loses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type; see [`extension`].
    pub kind: u32,
    /// Its data, without padding.
    pub data: Vec<u8>,
}

/// The start of a file, and how long the file is: bytes past its end are zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) file_len: u64,
}

impl<'a> Head<'a> {
    /// `len` bytes at `at`.
    ///
    /// # Errors
    /// [`Error::Limit`] if the caller read less of the file than it takes.
    pub(crate) fn get(self, at: u64, len: u64) -> Result<Cow<'a, [u8]>> {
        let end = at.saturating_add(len);
        let read = self.bytes.len() as u64;
        if end > read && read < self.file_len {
            let what = "header with its extensions, in bytes".into();
            return Err(Error::Limit { format: NAME, what, found: end, limit: read });
        }
        let index = |at: u64| usize::try_from(at.min(read)).unwrap_or(self.bytes.len());
        let inside = &self.bytes[index(at)..index(end)];
        let missing = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(inside.len());
        if missing == 0 {
            return Ok(Cow::Borrowed(inside));
        }
        let mut padded = inside.to_vec();
        padded.resize(inside.len() + missing, 0);
        Ok(Cow::Owned(padded))
    }
}

/// The data of the extension of this type; of several the last, as in qemu.
pub(crate) fn find(extensions: &[Extension], kind: u32) -> Option<&[u8]> {
    let found = extensions.iter().rev().find(|extension| extension.kind == kind)?;
    Some(&found.data)
}

/// Reads the extensions between `start` and `end`, an offset in the first cluster.
pub(crate) fn parse(head: Head<'_>, start: u64, end: u64) -> Result<Vec<Extension>> {
    let mut extensions = Vec::new();
    let mut at = start;
    // The end of the area ends the list as well as the end marker does.
    while at < end {
        let Some((kind, length)) = parse_head(head, at, end)? else { break };
        at += HEAD_LEN;
        extensions.push(Extension { kind, data: head.get(at, length)?.into_owned() });
        at += length.next_multiple_of(8);
    }
    Ok(extensions)
}

/// Type and data length of the extension at `at`; `None` for the end marker.
fn parse_head(head: Head<'_>, at: u64, end: u64) -> Result<Option<(u32, u64)>> {
    let Some(most) = (end - at).checked_sub(HEAD_LEN) else {
        let expected =
            format!("at least {HEAD_LEN} bytes in the header area, which ends at {end:#x}");
        return Err(invalid("header extension", at, end - at, expected).into());
    };
    let bytes = head.get(at, HEAD_LEN)?;
    let raw = ExtensionHead::read_from_bytes(&bytes).expect("a head is as long as its struct");
    let (kind, length) = (raw.kind.get(), u64::from(raw.length.get()));
    if kind == extension::END {
        return Ok(None); // Its length means nothing.
    }
    if length > most {
        let at = at + offset_of!(ExtensionHead, length) as u64;
        return Err(
            invalid("length of a header extension", at, length, format!("at most {most}")).into()
        );
    }
    Ok(Some((kind, length)))
}

fn invalid(field: &'static str, at: u64, found: u64, expected: String) -> Invalid {
    Invalid {
        format: NAME,
        field: field.into(),
        at: HostOffset(at),
        found: found.into(),
        expected: expected.into(),
    }
}

/// The extensions as they stand in the file, with the end marker.
pub(crate) fn to_bytes(extensions: &[Extension]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for extension in extensions {
        push_head(&mut bytes, extension.kind, extension.data.len());
        bytes.extend_from_slice(&extension.data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    push_head(&mut bytes, extension::END, 0);
    bytes
}

fn push_head(bytes: &mut Vec<u8>, kind: u32, len: usize) {
    let length = u32::try_from(len).expect("an extension fits in the first cluster");
    let head = ExtensionHead { kind: kind.into(), length: length.into() };
    bytes.extend_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_all(bytes: &[u8]) -> Result<Vec<Extension>> {
        let len = bytes.len() as u64;
        parse(Head { bytes, file_len: len }, 0, len)
    }

    fn extensions() -> impl Strategy<Value = Vec<Extension>> {
        let one = (1u32.., proptest::collection::vec(any::<u8>(), 0..40));
        proptest::collection::vec(one.prop_map(|(kind, data)| Extension { kind, data }), 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(list in extensions()) {
            prop_assert_eq!(parse_all(&to_bytes(&list)).expect("valid"), list);
        }

        #[test]
        fn any_bytes_give_extensions_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(list) = parse_all(&bytes) {
                let data: usize = list.iter().map(|extension| extension.data.len()).sum();
                prop_assert!(data <= bytes.len());
            }
        }
    }

    #[test]
    fn a_list_may_end_with_the_area_instead_of_the_marker() {
        let mut bytes = to_bytes(&[Extension { kind: 7, data: vec![1, 2, 3] }]);
        bytes.truncate(16);
        assert_eq!(parse_all(&bytes).expect("valid").len(), 1);
    }

    #[test]
    fn data_longer_than_the_area_is_refused_with_place_and_length() {
        let mut bytes = to_bytes(&[Extension { kind: 7, data: vec![0; 8] }]);
        bytes[7] = 17;
        let error = parse_all(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "qcow2: length of a header extension at 0x4 is 17, expected at most 16"
        );
    }

    #[test]
    fn an_extension_the_caller_did_not_read_is_a_matter_of_limits() {
        let bytes = to_bytes(&[Extension { kind: 7, data: vec![0; 64] }]);
        let error = parse(Head { bytes: &bytes[..32], file_len: 4096 }, 0, 4096).unwrap_err();
        assert!(matches!(error, Error::Limit { found: 72, limit: 32, .. }), "{error}");
    }

    #[test]
    fn past_the_end_of_the_file_everything_is_zero() {
        let mut bytes = to_bytes(&[Extension { kind: 7, data: vec![9; 8] }]);
        bytes.truncate(12);
        let list = parse(Head { bytes: &bytes, file_len: 12 }, 0, 4096).expect("valid");
        assert_eq!(list, [Extension { kind: 7, data: vec![9, 9, 9, 9, 0, 0, 0, 0] }]);
    }
}
