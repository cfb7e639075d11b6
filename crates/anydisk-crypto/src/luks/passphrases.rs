//! Passphrases added and removed, as a whole: unlock, choose, change.

use std::time::Duration;

use super::{Luks, NewSlot};
use crate::{Error, Hash, KdfLimits, Result, iterations_for};

/// The fewest iterations of PBKDF2 in a new slot.
const LEAST_ITERATIONS: u32 = 1000;

impl Luks {
    /// Adds the passphrase `new`, which takes about `time` to try, in the slot of this number or the
    /// first that is free. `current` is one that opens the volume now. Answers the number of the
    /// slot. As [`add_slot`](Self::add_slot) otherwise.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`] if `current` opens nothing, and those of `add_slot`.
    pub fn add_passphrase(
        &mut self,
        current: &[u8],
        new: &[u8],
        slot: Option<u32>,
        time: Duration,
        limits: KdfLimits,
    ) -> Result<u32> {
        let key = self.unlock(current, None, limits)?.key;
        let hash = self.info().hash.unwrap_or(Hash::Sha256);
        let iterations = iterations_for(hash, key.len(), time, LEAST_ITERATIONS);
        let mut wanted = NewSlot::pbkdf2(new, iterations);
        wanted.number = slot;
        self.add_slot(&key, &wanted, limits)
    }

    /// Removes every slot that the passphrase opens; as [`remove_slot`](Self::remove_slot) each.
    /// `force`: also if no other is left.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`] if it opens none; [`Error::Refused`] if it opens all, without
    /// `force`; then nothing changed.
    pub fn remove_passphrase(
        &mut self,
        passphrase: &[u8],
        force: bool,
        limits: KdfLimits,
    ) -> Result<()> {
        let slots = self.opened_by(passphrase, limits)?;
        if slots.len() == self.active_slots().len() && !force {
            let why = "no other passphrase would be left: all data is lost without one";
            return Err(Error::refused(why));
        }
        slots.into_iter().try_for_each(|slot| self.remove_slot(slot, force))
    }

    /// Removes a slot, if the passphrase, where one is given, opens it.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`] if it does not; those of [`remove_slot`](Self::remove_slot).
    pub fn remove_opened_slot(
        &mut self,
        slot: u32,
        passphrase: Option<&[u8]>,
        force: bool,
        limits: KdfLimits,
    ) -> Result<()> {
        if let Some(passphrase) = passphrase
            && self.active_slots().contains(&slot)
        {
            self.unlock(passphrase, Some(slot), limits)?;
        }
        self.remove_slot(slot, force)
    }

    /// All slots that the passphrase opens; at least one.
    fn opened_by(&self, passphrase: &[u8], limits: KdfLimits) -> Result<Vec<u32>> {
        let mut budget = limits;
        let mut opened = Vec::new();
        for slot in self.active_slots() {
            if self.try_slot(slot, passphrase, &mut budget)?.is_some() {
                opened.push(slot);
            }
        }
        if opened.is_empty() { Err(Error::WrongPassphrase) } else { Ok(opened) }
    }
}
