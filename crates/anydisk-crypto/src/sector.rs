//! Sectors encrypted in place: the number of a sector becomes its IV.

use crate::mode::{Iv, Units};
use crate::{CipherSpec, Error, IvGen, Result};

/// Sectors are numbered in units of so many bytes, whatever their own size.
pub const SECTOR: u64 = 512;

/// The largest sector, in bytes.
pub(crate) const MAX_SECTOR: usize = 4096;

/// Encrypts and decrypts whole sectors in place, on any number of threads. The key is wiped when
/// this is dropped.
#[derive(Debug)]
pub struct SectorCipher {
    spec: CipherSpec,
    units: Box<dyn Units>,
    /// Encrypts numbers to IVs, for ESSIV.
    essiv: Option<Box<dyn Units>>,
    sector: usize,
}

/// So many IVs are made at once.
const GROUP: usize = 64;

impl SectorCipher {
    /// The encryption `spec` with `key` for sectors of `sector` bytes: 512, 1024, 2048 or 4096.
    ///
    /// # Errors
    /// [`Error::Refused`] for a key of another length than the cipher takes;
    /// [`Error::Unsupported`] for other sectors.
    pub fn new(spec: CipherSpec, key: &[u8], sector: usize) -> Result<Self> {
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(Error::unsupported(format!("a sector size of {sector} bytes")));
        }
        let essiv = match spec.iv {
            IvGen::Essiv(hash) => {
                let numbers = CipherSpec { mode: crate::Mode::Ecb, iv: IvGen::Null, ..spec };
                Some(numbers.keyed(&hash.digest(&[key]))?)
            }
            _ => None,
        };
        Ok(Self { spec, units: spec.keyed(key)?, essiv, sector })
    }

    /// The legacy encryption of qcow and qcow2 (method 1): AES-128-CBC, the passphrase itself as
    /// the key, cut or padded with zeroes to 16 bytes. Numbers are those of **guest** sectors.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn legacy(passphrase: &[u8]) -> Self {
        let mut key = crate::Key::zeroed(16);
        let len = passphrase.len().min(key.len());
        key[..len].copy_from_slice(&passphrase[..len]);
        let made = Self::new(CipherSpec::legacy_aes(), &key, 512);
        made.expect("AES-128 takes keys of 16 bytes")
    }

    /// The encryption.
    #[must_use]
    pub const fn spec(&self) -> CipherSpec {
        self.spec
    }

    /// Bytes in a sector.
    #[must_use]
    pub const fn sector_size(&self) -> usize {
        self.sector
    }

    /// Encrypts whole sectors, the first of which begins at `number` times 512 bytes.
    ///
    /// # Panics
    /// If `data` is not whole sectors.
    pub fn encrypt(&self, number: u64, data: &mut [u8]) {
        self.by_groups(number, data, |ivs, data| self.units.encrypt(ivs, self.sector, data));
    }

    /// Decrypts whole sectors, the first of which begins at `number` times 512 bytes.
    ///
    /// # Panics
    /// If `data` is not whole sectors.
    pub fn decrypt(&self, number: u64, data: &mut [u8]) {
        self.by_groups(number, data, |ivs, data| self.units.decrypt(ivs, self.sector, data));
    }

    fn by_groups(&self, mut number: u64, data: &mut [u8], work: impl Fn(&[Iv], &mut [u8])) {
        assert!(data.len().is_multiple_of(self.sector), "sectors are encrypted whole");
        let mut ivs = [Iv::default(); GROUP];
        let step = self.sector as u64 / SECTOR;
        for group in data.chunks_mut(self.sector * GROUP) {
            let ivs = &mut ivs[..group.len() / self.sector];
            for iv in &mut *ivs {
                *iv = self.number_as_iv(number);
                number = number.wrapping_add(step);
            }
            if let Some(essiv) = &self.essiv {
                self.encrypt_ivs(&**essiv, ivs);
            }
            work(ivs, group);
        }
    }

    /// The IV before ESSIV encrypts it.
    fn number_as_iv(&self, number: u64) -> Iv {
        let mut iv = Iv::default();
        match self.spec.iv {
            IvGen::Null => {}
            IvGen::Plain => iv[..4].copy_from_slice(&number.to_le_bytes()[..4]),
            IvGen::Plain64 | IvGen::Essiv(_) => iv[..8].copy_from_slice(&number.to_le_bytes()),
            IvGen::Plain64Be => {
                let len = self.spec.cipher.block_len();
                iv[len - 8..len].copy_from_slice(&number.to_be_bytes());
            }
        }
        iv
    }

    fn encrypt_ivs(&self, essiv: &dyn Units, ivs: &mut [Iv]) {
        let len = self.spec.cipher.block_len();
        let mut blocks = [0; GROUP * 16];
        let blocks = &mut blocks[..ivs.len() * len];
        for (block, iv) in blocks.chunks_exact_mut(len).zip(&*ivs) {
            block.copy_from_slice(&iv[..len]);
        }
        essiv.encrypt(&[], len, blocks);
        for (block, iv) in blocks.chunks_exact(len).zip(ivs) {
            iv[..len].copy_from_slice(block);
        }
    }
}

#[cfg(test)]
#[path = "sector_tests.rs"]
mod tests;
