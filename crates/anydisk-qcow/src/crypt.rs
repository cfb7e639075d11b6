//! Encryption (`crypt_method` 1): AES-128 in CBC mode, sector by sector, each by its number on the
//! disk. Tables and compressed clusters are plain.

use std::sync::Arc;

use anydisk_core::{
    Error, HostOffset, Location, Result, SecretProblem, SecretRequest, Secrets, Storage,
};
use anydisk_crypto::{ByGuest, Error as Crypto, PastEnd, SectorCipher};

use crate::NAME;

/// The option under which the passphrase is asked for.
pub(crate) const KEY_SECRET: &str = "encrypt.key-secret";

/// How the data of an image is reached.
#[derive(Debug)]
pub(crate) enum View {
    /// As it lies in the file.
    Plain,
    /// By the distance between its place on the disk and that in the file.
    ByGuest(Box<ByGuest>),
    /// Not at all, for want of a passphrase.
    Locked,
}

impl View {
    /// Asks for the passphrase of an encrypted image. Without one the image can be told about.
    pub(crate) fn unlocked(
        store: &Arc<dyn Storage>,
        location: &Location,
        secrets: &dyn Secrets,
    ) -> Result<Self> {
        Ok(match secrets.secret(&SecretRequest::new(KEY_SECRET, location))? {
            None => Self::Locked,
            Some(secret) => {
                let cipher = SectorCipher::legacy(secret.as_bytes());
                let views = ByGuest::new(Arc::clone(store), cipher, PastEnd::Ciphertext);
                Self::ByGuest(Box::new(views))
            }
        })
    }

    /// The store for the cluster of the disk that begins at `guest`, and in the file at `at`.
    #[inline]
    pub(crate) fn store<'a>(
        &'a self,
        file: &'a Arc<dyn Storage>,
        guest: u64,
        at: HostOffset,
    ) -> Result<&'a Arc<dyn Storage>> {
        match self {
            Self::Plain => Ok(file),
            Self::ByGuest(views) => views.at(guest, at).map_err(told),
            Self::Locked => Err(locked()),
        }
    }

    /// That there is a passphrase if one is needed: also where nothing is stored, nobody shall take
    /// the disk for one that can be read.
    pub(crate) fn check_unlocked(&self) -> Result<()> {
        if matches!(self, Self::Locked) { Err(locked()) } else { Ok(()) }
    }
}

#[cold]
pub(crate) fn locked() -> Error {
    Error::Secret { option: KEY_SECRET, why: SecretProblem::Missing("the passphrase of the image") }
}

#[cold]
fn told(error: Crypto) -> Error {
    match error {
        Crypto::Limit { what, found, limit } => {
            Error::Limit { format: NAME, what: what.into(), found, limit }
        }
        other => Error::Unsupported { format: NAME, feature: other.to_string().into() },
    }
}
