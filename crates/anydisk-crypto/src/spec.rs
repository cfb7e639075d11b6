//! Names of encryptions, as headers spell them, and ciphers with keys.

use std::fmt;

use cipher::{KeyInit, KeySizeUser};

use crate::mode::{Cbc, Cipher, Ctr, Ecb, Units, Xts};
use crate::{Error, Hash, Result};

/// A block cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CipherName {
    /// `aes`, 128, 192 or 256 bits.
    Aes,
    /// `serpent`, 128, 192 or 256 bits.
    Serpent,
    /// `twofish`, 128, 192 or 256 bits.
    Twofish,
    /// `cast5`, 128 bits, with blocks of 8 bytes.
    Cast5,
}

/// A mode of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// `ecb`
    Ecb,
    /// `cbc`
    Cbc,
    /// `ctr`
    Ctr,
    /// `xts`: two keys, one for the data and one for the tweak.
    Xts,
}

/// How a sector's number becomes its IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IvGen {
    /// None is needed (`ecb`), or it is always zero (`null`).
    Null,
    /// `plain`: 32 bits, little-endian.
    Plain,
    /// `plain64`: 64 bits, little-endian.
    Plain64,
    /// `plain64be`: 64 bits, big-endian, at the end.
    Plain64Be,
    /// `essiv:HASH`: the number, encrypted with the hash of the key.
    Essiv(Hash),
}

/// An encryption: cipher, mode and generator of IVs (`aes-xts-plain64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSpec {
    /// The cipher.
    pub cipher: CipherName,
    /// The mode.
    pub mode: Mode,
    /// The generator of IVs.
    pub iv: IvGen,
}

impl CipherName {
    /// The cipher of this name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that is not known.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "aes" => Ok(Self::Aes),
            "serpent" => Ok(Self::Serpent),
            "twofish" => Ok(Self::Twofish),
            "cast5" => Ok(Self::Cast5),
            _ => Err(Error::unsupported(format!("cipher {name:?}"))),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Serpent => "serpent",
            Self::Twofish => "twofish",
            Self::Cast5 => "cast5",
        }
    }

    /// Bytes in a block.
    pub(crate) const fn block_len(self) -> usize {
        if matches!(self, Self::Cast5) { 8 } else { 16 }
    }

    const fn takes(self, key_len: usize) -> bool {
        match self {
            Self::Cast5 => key_len == 16,
            _ => matches!(key_len, 16 | 24 | 32),
        }
    }
}

impl Mode {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ecb => "ecb",
            Self::Cbc => "cbc",
            Self::Ctr => "ctr",
            Self::Xts => "xts",
        }
    }

    fn by_name(name: &str) -> Result<Self> {
        [Self::Ecb, Self::Cbc, Self::Ctr, Self::Xts]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| Error::unsupported(format!("cipher mode {name:?}")))
    }
}

impl fmt::Display for IvGen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Plain => f.write_str("plain"),
            Self::Plain64 => f.write_str("plain64"),
            Self::Plain64Be => f.write_str("plain64be"),
            Self::Essiv(hash) => write!(f, "essiv:{}", hash.name()),
        }
    }
}

impl IvGen {
    /// A generator by its name, with the name of its hash behind a colon where it has one. A hash
    /// that is not needed is ignored.
    fn parse(text: &str) -> Result<Self> {
        let (name, hash) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
        match (name, hash) {
            ("null", _) => Ok(Self::Null),
            ("plain", _) => Ok(Self::Plain),
            ("plain64", _) => Ok(Self::Plain64),
            ("plain64be", _) => Ok(Self::Plain64Be),
            ("essiv", Some(hash)) => Ok(Self::Essiv(Hash::by_name(hash)?)),
            ("essiv", None) => Err(Error::unsupported("essiv without a hash")),
            _ => Err(Error::unsupported(format!("IV generator {name:?}"))),
        }
    }
}

impl CipherSpec {
    /// AES-XTS with 64-bit sector numbers, the usual one.
    #[must_use]
    pub const fn aes_xts() -> Self {
        Self { cipher: CipherName::Aes, mode: Mode::Xts, iv: IvGen::Plain64 }
    }

    /// The legacy encryption of qcow and qcow2: AES-128-CBC with 64-bit sector numbers.
    #[must_use]
    pub const fn legacy_aes() -> Self {
        Self { cipher: CipherName::Aes, mode: Mode::Cbc, iv: IvGen::Plain64 }
    }

    /// The name of a cipher, and that of a mode with its IVs (`xts-plain64`, `cbc-essiv:sha256`).
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the part that is not known.
    pub fn from_names(cipher: &str, mode: &str) -> Result<Self> {
        let cipher = CipherName::by_name(cipher)?;
        let (mode, iv) = match mode.split_once('-') {
            Some((mode, iv)) => (Mode::by_name(mode)?, IvGen::parse(iv)?),
            None => match Mode::by_name(mode)? {
                Mode::Ecb => (Mode::Ecb, IvGen::Null),
                _ => return Err(Error::unsupported(format!("{mode:?} without an IV generator"))),
            },
        };
        let spec = Self { cipher, mode, iv };
        if cipher == CipherName::Cast5 && mode == Mode::Xts {
            return Err(Error::unsupported(format!("{spec}"))); // XTS is defined for 16-byte blocks.
        }
        Ok(spec)
    }

