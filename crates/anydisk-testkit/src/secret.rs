//! Passphrases of test images.

use anydisk_core::{NoSecrets, OneSecret, Secret, Secrets};

/// Gives this passphrase to all who ask, or none.
#[must_use]
pub fn secrets(passphrase: Option<&str>) -> Box<dyn Secrets> {
    match passphrase {
        Some(text) => Box::new(OneSecret(Secret::new(text.as_bytes().to_vec()))),
        None => Box::new(NoSecrets),
    }
}
