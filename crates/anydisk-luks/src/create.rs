//! New containers.

use std::sync::Arc;
use std::time::Duration;

use anydisk_core::{
    CreateRequest, Error, Image, Measure, MeasureRequest, OptionKind, OptionSpec, Options, Result,
};
use anydisk_crypto::luks::{Luks, NewLuks, NewSlot, Payload, Words};

use crate::open::needed;
use crate::told::told;
use crate::{KEY_SECRET, LuksImage, NAME};

/// The default of `iter-time`, in milliseconds.
pub(crate) const ITER_TIME: &str = "2000";

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: KEY_SECRET,
        help: "name of the secret that is the passphrase",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "cipher-alg",
        help: "cipher and bits of its key",
        kind: OptionKind::Word(Words::CIPHERS),
        default: Some("aes-256"),
    },
    OptionSpec {
        name: "cipher-mode",
        help: "mode of the cipher",
        kind: OptionKind::Word(Words::MODES),
        default: Some("xts"),
    },
    OptionSpec {
        name: "ivgen-alg",
        help: "how the number of a sector becomes its IV",
        kind: OptionKind::Word(Words::IVS),
        default: Some("plain64"),
    },
    OptionSpec {
        name: "ivgen-hash-alg",
        help: "hash of essiv",
        kind: OptionKind::Word(Words::HASHES),
        default: Some("sha256"),
    },
    OptionSpec {
        name: "hash-alg",
        help: "hash of the header",
        kind: OptionKind::Word(Words::HASHES),
        default: Some("sha256"),
    },
    OptionSpec {
        name: "iter-time",
        help: "milliseconds that trying a passphrase takes",
        kind: OptionKind::Number,
        default: Some(ITER_TIME),
    },
    OptionSpec {
        name: "luks-version",
        help: "version of the header; qemu reads 1",
        kind: OptionKind::Word(&["1", "2"]),
        default: Some("1"),
    },
    OptionSpec {
        name: "sector-size",
        help: "bytes in an encrypted sector, in version 2",
        kind: OptionKind::Word(&["512", "1024", "2048", "4096"]),
        default: Some("512"),
    },
];

/// What the options say.
fn new_luks(options: &Options) -> Result<NewLuks> {
    let text = |name| options.text(name).unwrap_or_default();
    let words = Words {
        cipher_alg: text("cipher-alg"),
        cipher_mode: text("cipher-mode"),
        ivgen_alg: text("ivgen-alg"),
        ivgen_hash_alg: text("ivgen-hash-alg"),
        hash_alg: text("hash-alg"),
    };
    let base = if text("luks-version") == "2" { NewLuks::luks2() } else { NewLuks::luks1() };
    let mut new = base.named(&words).map_err(told)?;
    new.sector_size = text("sector-size").parse().unwrap_or(512);
    Ok(new)
}

/// `iter-time` as a length of time.
pub(crate) fn iter_time(options: &Options) -> Duration {
    Duration::from_millis(options.number("iter-time").unwrap_or(0).min(1 << 20))
}

/// Bytes of the payload: whole sectors.
fn payload_len(size: u64, new: &NewLuks) -> Result<u64> {
    let len = size.checked_next_multiple_of(new.sector_size.into());
    let fits = len.filter(|len| len.checked_add(new.header_len()).is_some());
    fits.ok_or_else(|| Error::Limit {
        format: NAME,
        what: "size in bytes".into(),
        found: size,
        limit: u64::MAX - new.header_len() - 4096,
    })
}

pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    if request.backing.is_some() {
        return Err(Error::Unsupported { format: NAME, feature: "a backing file".into() });
    }
    let mut new = new_luks(request.options)?;
    let secret = needed(request.secrets, KEY_SECRET, request.location)?;
    let len = payload_len(request.size, &new)?;
    let (iterations, of_digest) = new.iterations(iter_time(request.options));
    new.digest_iterations = of_digest;
    request.store.set_len(new.header_len() + len)?;
    let slot = NewSlot::pbkdf2(secret.as_bytes(), iterations);
    let store = Arc::clone(&request.store);
    let (luks, key) = Luks::create(store, Payload::Behind, &new, &slot).map_err(told)?;
    Ok(Arc::new(LuksImage::new(&luks, &request.store, Some(&key), false, true)?))
}

/// The file is as long as the disk and the header, whatever the disk holds.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let new = new_luks(request.options)?;
    let len = new.header_len() + payload_len(request.size, &new)?;
    Ok(Measure { required: len, fully_allocated: len })
}
