//! Manifests: names and digests, and computing the digest of a store.

use std::collections::HashMap;

use anydisk_core::{HostOffset, Result, Storage, StorageExt, Value};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::{invalid, name, text};

/// An algorithm of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// A digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

/// The digests of a manifest, by the name of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) digests: HashMap<String, Expected>,
}

impl Manifest {
    /// Lines `SHA256(name)= hex`, with blanks here and there.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) for a line of another form and a name that comes twice,
    /// [`Error::Denied`](anydisk_core::Error::Denied) for a name that is not plain.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut manifest = Self::default();
        let mut at = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            let line_text = String::from_utf8_lossy(line);
            let words = line_text.trim();
            if !words.is_empty() {
                let expected = "SHA1, SHA256 or SHA512 of a file: SHA256(name)= digest";
                let wrong = || invalid("line of the manifest", at, text(words), expected);
                let (name, digest) = parse_line(words).ok_or_else(wrong)?;
                let name = name::plain(name)?.to_owned();
                if manifest.digests.insert(name, digest).is_some() {
                    return Err(wrong().into());
                }
            }
            at += line.len() as u64 + 1;
        }
        Ok(manifest)
    }
}

fn parse_line(line: &str) -> Option<(&str, Expected)> {
    let (algorithm, rest) = line.split_once('(')?;
    let (name, digest) = rest.rsplit_once('=')?;
    let name = name.trim_end().strip_suffix(')')?;
    let (algorithm, len) = match algorithm.trim().to_ascii_uppercase().as_str() {
        "SHA1" => (Algorithm::Sha1, 20),
        "SHA256" => (Algorithm::Sha256, 32),
        "SHA512" => (Algorithm::Sha512, 64),
        _ => return None,
    };
    let bytes = hex(digest.trim()).filter(|bytes| bytes.len() == len)?;
    Some((name, Expected { algorithm, bytes }))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))
        })
        .collect()
}

impl Expected {
    /// Whether all bytes of a store have this digest. Reads them once.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) if not, and what the store says.
    pub(crate) fn verify(&self, name: &str, store: &dyn Storage) -> Result<()> {
        let found = match self.algorithm {
            Algorithm::Sha1 => digest::<Sha1>(store)?,
            Algorithm::Sha256 => digest::<Sha256>(store)?,
            Algorithm::Sha512 => digest::<Sha512>(store)?,
        };
        if found == self.bytes {
            return Ok(());
        }
        let field = format!("digest of {name}");
        let expected = format!("{}, as the manifest says", shown(&self.bytes));
        Err(invalid(field, 0, Value::Text(shown(&found).into_bytes()), expected).into())
    }
}

/// The first half of a digest, for people.
fn shown(digest: &[u8]) -> String {
    let half = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
    half.collect::<String>() + "..."
}

fn digest<D: sha2::Digest>(store: &dyn Storage) -> Result<Vec<u8>> {
    let len = store.len()?;
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let part = usize::try_from((len - at).min(1 << 20)).unwrap_or(0);
        store.read_exact_at(HostOffset(at), &mut buffer[..part])?;
        hasher.update(&buffer[..part]);
        at += part as u64;
    }
    Ok(hasher.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn lines_are_read_as_all_writers_write_them() {
        for line in [
            format!("SHA256(a b.ovf)= {ABC}\n"),
            format!("SHA256 (a b.ovf) = {ABC}\r\n\r\n"),
            format!("sha256(a b.ovf)={}", ABC.to_uppercase()),
        ] {
            let manifest = Manifest::parse(line.as_bytes()).unwrap();
            let expected = &manifest.digests["a b.ovf"];
            expected.verify("a b.ovf", &MemoryStorage::new(b"abc".to_vec())).unwrap();
            let other = expected.verify("a b.ovf", &MemoryStorage::new(b"abd".to_vec()));
            assert!(other.unwrap_err().to_string().contains("digest of a b.ovf"));
        }
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        for line in [
            format!("MD5(a)= {ABC}"),
            format!("SHA1(a)= {ABC}"),
            format!("SHA256(../a)= {ABC}"),
            format!("SHA256 a = {ABC}"),
            format!("SHA256(a)= {ABC}\nSHA256(a)= {ABC}"),
            "SHA256(a)= +1".to_owned(),
            "SHA256".to_owned(),
        ] {
            assert!(Manifest::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
