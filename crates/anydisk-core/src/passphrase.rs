//! Passphrases of an encrypted image, added and removed while its data stays as it is.

use std::time::Duration;

use crate::{
    Error, Location, OptionKind, OptionSpec, Options, Result, Secret, SecretProblem, SecretRequest,
    Secrets,
};

/// A change of the passphrases that open an image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PassphraseChange {
    /// One more passphrase.
    Add {
        /// One that opens the image now.
        current: Secret,
        /// The new one.
        new: Secret,
        /// The key slot for it; `None`: the first that is free. One in use is never overwritten.
        slot: Option<u32>,
        /// About how long it takes to try the new one.
        time: Duration,
    },
    /// One key slot less.
    RemoveSlot {
        /// Its number.
        slot: u32,
        /// What it must open with, if that is to be made sure.
        passphrase: Option<Secret>,
    },
    /// All key slots less that a passphrase opens.
    Remove {
        /// The passphrase.
        passphrase: Secret,
    },
}

impl PassphraseChange {
    /// One more passphrase, in the first free slot, which takes two seconds to try.
    #[must_use]
    pub const fn add(current: Secret, new: Secret) -> Self {
        Self::Add { current, new, slot: None, time: Duration::from_secs(2) }
    }
}

/// The names that a format has for the options of a change, as qemu-img spells them.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is named as its option, without the prefix of a format")]
pub struct PassphraseOptions {
    pub key_secret: &'static str,
    pub state: &'static str,
    pub keyslot: &'static str,
    pub old_secret: &'static str,
    pub new_secret: &'static str,
    pub iter_time: &'static str,
}

/// Milliseconds that trying a new passphrase takes, if nothing is said.
const USUAL_TIME: u64 = 2000;

impl PassphraseOptions {
    /// The options, for [`Format::amend_options`](crate::Format::amend_options).
    #[must_use]
    pub const fn specs(&self) -> [OptionSpec; 5] {
        const fn option(name: &'static str, help: &'static str, kind: OptionKind) -> OptionSpec {
            OptionSpec { name, help, kind, default: None }
        }
        let states = OptionKind::Word(&["active", "inactive"]);
        [
            option(self.state, "active: add a passphrase; inactive: remove one", states),
            option(self.keyslot, "number of the key slot", OptionKind::Number),
            option(
                self.old_secret,
                "name of the secret that is the passphrase to remove",
                OptionKind::Text,
            ),
            option(
                self.new_secret,
                "name of the secret that is the passphrase to add",
                OptionKind::Text,
            ),
            option(
                self.iter_time,
                "milliseconds that trying the new passphrase takes (2000)",
                OptionKind::Number,
            ),
        ]
    }

    /// Whether `options` say anything of passphrases.
    #[must_use]
    pub fn are_set(&self, options: &Options) -> bool {
        self.specs().iter().any(|option| options.is_set(option.name))
    }

    /// The change that `options` ask for, with the secrets that it needs.
    ///
    /// # Errors
    /// [`Error::Option`] for options that do not go together, [`Error::Secret`] where a passphrase
    /// is missing.
    pub fn change(
        &self,
        options: &Options,
        secrets: &dyn Secrets,
        location: &Location,
    ) -> Result<PassphraseChange> {
        let secret = |option| secrets.secret(&SecretRequest::new(option, location));
        match options.text(self.state) {
            Some("active") => self.adding(options, secret),
            Some("inactive") => self.removing(options, secret),
            _ => Err(options.refuse(self.state, "active or inactive")),
        }
    }

    fn adding(
        &self,
        options: &Options,
        secret: impl Fn(&'static str) -> Result<Option<Secret>>,
    ) -> Result<PassphraseChange> {
        refuse_set(options, &[self.old_secret], "nothing where a passphrase is added")?;
        let slot = self.slot(options)?;
        let needed = |option| {
            let why = SecretProblem::Missing("a passphrase");
            secret(option)?.ok_or(Error::Secret { option, why })
        };
        let (current, new) = (needed(self.key_secret)?, needed(self.new_secret)?);
        let millis = options.number(self.iter_time).unwrap_or(USUAL_TIME).min(1 << 20);
        let time = Duration::from_millis(millis);
        Ok(PassphraseChange::Add { current, new, slot, time })
    }

    fn removing(
        &self,
        options: &Options,
        secret: impl Fn(&'static str) -> Result<Option<Secret>>,
    ) -> Result<PassphraseChange> {
        let of_adding = [self.new_secret, self.iter_time];
        refuse_set(options, &of_adding, "nothing where a passphrase is removed")?;
        if let Some(slot) = self.slot(options)? {
            let is_given = options.is_set(self.old_secret);
            let passphrase = if is_given { secret(self.old_secret)? } else { None };
            return Ok(PassphraseChange::RemoveSlot { slot, passphrase });
        }
        let expected = || format!("a key slot or {}", self.old_secret);
        let passphrase = secret(self.old_secret)?;
        let passphrase = passphrase.ok_or_else(|| options.refuse(self.keyslot, expected()))?;
        Ok(PassphraseChange::Remove { passphrase })
    }

    /// The number of a slot, if one is named.
    fn slot(&self, options: &Options) -> Result<Option<u32>> {
        let number = options.number(self.keyslot).map(u32::try_from).transpose();
        number.map_err(|_| options.refuse(self.keyslot, "the number of a key slot"))
    }
}

/// Refuses options that say nothing here.
fn refuse_set(options: &Options, names: &[&str], expected: &'static str) -> Result<()> {
    match names.iter().find(|name| options.is_set(name)) {
        Some(name) => Err(options.refuse(name, expected)),
        None => Ok(()),
    }
}
