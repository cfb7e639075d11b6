//! Errors of the crypto room in the words of a format.

use anydisk_core::{Error, Invalid, Limits, SecretProblem, Value};
use anydisk_crypto::{Error as Crypto, Found, KdfLimits};

use crate::{KEY_SECRET, NAME};

/// The error as this format tells it.
pub(crate) fn told(error: Crypto) -> Error {
    match error {
        Crypto::Storage(error) => error.into(),
        Crypto::Invalid(invalid) => Invalid {
            format: NAME,
            field: invalid.field,
            at: invalid.at,
            found: value(invalid.found),
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
        Crypto::Refused(why) => Error::Unusable { what: "header", name: NAME.into(), why },
        other => {
            let cause = std::io::Error::other(other);
            anydisk_storage::Error::whole("get random bytes", "the system", cause).into()
        }
    }
}

fn value(found: Found) -> Value {
    match found {
        Found::Number(number) => Value::Number(number),
        Found::Hex(number) => Value::Hex(number),
        Found::Text(bytes) => Value::Text(bytes),
        _ => Value::Missing,
    }
}

/// The limits on deriving keys.
pub(crate) fn kdf_limits(limits: &Limits) -> KdfLimits {
    let kib = limits.kdf_memory >> 10;
    // As many passes as the usual programs make, several times over.
    KdfLimits::new(limits.kdf_iterations, kib, kib.saturating_mul(16))
}
