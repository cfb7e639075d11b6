//! Encryption (qcow2, "Header", crypt_method; "Full disk encryption header pointer").
//!
//! Only data is encrypted, never tables nor compressed clusters. With LUKS (method 2) a sector's
//! number is that of its place in the file, so all data lies in one store that decrypts. With the
//! legacy AES (method 1) it is that of the guest's sector: there is a store for each distance
//! between the two.

use std::sync::Arc;
use std::time::Duration;

use anydisk_core::{
    Detail, DetailValue, Error, GuestOffset, HostOffset, Invalid, Limits, OpenRequest, Options,
    Result, SecretProblem, SecretRequest, Storage, Value,
};
use anydisk_crypto::luks::{Field, Luks, LuksInfo, NewLuks, NewSlot, Payload, Words};
use anydisk_crypto::{
    ByGuest, EncryptedStorage, Error as Crypto, Found, KdfLimits, PastEnd, SectorCipher,
};
use anydisk_storage::Window;

use crate::image::Stores;
use crate::{Header, NAME};

/// The option under which the passphrase is asked for.
pub(crate) const KEY_SECRET: &str = "encrypt.key-secret";

/// What opens the data of an image.
#[derive(Debug, Default)]
pub(crate) enum Crypt {
    /// It is not encrypted.
    #[default]
    None,
    /// No passphrase was given.
    Locked(Option<Arc<LuksInfo>>),
    /// The key of the LUKS header.
    Luks(SectorCipher, Arc<LuksInfo>),
    /// The passphrase itself.
    Legacy(SectorCipher),
}

/// How the data of an image is reached.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// In the data store, which decrypts where that is needed.
    Direct,
    /// By the distance between guest and host.
    ByGuest(Arc<ByGuest>),
    /// Not at all, for want of a passphrase.
    Locked,
}

/// The encryption of a new image.
#[derive(Debug)]
pub(crate) enum NewEncryption {
    Legacy,
    /// With the time that trying a passphrase takes.
    Luks(NewLuks, Duration),
}

impl NewEncryption {
    /// What the options ask for.
    pub(crate) fn of(options: &Options) -> Result<Option<Self>> {
        let text = |name, default| options.text(name).unwrap_or(default);
        match options.encryption()? {
            Some("luks") => {}
            Some(_) => return Ok(Some(Self::Legacy)),
            None => return Ok(None),
        }
        let words = Words {
            cipher_alg: text("encrypt.cipher-alg", "aes-256"),
            cipher_mode: text("encrypt.cipher-mode", "xts"),
            ivgen_alg: text("encrypt.ivgen-alg", "plain64"),
            ivgen_hash_alg: text("encrypt.ivgen-hash-alg", "sha256"),
            hash_alg: text("encrypt.hash-alg", "sha256"),
        };
        let new = NewLuks::luks1().named(&words).map_err(told)?;
        let millis = options.number("encrypt.iter-time").unwrap_or(2000);
        Ok(Some(Self::Luks(new, Duration::from_millis(millis.min(1 << 20)))))
    }

    /// The `crypt_method` of the header.
    pub(crate) const fn method(&self) -> u32 {
        match self {
            Self::Legacy => 1,
            Self::Luks(..) => 2,
        }
    }

    /// Bytes of the LUKS header.
    pub(crate) fn header_len(&self) -> u64 {
        match self {
            Self::Legacy => 0,
            Self::Luks(new, _) => new.header_len(),
        }
    }

    /// Makes the LUKS header at `at`, if there is one, and answers what opens the data.
    pub(crate) fn make(
        &self,
        image: &Arc<dyn Storage>,
        at: HostOffset,
        passphrase: &[u8],
    ) -> Result<Crypt> {
        let Self::Luks(new, time) = self else {
            return Ok(Crypt::Legacy(SectorCipher::legacy(passphrase)));
        };
        let window = Arc::new(Window::new(Arc::clone(image), at, new.header_len())?);
        let mut new = new.clone();
        let (iterations, of_digest) = new.iterations(*time);
        new.digest_iterations = of_digest;
        let slot = NewSlot::pbkdf2(passphrase, iterations);
        let made = Luks::create(window, Payload::Elsewhere, &new, &slot);
        let (luks, key) = made.map_err(told)?;
        let cipher = luks.cipher(&key).map_err(told)?;
        Ok(Crypt::Luks(cipher, Arc::new(luks.info())))
    }
}

impl Crypt {
    /// Asks for the passphrase of an encrypted image, if it is one.
    pub(crate) fn of(header: &Header, stores: &Stores, request: &OpenRequest<'_>) -> Result<Self> {
        if header.crypt_method == 0 {
            return Ok(Self::None);
        }
        let luks = luks_of(header, &stores.image)?;
        let wanted = SecretRequest::new(KEY_SECRET, request.location);
        let secret = request.secrets.secret(&wanted)?;
        Ok(match (luks, secret) {
            (luks, None) => Self::Locked(luks.map(|luks| Arc::new(luks.info()))),
            (None, Some(secret)) => Self::Legacy(SectorCipher::legacy(secret.as_bytes())),
            (Some(luks), Some(secret)) => {
                let limits = kdf_limits(request.limits);
                let unlocked = luks.unlock(secret.as_bytes(), None, limits).map_err(told)?;
                let cipher = luks.cipher(&unlocked.key).map_err(told)?;
                Self::Luks(cipher, Arc::new(luks.info()))
            }
        })
    }

