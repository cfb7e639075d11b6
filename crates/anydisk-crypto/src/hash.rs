//! The hashes that volume headers name.

use hmac::EagerHash;
use sha2::Digest;

use crate::{Error, Result};

/// A hash, by the name that headers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hash {
    /// `md5`
    Md5,
    /// `sha1`
    Sha1,
    /// `sha224`
    Sha224,
    /// `sha256`
    Sha256,
    /// `sha384`
    Sha384,
    /// `sha512`
    Sha512,
    /// `ripemd160`
    Ripemd160,
    /// `sm3`
    Sm3,
    /// `whirlpool`
    Whirlpool,
}

/// Runs `$body` with `$H` as the type of the hash.
macro_rules! with_hash {
    ($hash:expr, $H:ident => $body:expr) => {
        match $hash {
            Hash::Md5 => {
                type $H = md5::Md5;
                $body
            }
            Hash::Sha1 => {
                type $H = sha1::Sha1;
                $body
            }
            Hash::Sha224 => {
                type $H = sha2::Sha224;
                $body
            }
            Hash::Sha256 => {
                type $H = sha2::Sha256;
                $body
            }
            Hash::Sha384 => {
                type $H = sha2::Sha384;
                $body
            }
            Hash::Sha512 => {
                type $H = sha2::Sha512;
                $body
            }
            Hash::Ripemd160 => {
                type $H = ripemd::Ripemd160;
                $body
            }
            Hash::Sm3 => {
                type $H = sm3::Sm3;
                $body
            }
            Hash::Whirlpool => {
                type $H = whirlpool::Whirlpool;
                $body
            }
        }
    };
}

const NAMES: [(&str, Hash); 9] = [
    ("md5", Hash::Md5),
    ("sha1", Hash::Sha1),
    ("sha224", Hash::Sha224),
    ("sha256", Hash::Sha256),
    ("sha384", Hash::Sha384),
    ("sha512", Hash::Sha512),
    ("ripemd160", Hash::Ripemd160),
    ("sm3", Hash::Sm3),
    ("whirlpool", Hash::Whirlpool),
];

impl Hash {
    /// The hash of this name, in either case.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that is not known.
    pub fn by_name(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let unknown = || Error::unsupported(format!("hash {name:?}"));
        found.map(|(_, hash)| *hash).ok_or_else(unknown)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, hash)| *hash == self).map_or("", |(name, _)| name)
    }

    /// Bytes in a digest.
    #[must_use]
    pub fn digest_len(self) -> usize {
        with_hash!(self, H => <H as Digest>::output_size())
    }

    /// The hash of the parts, one after the other. Wiped by whoever hashes secrets.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> crate::Key {
        with_hash!(self, H => digest_of::<H>(parts))
    }

    /// PBKDF2 with HMAC of this hash.
    pub(crate) fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        with_hash!(self, H => pbkdf2_of::<H>(password, salt, iterations, out));
    }
}

fn digest_of<H: Digest>(parts: &[&[u8]]) -> crate::Key {
    let mut hash = H::new();
    for part in parts {
        hash.update(part);
    }
    crate::Key::from(&*hash.finalize())
}

fn pbkdf2_of<H: EagerHash>(password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
    pbkdf2::pbkdf2_hmac::<H>(password, salt, iterations, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn every_hash_is_found_by_its_name_and_has_its_length() {
        let lengths = [16, 20, 28, 32, 48, 64, 20, 32, 64];
        for ((name, hash), len) in NAMES.into_iter().zip(lengths) {
            assert_eq!(Hash::by_name(name).unwrap(), hash);
            assert_eq!(Hash::by_name(&name.to_uppercase()).unwrap(), hash);
            assert_eq!((hash.name(), hash.digest_len()), (name, len));
            assert_eq!(hash.digest(&[b"ab", b"c"]).len(), len);
        }
        let error = Hash::by_name("sha3").unwrap_err();
        assert_eq!(error.to_string(), "hash \"sha3\" is not supported");
    }

    #[test]
    fn the_hash_of_abc_is_the_published_one() {
        let expected = [
            (Hash::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (Hash::Ripemd160, "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
            (Hash::Sm3, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
            (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ];
        for (hash, digest) in expected {
            assert_eq!(hex(&hash.digest(&[b"abc"])), digest, "{}", hash.name());
        }
    }

    #[test]
    fn pbkdf2_gives_the_keys_of_rfc_6070_and_rfc_7914() {
        let mut out = [0; 20];
        Hash::Sha1.pbkdf2(b"password", b"salt", 4096, &mut out);
        assert_eq!(hex(&out), "4b007901b765489abead49d926f721d065a429c1");
        let mut out = [0; 64];
        Hash::Sha256.pbkdf2(b"passwd", b"salt", 1, &mut out);
        assert_eq!(hex(&out[..16]), "55ac046e56e3089fec1691c22544b605");
    }
}
