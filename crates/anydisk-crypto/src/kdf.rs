//! Keys from passphrases, in bounded memory and time.

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};

use crate::{Error, Hash, Key, Result};

/// What one opening may cost, whatever the header asks for. The costs of all key slots that are
/// tried count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KdfLimits {
    /// Iterations of PBKDF2, for each piece of the key that is as long as a digest.
    pub iterations: u64,
    /// Memory of argon2, in KiB.
    pub memory: u64,
    /// Work of argon2: passes over that memory times its size in KiB.
    pub work: u64,
}

impl Default for KdfLimits {
    /// What the usual programs choose on a fast machine, several times over: 40 million iterations,
    /// 4 GiB of memory, 64 GiB of work.
    fn default() -> Self {
        Self { iterations: 40_000_000, memory: 4 << 20, work: 64 << 20 }
    }
}

impl KdfLimits {
    /// For bytes from strangers: 10 million iterations, 1 GiB of memory, 8 GiB of work.
    #[must_use]
    pub const fn strict() -> Self {
        Self { iterations: 10_000_000, memory: 1 << 20, work: 8 << 20 }
    }

    /// No limits, for numbers of our own.
    pub(crate) const fn unlimited() -> Self {
        Self { iterations: u64::MAX, memory: u64::MAX, work: u64::MAX }
    }

    /// The same with other numbers: iterations of PBKDF2, KiB of memory, KiB of work.
    #[must_use]
    pub const fn new(iterations: u64, memory: u64, work: u64) -> Self {
        Self { iterations, memory, work }
    }
}

/// How a passphrase is turned into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kdf {
    /// PBKDF2 with HMAC of a hash.
    Pbkdf2 {
        /// The hash.
        hash: Hash,
        /// Iterations.
        iterations: u32,
    },
    /// Argon2, version 0x13.
    Argon2 {
        /// Argon2id, else argon2i.
        id: bool,
        /// Passes over the memory.
        time: u32,
        /// Memory in KiB.
        memory: u32,
        /// Lanes.
        cpus: u32,
    },
}

impl Kdf {
    /// Its name in a LUKS2 header.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pbkdf2 { .. } => "pbkdf2",
            Self::Argon2 { id: true, .. } => "argon2id",
            Self::Argon2 { id: false, .. } => "argon2i",
        }
    }

    /// A key of `len` bytes. What it costs is taken off `budget`.
    ///
    /// # Errors
    /// [`Error::Limit`] before any work, if the budget does not suffice; [`Error::Refused`] for
    /// parameters that the function does not take.
    pub fn derive(
        &self,
        passphrase: &[u8],
        salt: &[u8],
        len: usize,
        budget: &mut KdfLimits,
    ) -> Result<Key> {
        self.charge(len, budget)?;
        let mut key = Key::zeroed(len);
        match *self {
            Self::Pbkdf2 { hash, iterations } => {
                hash.pbkdf2(passphrase, salt, iterations, &mut key);
            }
            Self::Argon2 { id, time, memory, cpus } => {
                let refuse = |error: argon2::Error| Error::refused(format!("argon2: {error}"));
                let params = Params::new(memory, time, cpus, Some(len)).map_err(refuse)?;
                let algorithm = if id { Algorithm::Argon2id } else { Algorithm::Argon2i };
                let argon2 = Argon2::new(algorithm, Version::V0x13, params);
                argon2.hash_password_into(passphrase, salt, &mut key).map_err(refuse)?;
            }
        }
        Ok(key)
    }

    /// Takes the cost off the budget.
    fn charge(&self, len: usize, budget: &mut KdfLimits) -> Result<()> {
        match *self {
            Self::Pbkdf2 { iterations: 0, .. } => Err(Error::refused("PBKDF2 without iterations")),
            Self::Pbkdf2 { hash, iterations } => {
                let pieces = len.div_ceil(hash.digest_len()) as u64;
                let work = pieces.saturating_mul(iterations.into());
                take(&mut budget.iterations, work, "iterations of PBKDF2")
            }
            Self::Argon2 { time, memory, .. } => {
                let (found, limit) = (memory.into(), budget.memory);
                if found > limit {
                    return Err(Error::Limit { what: "KiB of memory for argon2", found, limit });
                }
                let work = u64::from(time).saturating_mul(memory.into());
                take(&mut budget.work, work, "KiB of memory times passes for argon2")
            }
        }
    }
}

