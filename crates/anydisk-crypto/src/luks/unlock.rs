//! From a passphrase to the volume key.

use subtle::ConstantTimeEq;

use super::json::{Digest, Keyslot, Metadata, SlotKdf};
use super::{Header, Luks, check_requirements, read_material, v1};
use crate::{CipherSpec, Error, Hash, Kdf, KdfLimits, Key, Result, SectorCipher, af_merge};

/// A volume key and the slot that gave it.
#[derive(Clone, Debug)]
pub struct Unlocked {
    /// The volume key.
    pub key: Key,
    /// Number of the slot.
    pub slot: u32,
}

impl Luks {
    /// The volume key, from the slot named, or else from the first that the passphrase opens. All
    /// slots together cost no more than `limits` allow.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`]; [`Error::Limit`] if a slot that cannot be tried for its cost was
    /// the only hope; [`Error::Unsupported`].
    pub fn unlock(
        &self,
        passphrase: &[u8],
        slot: Option<u32>,
        limits: KdfLimits,
    ) -> Result<Unlocked> {
        let mut budget = limits;
        if let Header::V2(chosen) = &self.header {
            check_requirements(&chosen.header.metadata)?;
        }
        let mut last = Error::WrongPassphrase;
        for number in self.candidates(slot) {
            match self.try_slot(number, passphrase, &mut budget) {
                Ok(Some(key)) => return Ok(Unlocked { key, slot: number }),
                Ok(None) => {}
                Err(error @ (Error::Storage(_) | Error::Random(_))) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The slots to try, in order.
    fn candidates(&self, slot: Option<u32>) -> Vec<u32> {
        let named = |number: &u32| slot.is_none_or(|slot| slot == *number);
        match &self.header {
            Header::V1(header) => {
                let active = (0..).zip(&header.slots).filter(|(_, slot)| slot.active);
                active.map(|(number, _)| number).filter(named).collect()
            }
            Header::V2(chosen) => {
                let slots = chosen.header.metadata.keyslots.iter();
                let usable =
                    slots.filter(|(_, s)| !s.foreign && (s.priority > 0 || slot.is_some()));
                let mut order: Vec<_> = usable.map(|(n, s)| (u64::MAX - s.priority, *n)).collect();
                order.sort_unstable();
                order.into_iter().map(|(_, number)| number).filter(named).collect()
            }
        }
    }

    /// The volume key, if the passphrase opens this slot, which is in use.
    pub(super) fn try_slot(
        &self,
        number: u32,
        passphrase: &[u8],
        budget: &mut KdfLimits,
    ) -> Result<Option<Key>> {
        match &self.header {
            Header::V1(header) => self.try_v1(header, number, passphrase, budget),
            Header::V2(chosen) => self.try_v2(&chosen.header.metadata, number, passphrase, budget),
        }
    }

    fn try_v1(
        &self,
        header: &v1::Header,
        number: u32,
        passphrase: &[u8],
        budget: &mut KdfLimits,
    ) -> Result<Option<Key>> {
        let slot = &header.slots[number as usize];
        let kdf = Kdf::Pbkdf2 { hash: header.hash, iterations: slot.iterations };
        let slot_key = kdf.derive(passphrase, &slot.salt, header.key_bytes, budget)?;
        let mut material = read_material(&*self.store, slot.material.start, slot.material_len())?;
        SectorCipher::new(header.spec, &slot_key, 512)?.decrypt(0, &mut material);
        let stripes = &material[..header.key_bytes * v1::STRIPES as usize];
        let key = af_merge(header.hash, stripes, header.key_bytes);
        Ok(header.fits(&key, budget)?.then_some(key))
    }

    fn try_v2(
        &self,
        metadata: &Metadata,
        number: u32,
        passphrase: &[u8],
        budget: &mut KdfLimits,
    ) -> Result<Option<Key>> {
        let (Some(slot), Some(digest)) =
            (metadata.keyslots.get(&number), metadata.digest_of(number))
        else {
            return Ok(None);
        };
        let mut material = read_material(&*self.store, slot.area.start, slot.material_len())?;
        slot.cipher(passphrase, budget)?.decrypt(0, &mut material);
        let stripes = &material[..slot.key_size * slot.stripes];
        let key = af_merge(Hash::by_name(&slot.af_hash)?, stripes, slot.key_size);
        Ok(digest.fits(&key, budget)?.then_some(key))
    }

    /// Whether this is the volume key.
    pub(super) fn is_volume_key(&self, key: &Key, limits: KdfLimits) -> Result<bool> {
        let mut budget = limits;
        match &self.header {
            Header::V1(header) => header.fits(key, &mut budget),
            Header::V2(chosen) => {
                let digests = chosen.header.metadata.digests.iter();
                let mut of_payload =
                    digests.filter(|digest| !digest.foreign && !digest.segments.is_empty());
                of_payload.next().map_or(Ok(false), |digest| digest.fits(key, &mut budget))
            }
        }
    }
}

impl v1::Header {
    /// Whether this is the volume key.
    fn fits(&self, key: &Key, budget: &mut KdfLimits) -> Result<bool> {
        let kdf = Kdf::Pbkdf2 { hash: self.hash, iterations: self.raw.mk_digest_iter.get() };
        let digest = kdf.derive(key, &self.raw.mk_digest_salt, self.raw.mk_digest.len(), budget)?;
        Ok(digest.ct_eq(&self.raw.mk_digest).into())
    }
}

impl Keyslot {
    /// The cipher of the key material.
    pub(super) fn cipher(&self, passphrase: &[u8], budget: &mut KdfLimits) -> Result<SectorCipher> {
        let spec = CipherSpec::parse(&self.encryption)?;
        match &self.kdf {
            SlotKdf::Known { kdf, salt } => {
                let key = kdf.derive(passphrase, salt, self.area_key, budget)?;
                SectorCipher::new(spec, &key, 512)
            }
            SlotKdf::Unknown(name) => Err(Error::unsupported(name.clone())),
        }
    }
}

impl Digest {
    /// Whether this is the key that the digest was made of.
    fn fits(&self, key: &Key, budget: &mut KdfLimits) -> Result<bool> {
        let kdf = Kdf::Pbkdf2 { hash: Hash::by_name(&self.hash)?, iterations: self.iterations };
        let digest = kdf.derive(key, &self.salt, self.digest.len(), budget)?;
        Ok(digest.ct_eq(&self.digest).into())
    }
}
