//! The header of an image that is open for writing, and the one place that changes it.
//!
//! ```text
//!   0        24     36        48               60          72         96     112
//!   | ...    | size | L1 table| refcount table | snapshots | features | ...  | extensions, name ..
//!            `------ one write each, inside the first sector ---------'        `- rewritten as a whole
//! ```
//!
//! Every change is durable when it returns, and what was written before it is durable before it:
//! a table may be named as soon as it was written. After an error the medium may hold the old or
//! the new header: what either names must stay as it is.

#![allow(dead_code, reason = "what changes these fields comes with its own operation")]

use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{Doubt, Error, HostOffset, Result, Storage, StorageExt};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use crate::Header;
use crate::extensions::Extension;
use crate::features::autoclear;
use crate::layout::{RawHeader, extension};

/// Bytes that a medium writes wholly or not at all.
const SECTOR: usize = 512;
/// Bytes of the first cluster that a header and its name hardly ever exceed. What lies behind them
/// and behind the new header stays as it is.
const HEADER_AREA: usize = 8 << 10;

/// The three words of feature bits, as they are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FeatureBits {
    pub(crate) incompatible: u64,
    pub(crate) compatible: u64,
    pub(crate) autoclear: u64,
}

/// The header of one open image, as it is on the medium.
#[derive(Debug)]
pub(crate) struct LiveHeader {
    store: Arc<dyn Storage>,
    now: Mutex<Header>,
    has_backing: AtomicBool,
    /// Whether size and L1 table on the medium are those that are known.
    pub(crate) doubt: Doubt,
}

impl LiveHeader {
    /// The header of an image that is opened for writing. Promises of the autoclear bits that
    /// nobody here keeps end now, before anything else changes (qcow2, "Header").
    pub(crate) fn open(store: &Arc<dyn Storage>, header: Header) -> Result<Self> {
        let live = Self {
            store: Arc::clone(store),
            has_backing: AtomicBool::new(header.backing_file.is_some()),
            now: Mutex::new(header),
            doubt: Doubt::default(),
        };
        let has_bitmaps = live.with(|header| header.extension(extension::BITMAPS).is_some());
        let vouched = if has_bitmaps { autoclear::BITMAPS } else { 0 };
        live.set_features(|bits| bits.autoclear &= autoclear::RAW_DATA_FILE | vouched)?;
        Ok(live)
    }

    /// The header of an image that is repaired: only what is told to changes.
    pub(crate) fn to_repair(store: &Arc<dyn Storage>, header: Header) -> Self {
        Self {
            store: Arc::clone(store),
            has_backing: AtomicBool::new(header.backing_file.is_some()),
            now: Mutex::new(header),
            doubt: Doubt::default(),
        }
    }

    /// The medium says `header` now.
    pub(crate) fn reload(&self, header: Header) {
        *self.lock() = header;
    }