fn take(left: &mut u64, found: u64, what: &'static str) -> Result<()> {
    let limit = *left;
    *left = limit.checked_sub(found).ok_or(Error::Limit { what, found, limit })?;
    Ok(())
}

/// Iterations of PBKDF2 that take about `time` here, for a key of `len` bytes; at least `least`.
#[must_use]
pub fn iterations_for(hash: Hash, len: usize, time: Duration, least: u32) -> u32 {
    /// Long enough that the clock tells.
    const TRIAL: Duration = Duration::from_millis(20);
    let mut out = Key::zeroed(len);
    let mut iterations = 1 << 10;
    loop {
        let begin = Instant::now();
        hash.pbkdf2(b"passphrase", &[0; 32], iterations, &mut out);
        let took = begin.elapsed();
        if took >= TRIAL.min(time) || iterations >= 1 << 30 {
            let rate = f64::from(iterations) / took.as_secs_f64().max(1e-9);
            return whole(rate * time.as_secs_f64()).max(least);
        }
        iterations *= 2;
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as saturates, which is what is wanted of an estimate"
)]
fn whole(estimate: f64) -> u32 {
    estimate as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pbkdf2(iterations: u32) -> Kdf {
        Kdf::Pbkdf2 { hash: Hash::Sha256, iterations }
    }

    #[test]
    fn argon2_gives_the_key_of_the_reference_program() {
        // echo -n password | argon2 somesalt -id -t 2 -m 8 -p 1 -l 32
        let kdf = Kdf::Argon2 { id: true, time: 2, memory: 256, cpus: 1 };
        let key = kdf.derive(b"password", b"somesalt", 32, &mut KdfLimits::default()).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    }

    #[test]
    fn hostile_costs_are_refused_before_any_work() {
        let mut budget = KdfLimits::default();
        let error = pbkdf2(u32::MAX).derive(b"x", b"y", 32, &mut budget).unwrap_err();
        assert_eq!(
            error.to_string(),
            "iterations of PBKDF2 is 4294967295, more than the limit of 40000000"
        );
        let huge = Kdf::Argon2 { id: true, time: 1, memory: u32::MAX, cpus: 1 };
        let error = huge.derive(b"x", b"saltsalt", 32, &mut budget).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 0x40_0000, .. }), "{error}");
        let endless = Kdf::Argon2 { id: true, time: u32::MAX, memory: 64, cpus: 1 };
        let error = endless.derive(b"x", b"saltsalt", 32, &mut budget).unwrap_err();
        assert!(matches!(error, Error::Limit { limit: 0x400_0000, .. }), "{error}");
        assert_eq!(budget, KdfLimits::default());
    }

    #[test]
    fn the_costs_of_several_slots_count_together() {
        let mut budget = KdfLimits::new(2500, 0, 0);
        pbkdf2(1000).derive(b"x", b"y", 32, &mut budget).unwrap();
        pbkdf2(1000).derive(b"x", b"y", 32, &mut budget).unwrap();
        let error = pbkdf2(1000).derive(b"x", b"y", 32, &mut budget).unwrap_err();
        assert!(matches!(error, Error::Limit { found: 1000, limit: 500, .. }), "{error}");
    }

    #[test]
    fn parameters_that_argon2_does_not_take_are_an_error() {
        for (time, memory, cpus) in [(0, 64, 1), (1, 0, 1), (1, 64, 0), (1, 8, 4)] {
            let kdf = Kdf::Argon2 { id: false, time, memory, cpus };
            let error = kdf.derive(b"x", b"saltsalt", 32, &mut KdfLimits::default()).unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error}");
        }
    }

    #[test]
    fn iterations_follow_the_time_and_never_fall_below_the_least() {
        assert_eq!(iterations_for(Hash::Sha1, 32, Duration::ZERO, 1000), 1000);
        assert!(iterations_for(Hash::Sha256, 32, Duration::from_secs(2), 1000) > 1000);
    }
}