    /// All of it in one text (`aes-xts-plain64`).
    ///
    /// # Errors
    /// As [`from_names`](Self::from_names).
    pub fn parse(text: &str) -> Result<Self> {
        let unknown = || Error::unsupported(format!("encryption {text:?}"));
        let (cipher, mode) = text.split_once('-').ok_or_else(unknown)?;
        Self::from_names(cipher, mode)
    }

    /// The mode with its IVs, as the header of LUKS1 has them.
    #[must_use]
    pub fn mode_name(&self) -> String {
        match (self.mode, self.iv) {
            (Mode::Ecb, IvGen::Null) => "ecb".into(),
            (mode, iv) => format!("{}-{iv}", mode.name()),
        }
    }

    /// Whether there is such a cipher with a key of `len` bytes (both halves, for XTS).
    #[must_use]
    pub const fn takes_key(&self, len: usize) -> bool {
        match self.mode {
            Mode::Xts => len.is_multiple_of(2) && self.cipher.takes(len / 2),
            _ => self.cipher.takes(len),
        }
    }

    /// The cipher with its key, in its mode.
    pub(crate) fn keyed(&self, key: &[u8]) -> Result<Box<dyn Units>> {
        let refuse = || Error::refused(format!("{self} takes no key of {} bytes", key.len()));
        let built =
            match (self.cipher, if self.mode == Mode::Xts { key.len() / 2 } else { key.len() }) {
                _ if !self.takes_key(key.len()) => None,
                (CipherName::Aes, 16) => units::<aes::Aes128>(self.mode, key),
                (CipherName::Aes, 24) => units::<aes::Aes192>(self.mode, key),
                (CipherName::Aes, 32) => units::<aes::Aes256>(self.mode, key),
                (CipherName::Serpent, _) => units::<serpent::Serpent>(self.mode, key),
                (CipherName::Twofish, _) => units::<twofish::Twofish>(self.mode, key),
                (CipherName::Cast5, _) => cast5_units(self.mode, key),
                _ => None,
            };
        built.ok_or_else(refuse)
    }
}

impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.cipher.name(), self.mode_name())
    }
}

impl Cipher for aes::Aes128 {
    const WIDE: bool = true;
}
impl Cipher for aes::Aes192 {
    const WIDE: bool = true;
}
impl Cipher for aes::Aes256 {
    const WIDE: bool = true;
}
impl Cipher for serpent::Serpent {}
impl Cipher for twofish::Twofish {}
impl Cipher for cast5::Cast5 {}

fn units<C>(mode: Mode, key: &[u8]) -> Option<Box<dyn Units>>
where
    C: Cipher<BlockSize = cipher::consts::U16> + KeyInit + KeySizeUser,
{
    let keyed = |key| C::new_from_slice(key).ok();
    Some(match mode {
        Mode::Ecb => Box::new(Ecb(keyed(key)?)),
        Mode::Cbc => Box::new(Cbc(keyed(key)?)),
        Mode::Ctr => Box::new(Ctr(keyed(key)?)),
        Mode::Xts => {
            let (data, tweak) = key.split_at(key.len() / 2);
            Box::new(Xts { data: keyed(data)?, tweak: keyed(tweak)? })
        }
    })
}

fn cast5_units(mode: Mode, key: &[u8]) -> Option<Box<dyn Units>> {
    let cipher = cast5::Cast5::new_from_slice(key).ok()?;
    Some(match mode {
        Mode::Ecb => Box::new(Ecb(cipher)),
        Mode::Cbc => Box::new(Cbc(cipher)),
        Mode::Ctr => Box::new(Ctr(cipher)),
        Mode::Xts => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryptions_are_spelled_as_they_were_read() {
        for text in [
            "aes-xts-plain64",
            "aes-cbc-essiv:sha256",
            "serpent-cbc-plain",
            "twofish-xts-plain64be",
            "cast5-cbc-null",
            "aes-ecb",
            "aes-ctr-plain64",
        ] {
            assert_eq!(CipherSpec::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_encryption_that_is_not_known_is_refused_by_the_name_of_the_part() {
        for (text, message) in [
            ("capi:xts", "encryption \"capi:xts\" is not supported"),
            ("des3-cbc-plain", "cipher \"des3\" is not supported"),
            ("aes-lrw-benbi", "cipher mode \"lrw\" is not supported"),
            ("aes-cbc-lmk", "IV generator \"lmk\" is not supported"),
            ("aes-cbc-essiv", "essiv without a hash is not supported"),
            ("aes-cbc-essiv:crc32", "hash \"crc32\" is not supported"),
            ("aes-xts", "\"xts\" without an IV generator is not supported"),
            ("cast5-xts-plain64", "cast5-xts-plain64 is not supported"),
        ] {
            assert_eq!(CipherSpec::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        for (text, good) in [
            ("aes-xts-plain64", &[32, 48, 64][..]),
            ("aes-cbc-plain", &[16, 24, 32]),
            ("serpent-cbc-plain", &[16, 24, 32]),
            ("cast5-cbc-plain", &[16]),
        ] {
            let spec = CipherSpec::parse(text).unwrap();
            for len in 0..130 {
                assert_eq!(spec.keyed(&vec![7; len]).is_ok(), good.contains(&len), "{text} {len}");
                assert_eq!(spec.takes_key(len), good.contains(&len), "{text} {len}");
            }
        }
    }
}