    fn lock(&self) -> MutexGuard<'_, Header> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the header. Waits for whoever is changing it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Header) -> T) -> T {
        look(&self.lock())
    }

    /// Whether the header names an image below. Takes no lock.
    pub(crate) fn has_backing(&self) -> bool {
        self.has_backing.load(Relaxed)
    }

    /// Names another active L1 table. After an error nothing is written any more.
    pub(crate) fn set_l1(&self, at: HostOffset, entries: u32) -> Result<()> {
        let mut now = self.lock();
        let bytes = [U32::new(entries).as_bytes(), U64::new(at.get()).as_bytes()].concat();
        self.doubt.during(|| self.write(offset_of!(RawHeader, l1_size), &bytes))?;
        (now.l1_size, now.l1_table_offset) = (entries, at);
        Ok(())
    }

    /// Names another refcount table.
    pub(crate) fn set_refcount_table(&self, at: HostOffset, clusters: u32) -> Result<()> {
        let mut now = self.lock();
        let bytes = [U64::new(at.get()).as_bytes(), U32::new(clusters).as_bytes()].concat();
        self.write(offset_of!(RawHeader, refcount_table_offset), &bytes)?;
        (now.refcount_table_offset, now.refcount_table_clusters) = (at, clusters);
        Ok(())
    }

    /// Names another snapshot table.
    pub(crate) fn set_snapshots(&self, at: HostOffset, count: u32) -> Result<()> {
        let mut now = self.lock();
        let bytes = [U32::new(count).as_bytes(), U64::new(at.get()).as_bytes()].concat();
        self.write(offset_of!(RawHeader, nb_snapshots), &bytes)?;
        (now.snapshots_offset, now.nb_snapshots) = (at, count);
        Ok(())
    }

    /// Names other tables and another size (fields up to `snapshots_offset`) in one write: after a
    /// power failure all of it is so, or nothing.
    ///
    /// # Errors
    /// Those of the store, and whether the old header is known to be on the medium after them.
    pub(crate) fn set_tables(
        &self,
        change: impl FnOnce(&mut Header),
    ) -> std::result::Result<(), (Error, bool)> {
        let mut now = self.lock();
        let mut new = now.clone();
        change(&mut new);
        let fields = offset_of!(RawHeader, size)..offset_of!(RawHeader, incompatible_features);
        let write =
            |header: &Header| self.write(fields.start, &header.to_raw().as_bytes()[fields.clone()]);
        if let Err(error) = write(&new) {
            // Half of it may be there, or all.
            return Err((error, write(&now).is_ok()));
        }
        *now = new;
        Ok(())
    }

    /// Changes the virtual size. After an error nothing is written any more.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        let mut now = self.lock();
        let size_now = U64::new(size);
        self.doubt.during(|| self.write(offset_of!(RawHeader, size), size_now.as_bytes()))?;
        now.size = size;
        Ok(())
    }

    /// Changes feature bits; nothing is written if they stay as they are. Version 2 has none.
    pub(crate) fn set_features(&self, change: impl FnOnce(&mut FeatureBits)) -> Result<()> {
        let mut now = self.lock();
        let mut bits = FeatureBits::of(&now);
        change(&mut bits);
        if now.version < 3 || bits == FeatureBits::of(&now) {
            return Ok(());
        }
        let words = [bits.incompatible, bits.compatible, bits.autoclear].map(U64::new);
        self.write(offset_of!(RawHeader, incompatible_features), words.as_bytes())?;
        bits.put(&mut now);
        Ok(())
    }

    /// Names the directory of bitmaps by the data of their extension, and vouches for it; or says
    /// that there is none.
    ///
    /// # Errors
    /// As [`rewrite`](Self::rewrite).
    pub(crate) fn set_bitmaps(&self, extension: Option<Vec<u8>>) -> Result<()> {
        let is_bitmaps = |one: &Extension| one.kind == extension::BITMAPS;
        let Some(data) = extension else {
            self.set_features(|bits| bits.autoclear &= !autoclear::BITMAPS)?;
            return self.rewrite(|header| {
                header.extensions.retain(|one| !is_bitmaps(one));
                Ok(())
            });
        };
        let name = |header: &mut Header| {
            match header.extensions.iter_mut().rev().find(|one| is_bitmaps(one)) {
                Some(old) => old.data.clone_from(&data),
                None => {
                    let data = data.clone();
                    header.extensions.push(Extension { kind: extension::BITMAPS, data });
                }
            }
            Ok(())
        };
        if !self.is_one_sector(name)? {
            // An extension that is half the old one and half the new one must not count.
            self.set_features(|bits| bits.autoclear &= !autoclear::BITMAPS)?;
        }
        self.rewrite(name)?;
        self.set_features(|bits| bits.autoclear |= autoclear::BITMAPS)
    }

    /// Writes one group of fields, which lies in the first sector.
    fn write(&self, field: usize, bytes: &[u8]) -> Result<()> {
        debug_assert!(field + bytes.len() <= SECTOR, "one write, one sector");
        self.store.flush()?;
        self.store.write_at(HostOffset(field as u64), bytes)?;
        Ok(self.store.flush()?)
    }

    /// Changes anything that stands in the first cluster: extensions, the name of the backing file,
    /// fields. What is not known here (extensions, fields, compatible bits) stays, in its order.
    ///
    /// A power failure on the way leaves the old header or the new one, wherever there is an order
    /// of sectors that can; else, as in other programs, all of it is written at once.
    ///
    /// # Errors
    /// What `change` says; [`Limit`](anydisk_core::Error::Limit) if the header no longer fits into
    /// a cluster; then nothing changed.
    pub(crate) fn rewrite(&self, change: impl FnOnce(&mut Header) -> Result<()>) -> Result<()> {
        let mut now = self.lock();
        let mut new = now.clone();
        change(&mut new)?;
        let plan = self.plan(&new)?;
        self.store.flush()?;
        for step in plan {
            self.store.write_at(HostOffset(step.at as u64), &step.bytes)?;
            self.store.flush()?;
        }
        self.has_backing.store(new.backing_file.is_some(), Relaxed);
        *now = new;
        Ok(())
    }

    /// Whether `change` needs one sector written, and so is made wholly or not at all.
    pub(crate) fn is_one_sector(
        &self,
        change: impl FnOnce(&mut Header) -> Result<()>,
    ) -> Result<bool> {
        let mut new = self.with(Header::clone);
        change(&mut new)?;
        let plan = self.plan(&new)?;
        Ok(plan.len() <= 1 && plan.iter().all(|step| step.bytes.len() <= SECTOR))
    }

    /// What is written to make the first cluster say `new`, with a flush behind each step.
    fn plan(&self, new: &Header) -> Result<Vec<Step>> {
        let len = new.to_bytes()?.len().max(HEADER_AREA);
        let len = len.min(usize::try_from(new.cluster_size()).unwrap_or(usize::MAX));
        let mut old = vec![0; len];
        self.store.read_padded_at(HostOffset::ZERO, &mut old)?;
        let filled = |header: &Header, name_from| -> Result<Vec<u8>> {
            let mut bytes = header.to_bytes_with_name(name_from)?;
            bytes.resize(bytes.len().max(len), 0);
            Ok(bytes)
        };
        let wanted = filled(new, 0)?;
        if let Some(steps) = steps(&old, &wanted) {
            return Ok(steps);
        }
        // The new extensions need the place of the old name: the name moves out of the way first.
        let between = match parse(&old) {
            Some(header) => filled(&header, new.to_bytes()?.len().next_multiple_of(SECTOR)),
            None => Ok(Vec::new()),
        };
        if let Ok(between) = between
            && let (Some(away), Some(then)) = (steps(&old, &between), steps(&between, &wanted))
        {
            return Ok([away, then].concat());
        }
        Ok(vec![Step { at: 0, bytes: wanted }])
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    at: usize,
    bytes: Vec<u8>,
}

