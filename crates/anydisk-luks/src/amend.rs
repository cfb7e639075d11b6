//! Passphrases added and removed.

use anydisk_core::{
    AmendRequest, Error, OpenRequest, OptionSpec, PassphraseChange, PassphraseOptions, Result,
    Secret, SecretProblem,
};
use anydisk_crypto::Error as Crypto;
use anydisk_crypto::luks::Luks;

use crate::KEY_SECRET;
use crate::open::header_of;
use crate::told::{kdf_limits, told};

const PASSPHRASES: PassphraseOptions = PassphraseOptions {
    key_secret: KEY_SECRET,
    state: "state",
    keyslot: "keyslot",
    old_secret: "old-secret",
    new_secret: "new-secret",
    iter_time: "iter-time",
};

pub(crate) const OPTIONS: &[OptionSpec] = &PASSPHRASES.specs();

pub(crate) fn amend(request: &AmendRequest<'_>) -> Result<()> {
    let open = &request.open;
    let change = PASSPHRASES.change(request.options, open.secrets, open.location)?;
    change_passphrases(open, &change, request.force)
}

/// See [`Format::change_passphrases`](anydisk_core::Format::change_passphrases).
pub(crate) fn change_passphrases(
    request: &OpenRequest<'_>,
    change: &PassphraseChange,
    force: bool,
) -> Result<()> {
    if !request.is_writable()? {
        return Err(Error::ReadOnly { why: "it was opened for reading".into() });
    }
    let (header, payload) = header_of(request)?;
    let mut luks = Luks::read(header, payload).map_err(told)?;
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
        _ => Err(told(Crypto::Unsupported("this change of passphrases".into()))),
    }
}
