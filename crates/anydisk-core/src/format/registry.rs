//! The formats a caller wants, and which of them an unknown file has.

use anydisk_storage::{HostOffset, Storage};

use super::Format;
use crate::{Error, Ids, Result};

/// The beginning, the end and the length of an unknown file.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The first bytes: 64 KiB, or all if the file is shorter.
    pub head: &'a [u8],
    /// The last bytes: 4 KiB, or all if the file is shorter.
    pub tail: &'a [u8],
    /// Length of the file in bytes.
    pub len: u64,
}

/// What a format thinks of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Not this format.
    No,
    /// Its mark is at the end alone, where the guest of a raw disk writes too: believed only of a file
    /// that is [named](Registry::probe_named) so.
    AtEnd,
    /// Anything fits (raw).
    Anything,
    /// It looks like it (text that begins like a descriptor).
    Likely,
    /// Its magic is there.
    Magic,
}

impl Sample<'_> {
    /// Reads the beginning and the end of a store, and has them looked at.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of_store<R>(store: &dyn Storage, look: impl FnOnce(&Sample<'_>) -> R) -> Result<R> {
        let len = store.len()?;
        let mut head = vec![0; usize::try_from(len.min(64 << 10)).unwrap_or(64 << 10)];
        let count = store.read_at(HostOffset::ZERO, &mut head)?;
        head.truncate(count);
        let mut tail = vec![0; usize::try_from(len.min(4 << 10)).unwrap_or(4 << 10)];
        let count = store.read_at(HostOffset(len - tail.len() as u64), &mut tail)?;
        tail.truncate(count);
        Ok(look(&Sample { head: &head, tail: &tail, len }))
    }
}

/// The formats a caller wants: a plain list, passed by value, no global state.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    formats: Vec<&'static dyn Format>,
}

/// How a format was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chosen {
    /// The caller, or the image above, named it.
    Named,
    /// Its magic is in the file.
    Recognised,
    /// Nothing else fits: the file may be anything.
    Guessed,
}

impl Registry {
    /// A list of formats. On equal verdicts the first wins.
    #[must_use]
    pub fn new(formats: &[&'static dyn Format]) -> Self {
        Self { formats: formats.to_vec() }
    }

    /// All formats, in order.
    pub fn formats(&self) -> impl Iterator<Item = &'static dyn Format> + '_ {
        self.formats.iter().copied()
    }

    /// The format of this name.
    pub fn by_name(&self, name: &str) -> Result<&'static dyn Format> {
        self.formats()
            .find(|format| format.name() == name || format.aliases().contains(&name))
            .ok_or_else(|| Error::UnknownFormat(name.to_owned()))
    }

    /// The format that recognises the bytes best, and how sure that is.
    pub fn probe(&self, sample: &Sample<'_>) -> Option<(&'static dyn Format, Chosen)> {
        let mut best: Option<(&'static dyn Format, Verdict)> = None;
        for format in self.formats() {
            let verdict = format.probe(sample);
            if verdict > best.map_or(Verdict::AtEnd, |(_, verdict)| verdict) {
                best = Some((format, verdict));
            }
        }
        let (format, verdict) = best?;
        let guessed = verdict == Verdict::Anything;
        Some((format, if guessed { Chosen::Guessed } else { Chosen::Recognised }))
    }

    /// As [`probe`](Self::probe), and a format whose mark is at the end, if nothing else is recognised and
    /// `name` ends in a point and its name (`disk.dmg`): who writes the disk does not name its file.
    pub fn probe_named(
        &self,
        sample: &Sample<'_>,
        name: &str,
    ) -> Option<(&'static dyn Format, Chosen)> {
        let found = self.probe(sample);
        if found.is_some_and(|(_, chosen)| chosen == Chosen::Recognised) {
            return found;
        }
        let named = || {
            let (_, end) = name.rsplit_once('.')?;
            let is_named = |own: &&str| own.eq_ignore_ascii_case(end);
            self.formats().find(|format| {
                let mut names = [format.name()].into_iter().chain(format.aliases().iter().copied());
                names.any(|own| is_named(&own)) && format.probe(sample) == Verdict::AtEnd
            })
        };
        named().map(|format| (format, Chosen::Recognised)).or(found)
    }

    /// As [`probe_named`](Self::probe_named), reading the sample from `store`, which has the name.
    pub fn probe_store(&self, store: &dyn Storage) -> Result<(&'static dyn Format, Chosen)> {
        Sample::of_store(store, |sample| self.probe_named(sample, store.name()))?
            .ok_or_else(|| Error::UnknownFormat(store.name().to_owned()))
    }

    /// The numbers by which the image in `store` is known, if a format here knows them; `format`
    /// names the only one asked.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] for a name that is not in the list, and those of reading.
    pub fn identify_store(&self, store: &dyn Storage, format: Option<&str>) -> Result<Option<Ids>> {
        let asked = match format {
            Some(name) => vec![self.by_name(name)?],
            None => self.formats.clone(),
        };
        Sample::of_store(store, |sample| asked.iter().find_map(|format| format.identify(sample)))
    }
}