fn parse(area: &[u8]) -> Option<Header> {
    Header::parse(area, area.len() as u64).ok()
}

/// An order in which the sectors that differ can be written one by one, so that between any two
/// the header reads as the old one or as the new one. `None` if there is none.
fn steps(old: &[u8], new: &[u8]) -> Option<Vec<Step>> {
    if old.len() != new.len() {
        return None;
    }
    let (before, after) = (parse(old)?, parse(new)?);
    let sectors = (0..old.len()).step_by(SECTOR);
    let sector = |at: usize| at..old.len().min(at + SECTOR);
    // From the back: what the first sector refers to is best written before it.
    let mut rest: Vec<_> =
        sectors.filter(|at| old[sector(*at)] != new[sector(*at)]).rev().collect();
    let (mut now, mut steps) = (old.to_vec(), Vec::new());
    while !rest.is_empty() {
        let index = rest.iter().position(|at| {
            let mut then = now.clone();
            then[sector(*at)].copy_from_slice(&new[sector(*at)]);
            parse(&then).is_some_and(|header| header == before || header == after)
        })?;
        let at = rest.remove(index);
        now[sector(at)].copy_from_slice(&new[sector(at)]);
        steps.push(Step { at, bytes: new[sector(at)].to_vec() });
    }
    Some(steps)
}

impl FeatureBits {
    fn of(header: &Header) -> Self {
        Self {
            incompatible: header.incompatible_features,
            compatible: header.compatible_features,
            autoclear: header.autoclear_features,
        }
    }

    fn put(self, header: &mut Header) {
        header.incompatible_features = self.incompatible;
        header.compatible_features = self.compatible;
        header.autoclear_features = self.autoclear;
    }
}

#[cfg(test)]
mod tests;