    /// As it is without a passphrase.
    pub(crate) fn locked(header: &Header, image: &Arc<dyn Storage>) -> Result<Self> {
        if header.crypt_method == 0 {
            return Ok(Self::None);
        }
        Ok(Self::Locked(luks_of(header, image)?.map(|luks| Arc::new(luks.info()))))
    }

    /// The store that data is read from and written to, how it is reached, and what is known of the
    /// LUKS header.
    pub(crate) fn applied(
        self,
        data: Arc<dyn Storage>,
    ) -> (Arc<dyn Storage>, View, Option<Arc<LuksInfo>>) {
        match self {
            Self::None => (data, View::Direct, None),
            Self::Locked(info) => (data, View::Locked, info),
            Self::Luks(cipher, info) => {
                let plain = EncryptedStorage::new(data, cipher, 0, PastEnd::Ciphertext);
                (Arc::new(plain), View::Direct, Some(info))
            }
            Self::Legacy(cipher) => {
                let views = ByGuest::new(Arc::clone(&data), cipher, PastEnd::Ciphertext);
                (data, View::ByGuest(Arc::new(views)), None)
            }
        }
    }
}

impl View {
    /// The store for data of the guest at `guest`, which lies at `at`; `data` is the usual one.
    #[inline]
    pub(crate) fn store<'a>(
        &'a self,
        data: &'a Arc<dyn Storage>,
        guest: GuestOffset,
        at: HostOffset,
    ) -> Result<&'a Arc<dyn Storage>> {
        match self {
            Self::Direct => Ok(data),
            Self::ByGuest(views) => views.at(guest.get(), at).map_err(told),
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
    let why = SecretProblem::Missing("the passphrase of the image");
    Error::Secret { option: KEY_SECRET, why }
}

/// The LUKS header, which lies in clusters of its own, if there is one.
pub(crate) fn luks_of(header: &Header, image: &Arc<dyn Storage>) -> Result<Option<Luks>> {
    let Some((at, len)) = header.crypto_header() else { return Ok(None) };
    let window = Window::new(Arc::clone(image), at, len)?;
    Luks::read(Arc::new(window), Payload::Elsewhere).map(Some).map_err(told)
}

/// What `info` shows.
pub(crate) fn details(header: &Header, luks: Option<&LuksInfo>) -> Option<Detail> {
    let fields = match (header.crypt_method, luks) {
        (0, _) => return None,
        (_, Some(luks)) => luks.fields(false, Some("luks")),
        _ => vec![("format", Field::Text("aes".into()))],
    };
    let value = DetailValue::Map(fields.into_iter().map(detail).collect());
    Some(Detail { name: "encrypt", value })
}

fn detail((name, field): (&'static str, Field)) -> Detail {
    let value = match field {
        Field::Flag(flag) => DetailValue::Flag(flag),
        Field::Number(number) => DetailValue::Number(number),
        Field::Text(text) => DetailValue::Text(text),
        Field::List(groups) => {
            let group = |group: Vec<_>| DetailValue::Map(group.into_iter().map(detail).collect());
            DetailValue::List(groups.into_iter().map(group).collect())
        }
    };
    Detail { name, value }
}

/// The limits on deriving keys.
pub(crate) fn kdf_limits(limits: &Limits) -> KdfLimits {
    let kib = limits.kdf_memory >> 10;
    KdfLimits::new(limits.kdf_iterations, kib, kib.saturating_mul(16))
}

/// An error of the crypto room as this format tells it.
pub(crate) fn told(error: Crypto) -> Error {
    match error {
        Crypto::Storage(error) => error.into(),
        Crypto::Invalid(invalid) => Invalid {
            format: NAME,
            field: format!("crypto header: {}", invalid.field).into(),
            at: invalid.at,
            found: match invalid.found {
                Found::Number(number) => Value::Number(number),
                Found::Hex(number) => Value::Hex(number),
                Found::Text(bytes) => Value::Text(bytes),
                _ => Value::Missing,
            },
            expected: invalid.expected,
        }
        .into(),
        Crypto::Unsupported(feature) => {
            Error::Unsupported { format: NAME, feature: feature.into() }
        }
        Crypto::Limit { what, found, limit } => {
            Error::Limit { format: NAME, what: what.into(), found, limit }
        }
        wrong @ Crypto::WrongPassphrase => Error::Secret {
            option: KEY_SECRET,
            why: SecretProblem::Wrong(wrong.to_string().into()),
        },
        Crypto::Refused(why) => Error::Unusable { what: "header", name: "encryption".into(), why },
        other => {
            let cause = std::io::Error::other(other);
            anydisk_storage::Error::whole("get random bytes", "the system", cause).into()
        }
    }
}
