//! Passphrases added and removed.

use std::sync::Arc;

use anydisk_core::{AmendRequest, Error, OptionKind, OptionSpec, Options, Result};
use anydisk_crypto::iterations_for;
use anydisk_crypto::luks::{Luks, NewSlot, Payload};
use anydisk_crypto::{Error as Crypto, Hash};

use crate::create::{ITER_TIME, iter_time};
use crate::open::{needed, passphrase};
use crate::told::{kdf_limits, told};
use crate::{KEY_SECRET, NAME};

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "state",
        help: "active: add a passphrase; inactive: remove one",
        kind: OptionKind::Word(&["active", "inactive"]),
        default: None,
    },
    OptionSpec {
        name: "new-secret",
        help: "name of the secret that is the passphrase to add",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "old-secret",
        help: "name of the secret that is the passphrase to remove",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "keyslot",
        help: "number of the key slot",
        kind: OptionKind::Number,
        default: None,
    },
    OptionSpec {
        name: "iter-time",
        help: "milliseconds that trying the new passphrase takes",
        kind: OptionKind::Number,
        default: Some(ITER_TIME),
    },
];

pub(crate) fn amend(request: &AmendRequest<'_>) -> Result<()> {
    if !request.open.is_writable()? {
        return Err(Error::ReadOnly { why: "it was opened for reading".into() });
    }
    let store = Arc::clone(&request.open.store);
    let mut luks = Luks::read(store, Payload::Behind).map_err(told)?;
    match request.options.text("state") {
        Some("active") => add(request, &mut luks),
        Some("inactive") => remove(request, &mut luks),
        _ => Err(request.options.refuse("state", "active or inactive")),
    }
}

/// The number of a slot, if one is named.
fn keyslot(options: &Options) -> Result<Option<u32>> {
    let number = options.number("keyslot").map(u32::try_from).transpose();
    number.map_err(|_| options.refuse("keyslot", "the number of a key slot"))
}

fn add(request: &AmendRequest<'_>, luks: &mut Luks) -> Result<()> {
    let (open, options) = (&request.open, request.options);
    let number = keyslot(options)?;
    let old = needed(open.secrets, KEY_SECRET, open.location)?;
    let new = needed(open.secrets, "new-secret", open.location)?;
    let limits = kdf_limits(open.limits);
    let key = luks.unlock(old.as_bytes(), None, limits).map_err(told)?.key;
    let hash = luks.info().hash.unwrap_or(Hash::Sha256);
    let iterations = iterations_for(hash, key.len(), iter_time(options), 1000);
    let slot = NewSlot::pbkdf2(new.as_bytes(), iterations);
    let slot = number.map_or(slot, |number| slot.at(number));
    luks.add_slot(&key, &slot, limits).map(drop).map_err(told)
}

fn remove(request: &AmendRequest<'_>, luks: &mut Luks) -> Result<()> {
    let options = request.options;
    if let Some(number) = keyslot(options)? {
        return luks.remove_slot(number, request.force).map_err(told);
    }
    let old = passphrase(request.open.secrets, "old-secret", request.open.location)?;
    let old = old.ok_or_else(|| options.refuse("keyslot", "a key slot or old-secret"))?;
    let slots = opened_by(request, luks, old.as_bytes())?;
    if slots.len() == luks.active_slots().len() && !request.force {
        let why = "no other passphrase would be left: all data is lost without one".into();
        return Err(Error::Unusable { what: "header", name: NAME.into(), why });
    }
    slots.into_iter().try_for_each(|number| luks.remove_slot(number, request.force).map_err(told))
}

/// All slots that the passphrase opens.
fn opened_by(request: &AmendRequest<'_>, luks: &Luks, old: &[u8]) -> Result<Vec<u32>> {
    let limits = kdf_limits(request.open.limits);
    let mut opened = Vec::new();
    for number in luks.active_slots() {
        match luks.unlock(old, Some(number), limits) {
            Ok(_) => opened.push(number),
            Err(Crypto::WrongPassphrase) => {}
            Err(error) => return Err(told(error)),
        }
    }
    if opened.is_empty() {
        let why = Crypto::WrongPassphrase.to_string().into();
        return Err(Error::Secret { option: "old-secret", why });
    }
    Ok(opened)
}
