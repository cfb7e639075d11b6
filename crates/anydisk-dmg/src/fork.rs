//! The resource fork of older images: bytes to the tables in it. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{HostOffset, Invalid, Result, Value};

use crate::NAME;
use crate::layout::MISH;

/// Hands every table of the resource fork, which lies at `base` of the file, to `found`, with its
/// place: of all resources those that begin as tables do.
///
/// # Errors
/// [`Error::Invalid`](anydisk_core::Error::Invalid) for lengths that leave the fork; those of `found`.
pub(crate) fn tables(
    fork: &[u8],
    base: HostOffset,
    mut found: impl FnMut(HostOffset, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let start = number(fork, 0).zip(number(fork, 8));
    let data = start.and_then(|(at, len)| fork.get(at..)?.get(..len).map(|data| (at, data)));
    let Some((mut at, mut rest)) = data else {
        return Err(broken(base, start.map(|(at, _)| at), "resources inside the fork"));
    };
    while !rest.is_empty() {
        let place = base.saturating_add(at as u64);
        let len = number(rest, 0);
        let resource = len.and_then(|len| rest.get(4..)?.split_at_checked(len));
        let Some((bytes, behind)) = resource else {
            return Err(broken(place, len, "a resource inside the fork"));
        };
        if bytes.starts_with(&MISH) {
            found(place.saturating_add(4), bytes.to_vec())?;
        }
        at = at.saturating_add(rest.len().saturating_sub(behind.len()));
        rest = behind;
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

#[cold]
fn broken(at: HostOffset, found: Option<usize>, expected: &'static str) -> anydisk_core::Error {
    Invalid {
        format: NAME,
        field: "resource fork".into(),
        at,
        found: found.map_or(Value::Missing, |found| Value::Number(found as u64)),
        expected: expected.into(),
    }
    .into()
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests {
    use super::*;

    fn fork(data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).expect("short");
        [&[0, 0, 0, 16][..], &[0; 4], &len.to_be_bytes(), &[0; 4], data].concat()
    }

    #[test]
    fn resources_that_begin_as_tables_do_are_found_with_their_places() {
        let data = b"\0\0\0\x03abc\0\0\0\x06mish12\0\0\0\0\0\0\0\x04mish";
        let mut all = Vec::new();
        let read = tables(&fork(data), HostOffset(0x1000), |at, bytes| {
            all.push((at.get(), bytes));
            Ok(())
        });
        read.expect("it is good");
        assert_eq!(all, [(0x101B, b"mish12".to_vec()), (0x1029, b"mish".to_vec())]);
    }

    #[test]
    fn lengths_that_leave_the_fork_are_refused() {
        let refusal =
            |fork: &[u8]| tables(fork, HostOffset(0x1000), |_, _| Ok(())).unwrap_err().to_string();
        let expected = "dmg: resource fork at 0x1010 is 9, expected a resource inside the fork";
        assert_eq!(refusal(&fork(b"\0\0\0\x09abc")), expected);
        let expected =
            "dmg: resource fork at 0x1010 is missing, expected a resource inside the fork";
        assert_eq!(refusal(&fork(b"\0\0")), expected);
        let expected = "dmg: resource fork at 0x1000 is 16, expected resources inside the fork";
        let whole = fork(b"\0\0\0\x03abc");
        assert_eq!(refusal(&whole[..20]), expected);
    }
}
