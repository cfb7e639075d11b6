//! Opening: the header, the passphrase, the payload.

use std::sync::Arc;

use anydisk_core::{
    Error, Location, OpenRequest, Opened, Result, SecretProblem, SecretRequest, Secrets, Storage,
};
use anydisk_crypto::luks::{Luks, Payload};

use crate::told::{kdf_limits, told};
use crate::{KEY_SECRET, LuksImage};

/// Opens a container. Without a passphrase it opens too, and is read only as far as its header.
pub(crate) fn open(request: &OpenRequest<'_>) -> Result<Opened> {
    let (header, payload) = header_of(request)?;
    open_in(request, header, payload)
}

/// The store with the header, and where the payload is from there.
///
/// # Errors
/// What the resolver says of a header that lies apart; [`Error::Denied`] if it is the payload.
pub(crate) fn header_of(request: &OpenRequest<'_>) -> Result<(Arc<dyn Storage>, Payload)> {
    let Some(apart) = request.resolver.header_of(request.location)? else {
        return Ok((Arc::clone(&request.store), Payload::Behind));
    };
    let payload = request.store.identity();
    if payload.is_some() && apart.store.identity() == payload {
        let name = apart.location.to_string();
        let why = "it is the file of the payload".into();
        return Err(Error::Denied { role: "header", name, why });
    }
    Ok((apart.store, Payload::Elsewhere))
}

/// Opens a container whose header lies in a store of its own: `header` is that store, the store of
/// the request is the payload. A passphrase is asked of the request's secrets.
///
/// # Errors
/// As those of opening a container: [`Error::Secret`] for a wrong passphrase, what is broken or
/// not supported in the header, what the stores say.
pub fn open_detached(request: &OpenRequest<'_>, header: Arc<dyn Storage>) -> Result<Opened> {
    open_in(request, header, Payload::Elsewhere)
}

fn open_in(
    request: &OpenRequest<'_>,
    header: Arc<dyn Storage>,
    payload: Payload,
) -> Result<Opened> {
    let writable = request.is_writable()?;
    let luks = Luks::read(header, payload).map_err(told)?;
    let key = match passphrase(request.secrets, KEY_SECRET, request.location)? {
        Some(secret) => {
            let limits = kdf_limits(request.limits);
            Some(luks.unlock(secret.as_bytes(), None, limits).map_err(told)?.key)
        }
        None => None,
    };
    if writable && key.is_none() {
        return Err(missing(KEY_SECRET));
    }
    let detached = payload == Payload::Elsewhere;
    let image = LuksImage::new(&luks, &request.store, key.as_ref(), detached, writable)?;
    let mut opened = Opened::new(Arc::new(image), None);
    opened.warnings.extend(luks.info().damaged);
    Ok(opened)
}

/// The passphrase of this option, if there is one.
pub(crate) fn passphrase(
    secrets: &dyn Secrets,
    option: &'static str,
    location: &Location,
) -> Result<Option<anydisk_core::Secret>> {
    secrets.secret(&SecretRequest::new(option, location))
}

/// The passphrase of this option.
pub(crate) fn needed(
    secrets: &dyn Secrets,
    option: &'static str,
    location: &Location,
) -> Result<anydisk_core::Secret> {
    let secret = passphrase(secrets, option, location)?;
    secret.ok_or_else(|| missing(option))
}

fn missing(option: &'static str) -> Error {
    Error::Secret { option, why: SecretProblem::Missing("a passphrase") }
}
