//! Passphrases: asked for when an encrypted image is opened or made, and wiped after use.

use std::fmt::{self, Debug};

use zeroize::Zeroizing;

use crate::{Location, Result};

/// A passphrase or key. Its memory is wiped when it is dropped, and it is never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a secret is wanted for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SecretRequest<'a> {
    /// The option that names it (`encrypt.key-secret`, `key-secret`).
    pub option: &'static str,
    /// The image.
    pub location: &'a Location,
    /// The name under which the secret is kept, if the image was named with it
    /// (`json:{"driver": "luks", "key-secret": "NAME", ...}`).
    pub id: Option<&'a str>,
}

impl<'a> SecretRequest<'a> {
    /// The secret of this option for the image at `location`.
    #[must_use]
    pub fn new(option: &'static str, location: &'a Location) -> Self {
        Self { option, location, id: None }
    }
}

/// Gives secrets to the images that need them.
pub trait Secrets: Send + Sync + Debug {
    /// The secret, or `None` if there is none. Then an image may still open, to tell its size and
    /// what it is ([`ImageInfo::locked`](crate::ImageInfo::locked) says so); reading, writing and
    /// mapping it fail with [`Error::Secret`](crate::Error::Secret). A wrong one is refused at once.
    fn secret(&self, request: &SecretRequest<'_>) -> Result<Option<Secret>>;
}

/// Asks for secrets by the names under which they are kept, where an image was named with these.
#[derive(Debug)]
pub(crate) struct ByNames<'a> {
    pub(crate) secrets: &'a dyn Secrets,
    /// Options and names.
    pub(crate) names: &'a [(String, String)],
}

impl Secrets for ByNames<'_> {
    fn secret(&self, request: &SecretRequest<'_>) -> Result<Option<Secret>> {
        let named = self.names.iter().find(|(option, _)| option == request.option);
        let id = named.map(|(_, id)| &**id).or(request.id);
        self.secrets.secret(&SecretRequest { id, ..*request })
    }
}

/// Gives none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn secret(&self, _: &SecretRequest<'_>) -> Result<Option<Secret>> {
        Ok(None)
    }
}

/// Gives the same to all who ask: for a chain with one passphrase.
#[derive(Clone, Debug)]
pub struct OneSecret(pub Secret);

impl Secrets for OneSecret {
    fn secret(&self, _: &SecretRequest<'_>) -> Result<Option<Secret>> {
        Ok(Some(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new(b"swordfish".to_vec())), "Secret(..)");
    }
}
