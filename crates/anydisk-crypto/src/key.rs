//! Bytes that are wiped when they are no longer needed.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroizing;

use crate::Result;

/// Key bytes or a passphrase: overwritten when dropped, never shown.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// `len` zero bytes, to be filled in. The memory never moves, so no copy stays behind.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self(Zeroizing::new(vec![0; len]))
    }

    /// `len` bytes of the system's random source.
    ///
    /// # Errors
    /// [`Error::Random`](crate::Error::Random).
    pub fn random(len: usize) -> Result<Self> {
        let mut key = Self::zeroed(len);
        getrandom::fill(&mut key)?;
        Ok(key)
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Key {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let key = Key::from(&b"hunter2"[..]);
        assert_eq!(format!("{key:?}"), "Key(7 bytes)");
    }
}
