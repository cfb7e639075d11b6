//! Passphrases of an image that is encrypted with LUKS, added and removed in place.
//!
//! Only the LUKS header changes, which lies in clusters of its own: no table, no data. So the image
//! need not be in order otherwise.

use anydisk_core::{
    Error, OpenRequest, PassphraseChange, PassphraseOptions, Result, Secret, SecretProblem,
};
use anydisk_crypto::Error as Crypto;

use crate::crypt::{KEY_SECRET, kdf_limits, luks_of, told};
use crate::survey::survey;
use crate::{Header, NAME};

/// The names of the options.
pub(crate) const PASSPHRASES: PassphraseOptions = PassphraseOptions {
    key_secret: KEY_SECRET,
    state: "encrypt.state",
    keyslot: "encrypt.keyslot",
    old_secret: "encrypt.old-secret",
    new_secret: "encrypt.new-secret",
    iter_time: "encrypt.iter-time",
};

/// See [`Format::change_passphrases`](anydisk_core::Format::change_passphrases).
pub(crate) fn change_passphrases(
    request: &OpenRequest<'_>,
    change: &PassphraseChange,
    force: bool,
) -> Result<()> {
    if !request.is_writable()? {
        return Err(Error::ReadOnly { why: "it was opened for reading".into() });
    }
    let header = Header::read(&*request.store, request.limits)?;
    refuse_without_slots(&header)?;
    let luks = luks_of(&header, &request.store)?;
    let mut luks = luks.ok_or_else(|| unsupported("LUKS without a header in the image"))?;
    // Key material is written where the header says: not over tables.
    survey(&*request.store, &header)?;
    let limits = kdf_limits(request.limits);
    let of_old = |error| match error {
        Crypto::WrongPassphrase => Error::Secret {
            option: PASSPHRASES.old_secret,
            why: SecretProblem::Wrong(error.to_string().into()),
        },
        error => told(error),
    };
    match change {
        PassphraseChange::Add { current, new, slot, time } => {
            let added =
                luks.add_passphrase(current.as_bytes(), new.as_bytes(), *slot, *time, limits);
            added.map(drop).map_err(told)
        }
        PassphraseChange::RemoveSlot { slot, passphrase } => {
            let passphrase = passphrase.as_ref().map(Secret::as_bytes);
            luks.remove_opened_slot(*slot, passphrase, force, limits).map_err(of_old)
        }
        PassphraseChange::Remove { passphrase } => {
            luks.remove_passphrase(passphrase.as_bytes(), force, limits).map_err(of_old)
        }
        _ => Err(unsupported("this change of passphrases")),
    }
}

/// Refuses an image that has no key slots. The legacy AES has the passphrase itself for a key.
pub(crate) fn refuse_without_slots(header: &Header) -> Result<()> {
    match header.crypt_method {
        0 => Err(unsupported("changing passphrases of an image that is not encrypted")),
        1 => Err(unsupported("changing the passphrase of the legacy AES encryption")),
        _ => Ok(()),
    }
}

fn unsupported(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
