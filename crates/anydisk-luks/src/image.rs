//! The image: a raw disk in stores that decrypt.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, Extent, GuestRange, Handled, HostOffset, Image,
    ImageInfo, ImageWrite, Lease, Lookup, Need, NewSize, Placement, Reserved, Resize, Result,
    SecretProblem, Source, Storage, Supplied, WriteLease, Zeroing,
};
use anydisk_crypto::Key;
use anydisk_crypto::luks::{Luks, LuksInfo};

use crate::told::told;
use crate::{KEY_SECRET, NAME, info};

/// A LUKS container. Without its passphrase it tells what it is, and nothing of its content.
#[derive(Debug)]
pub struct LuksImage {
    header: LuksInfo,
    detached: bool,
    size: AtomicU64,
    /// `None`: no passphrase was given.
    parts: Option<Vec<Run>>,
    sector: u64,
    writable: bool,
}

/// A part of the disk, in a store of its own.
#[derive(Debug)]
struct Run {
    start: u64,
    /// `None`: as long as the disk.
    len: Option<u64>,
    store: Arc<dyn Storage>,
}

impl LuksImage {
    /// The payload of `luks` in `data`, decrypted with `key`, if there is one.
    ///
    /// # Errors
    /// What does not fit into the data, or is not supported.
    pub(crate) fn new(
        luks: &Luks,
        data: &Arc<dyn Storage>,
        key: Option<&Key>,
        detached: bool,
        writable: bool,
    ) -> Result<Self> {
        let len = data.len()?;
        let size = luks.payload_len(len).map_err(told)?;
        let parts = key.map(|key| runs(luks, key, data)).transpose()?;
        let header = luks.info();
        let sector = header.sector_size;
        Ok(Self { header, detached, size: size.into(), parts, sector, writable })
    }

    fn runs(&self) -> Result<&[Run]> {
        self.parts.as_deref().ok_or(Error::Secret {
            option: KEY_SECRET,
            why: SecretProblem::Missing("the passphrase of the image"),
        })
    }

    /// The store and the place in it of the start of `range`, and how many bytes go on there.
    fn place_of(&self, range: GuestRange) -> Result<(&Arc<dyn Storage>, HostOffset, u64)> {
        let runs = self.runs()?;
        let start = range.start().get();
        let index = runs.partition_point(|run| run.start <= start).saturating_sub(1);
        let run = &runs[index];
        let inside = start - run.start;
        let room = run.len.map_or(u64::MAX, |len| len.saturating_sub(inside));
        Ok((&run.store, HostOffset(inside), range.len().min(room)))
    }
}

fn runs(luks: &Luks, key: &Key, data: &Arc<dyn Storage>) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for part in luks.parts(key, data).map_err(told)? {
        let len = part.len.map(|_| part.store.len()).transpose()?;
        runs.push(Run { start, len, store: part.store });
        start += len.unwrap_or(0);
    }
    if runs.is_empty() {
        return Err(Error::Unsupported {
            format: NAME,
            feature: "a header without payload".into(),
        });
    }
    Ok(runs)
}

impl Image for LuksImage {
    fn size(&self) -> u64 {
        self.size.load(Acquire)
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let (store, at, len) = self.place_of(range)?;
        let source = Source::Data { store, at, shared: false };
        Ok(Lookup::Found(Extent { len, source, lease: Lease::eternal() }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // There are no tables, so nothing was asked for.
    }

    fn info(&self) -> ImageInfo {
        let mut told = ImageInfo::new(NAME);
        told.encrypted = true;
        told.locked = self.parts.is_none().then_some(KEY_SECRET);
        told.details = info::details(&self.header, self.detached);
        told
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        (self.writable && self.parts.is_some()).then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        (self.writable && self.parts.is_some()).then_some(self)
    }
}

impl ImageWrite for LuksImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        let (store, at, len) = self.place_of(range)?;
        let lease = WriteLease::eternal();
        Ok(Attempt::Placed(Placement::InPlace { store, at, len, lease }))
    }

    fn claims(&self) -> Option<&Claims> {
        None
    }

    fn try_commit(&self, _: &Reserved) -> Result<Committed<'_>> {
        Ok(Committed::Done) // Every place is in place: there are no reservations.
    }

    fn abandon(&self, _: &Reserved) {}

    fn zero(&self, range: GuestRange, _: Zeroing) -> Result<Handled> {
        Ok(Handled::ByData(range.len())) // A hole reads as noise.
    }

    fn discard(&self, range: GuestRange, _: Below) -> Result<Handled> {
        Ok(Handled::ByData(range.len()))
    }

    fn flush(&self) -> Result<()> {
        self.runs()?.iter().try_for_each(|run| Ok(run.store.flush()?))
    }

    fn unit(&self) -> u64 {
        self.sector
    }
}

impl Resize for LuksImage {
    /// What is new is written as zeroes, whatever the preallocation: what a file grows by reads as
    /// noise.
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let size = new.size;
        let last = self.runs()?.last();
        let refuse = |feature: String| Error::Unsupported { format: NAME, feature: feature.into() };
        let Some(run) = last.filter(|run| run.len.is_none() && run.start <= size) else {
            return Err(refuse(format!("a size of {size} bytes of this payload")));
        };
        if !size.is_multiple_of(self.sector) {
            return Err(refuse(format!("a size that is no multiple of {} bytes", self.sector)));
        }
        if size < self.size() {
            self.size.store(size, Release);
        }
        run.store.set_len(size - run.start)?;
        self.size.store(size, Release);
        Ok(())
    }
}
