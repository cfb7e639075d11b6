//! New containers.

use std::sync::Arc;
use std::time::Duration;

use anydisk_core::{
    CreateRequest, Error, HostOffset, Image, Measure, MeasureRequest, OptionKind, OptionSpec,
    Options, Result, Storage, StorageExt,
};
use anydisk_crypto::luks::{Luks, NewLuks, NewSlot, Payload, Words};
use anydisk_storage::MemoryStorage;

use crate::open::needed;
use crate::told::told;
use crate::{KEY_SECRET, LuksImage, NAME};

/// The option by which the header is a file of its own.
const DETACHED: &str = "detached-header";

/// The default of `iter-time`, in milliseconds.
const ITER_TIME: u64 = 2000;

pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: KEY_SECRET,
        help: "name of the secret that is the passphrase",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "cipher-alg",
        help: "cipher and bits of its key (aes-256)",
        kind: OptionKind::Word(Words::CIPHERS),
        default: None,
    },
    OptionSpec {
        name: "cipher-mode",
        help: "mode of the cipher (xts)",
        kind: OptionKind::Word(Words::MODES),
        default: None,
    },
    OptionSpec {
        name: "ivgen-alg",
        help: "how the number of a sector becomes its IV (plain64)",
        kind: OptionKind::Word(Words::IVS),
        default: None,
    },
    OptionSpec {
        name: "ivgen-hash-alg",
        help: "hash of essiv (sha256)",
        kind: OptionKind::Word(Words::HASHES),
        default: None,
    },
    OptionSpec {
        name: "hash-alg",
        help: "hash of the header (sha256)",
        kind: OptionKind::Word(Words::HASHES),
        default: None,
    },
    OptionSpec {
        name: "iter-time",
        help: "milliseconds that trying a passphrase takes (2000)",
        kind: OptionKind::Number,
        default: None,
    },
    OptionSpec {
        name: "preallocation",
        help: "space for the disk before anything is written: off, falloc or full",
        // There is no metadata: to qemu-img that is off.
        kind: OptionKind::Word(&["off", "metadata", "falloc", "full"]),
        default: None,
    },
    OptionSpec {
        name: DETACHED,
        help: "the file is the header alone, and the payload another file",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "luks-version",
        help: "version of the header, 1 or 2; qemu reads 1, which is meant if nothing is said",
        kind: OptionKind::Word(&["1", "2"]),
        default: None,
    },
    OptionSpec {
        name: "sector-size",
        help: "bytes in an encrypted sector, in version 2 (512)",
        kind: OptionKind::Word(&["512", "1024", "2048", "4096"]),
        default: None,
    },
];

/// What the options say.
fn new_luks(options: &Options) -> Result<NewLuks> {
    let text = |name, default| options.text(name).unwrap_or(default);
    let words = Words {
        cipher_alg: text("cipher-alg", "aes-256"),
        cipher_mode: text("cipher-mode", "xts"),
        ivgen_alg: text("ivgen-alg", "plain64"),
        ivgen_hash_alg: text("ivgen-hash-alg", "sha256"),
        hash_alg: text("hash-alg", "sha256"),
    };
    let base = if text("luks-version", "1") == "2" { NewLuks::luks2() } else { NewLuks::luks1() };
    let mut new = base.named(&words).map_err(told)?;
    new.sector_size = text("sector-size", "512").parse().unwrap_or(512);
    new.detached = options.flag(DETACHED);
    Ok(new)
}

/// `iter-time` as a length of time.
pub(crate) fn iter_time(options: &Options) -> Duration {
    Duration::from_millis(options.number("iter-time").unwrap_or(ITER_TIME).min(1 << 20))
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
    if new.detached && request.size > 0 {
        let expected = "no size: the payload is a file of its own, and has its own";
        return Err(request.options.refuse(DETACHED, expected));
    }
    let secret = needed(request.secrets, KEY_SECRET, request.location)?;
    let len = payload_len(request.size, &new)?;
    let (iterations, of_digest) = new.iterations(iter_time(request.options));
    new.digest_iterations = of_digest;
    request.store.set_len(new.header_len() + len)?;
    let slot = NewSlot::pbkdf2(secret.as_bytes(), iterations);
    let store = Arc::clone(&request.store);
    if new.detached {
        let (luks, key) = Luks::create(store, Payload::Elsewhere, &new, &slot).map_err(told)?;
        request.store.flush()?;
        let nothing: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        return Ok(Arc::new(LuksImage::new(&luks, &nothing, Some(&key), true, true)?));
    }
    let (luks, key) = Luks::create(store, Payload::Behind, &new, &slot).map_err(told)?;
    preallocate(request, HostOffset(new.header_len()), len)?;
    Ok(Arc::new(LuksImage::new(&luks, &request.store, Some(&key), false, true)?))
}

/// Takes the space of the payload, which is noise until it is written.
fn preallocate(request: &CreateRequest<'_>, at: HostOffset, len: u64) -> Result<()> {
    match request.options.text("preallocation") {
        Some("falloc") => match request.store.space() {
            Some(space) => Ok(space.allocate(at, len)?),
            None => {
                let feature = "preallocation=falloc on this store".into();
                Err(Error::Unsupported { format: NAME, feature })
            }
        },
        Some("full") => Ok(request.store.write_zeroes_at(at, len)?),
        _ => Ok(()),
    }
}

/// The file is as long as the disk and the header, whatever the disk holds.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let new = new_luks(request.options)?;
    let payload = if new.detached { 0 } else { payload_len(request.size, &new)? };
    let len = new.header_len() + payload;
    Ok(Measure { required: len, fully_allocated: len })
}
