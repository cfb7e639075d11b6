//! The writing side: places, commits, zeroes, and what is written back in which order.
//!
//! ```text
//!   flush:  data -> flush -> L2 tables -> flush -> L1 table -> flush
//! ```

mod clear;
mod empty;
mod link;
mod place;

use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Error, GuestOffset, GuestRange, Handled, HostOffset, Image,
    ImageWrite, Inserted, Pace, Packing, Reserved, Result, Storage, TakenRun, Updated, Zeroing,
};

use crate::image::{Level, QcowImage, broken_table};
use crate::survey::Survey;
use crate::table::Place;
use crate::{NAME, limits};

/// How deflate is asked to pack: as qemu asks zlib, with the window of 4 KiB that readers expect.
const LEVEL: u32 = 6;
const WINDOW_BITS: u8 = 12;

/// More than the first 16 MiB of clusters have in tables, in bytes.
const TABLES: u64 = 4 << 20;

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    claims: Claims,
    pub(crate) survey: Survey,
    /// When tables are written back though nobody flushes.
    pace: Pace,
    /// Held while an L2 table is made; space for the next one, if it was taken already.
    next_table: Mutex<Option<TakenRun>>,
    encoder: Arc<dyn anydisk_core::Encode>,
}

impl Writer {
    pub(crate) fn new(survey: Survey) -> Result<Self> {
        let encoder = anydisk_codec::deflate(LEVEL, WINDOW_BITS).map_err(|error| {
            Error::Unsupported { format: NAME, feature: error.to_string().into() }
        })?;
        // Only where the L1 table names nothing, clusters without a name look like a lost table.
        let named = if survey.is_done() { 0 } else { u64::MAX / 2 };
        Ok(Self {
            claims: Claims::default(),
            survey,
            pace: Pace::new(named, TABLES),
            next_table: Mutex::default(),
            encoder: Arc::new(encoder),
        })
    }
}

/// The answer of a step that works in memory alone.
enum Step<'a, T> {
    Done(T),
    Need(anydisk_core::Need<'a>),
    Full,
}

impl QcowImage {
    fn writing(&self) -> Result<&Writer> {
        let why = "it was opened for reading";
        self.writer.as_ref().ok_or_else(|| Error::ReadOnly { why: why.into() })
    }

    /// Reads what must be known before space is taken or given back.
    fn survey(&self) -> Result<()> {
        while let Some(need) = self.unsurveyed(&self.writing()?.survey) {
            self.satisfy(&need)?;
        }
        Ok(())
    }

    /// `count` clusters from the one that holds `at`, cut at the end of the disk.
    fn units(&self, at: GuestOffset, count: u64) -> GuestRange {
        let start = self.geometry.cluster_range(at).start();
        let end = start.get().saturating_add(count.saturating_mul(self.geometry.cluster()));
        GuestRange::between(start, GuestOffset(end)).before(GuestOffset(self.size()))
    }

    /// Clusters that a range of whole units has.
    fn clusters(&self, units: GuestRange) -> u32 {
        let count = units.len().div_ceil(self.geometry.cluster());
        u32::try_from(count).expect("a part of one table")
    }

    /// The L2 table for a place, made now if there is none.
    fn own_table(&self, place: Place) -> Result<Step<'_, HostOffset>> {
        if let Some(found) = self.table_at(place)? {
            return Ok(found);
        }
        let mut next = self.writing()?.next_table.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have made it meanwhile.
        if let Some(found) = self.table_at(place)? {
            return Ok(found);
        }
        let (len, cluster) = (self.geometry.l2_len(), self.geometry.cluster());
        let at = next.get_or_insert_with(|| self.space.take_zeroed(len, cluster)).at;
        check_place(at.saturating_add(len))?;
        // New space reads as zero, so only the slice that is about to change is made.
        if self.l2.create(self.geometry.l2_slice(at, place.l2).at, []) == Inserted::Full {
            return Ok(Step::Full);
        }
        let l1 = self.geometry.l1_slice(place.l1);
        Ok(match self.l1.update(l1.at, |entries| entries.set(l1.index as usize, at.get())) {
            Updated::Missing => Step::Need(self.need(Level::L1, l1)),
            Updated::Full => Step::Full,
            Updated::Done(()) => {
                *next = None;
                Step::Done(at)
            }
        })
    }

    /// The L2 table that the L1 table names; `None`: it names none.
    fn table_at(&self, place: Place) -> Result<Option<Step<'_, HostOffset>>> {
        let l1 = self.geometry.l1_slice(place.l1);
        let Some(entry) = self.l1.read(l1.at, |entries| entries.get(l1.index as usize)) else {
            return Ok(Some(Step::Need(self.need(Level::L1, l1))));
        };
        let table = self.geometry.table(entry).map_err(|entry| broken_table(l1, entry))?;
        Ok(table.map(Step::Done))
    }
}

/// Refuses space that the entries of tables cannot name.
fn check_place(end: HostOffset) -> Result<()> {
    let (found, limit) = (end.get(), limits::FILE);
    match found <= limit {
        true => Ok(()),
        false => Err(Error::Limit {
            format: NAME,
            what: "length of the file in bytes".into(),
            found,
            limit,
        }),
    }
}

impl ImageWrite for QcowImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.place_plain(range)
    }

    fn try_place_encoded(&self, unit: GuestRange, len: usize) -> Result<Attempt<'_>> {
        self.place_packed(unit, len)
    }

    fn claims(&self) -> Option<&Claims> {
        self.writer.as_ref().map(|writer| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        self.commit_reserved(reserved)
    }

    fn abandon(&self, reserved: &Reserved) {
        let (at, len) = self.space_of(reserved);
        self.space.give_back(at, len);
        if let Some(writer) = &self.writer {
            writer.pace.abandoned(len);
            writer.claims.release(reserved.range);
        }
    }

    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled> {
        self.clear(range, how)
    }

    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled> {
        self.clear(range, Zeroing { unmap: true, below })
    }

    fn flush(&self) -> Result<()> {
        let pace = &self.writing()?.pace;
        let committed = pace.begin();
        self.space.write_back(&*self.store, &[&self.l1, &self.l2], |level, picture| {
            let count = match level {
                // Behind the end of the L1 table something else begins.
                0 => self.geometry.l1_slice_at(picture.at).count,
                _ => self.geometry.l2_slice_entries(),
            };
            let entries = picture.entries.iter().take(count as usize);
            let bytes: Vec<u8> = entries.flat_map(|entry| entry.to_be_bytes()).collect();
            Ok(self.store.write_at(picture.at, &bytes)?)
        })?;
        pace.written(committed);
        self.space.punch_freed(&*self.store)
    }

    fn packing(&self) -> Option<Packing> {
        // Packed clusters are never encrypted.
        let writer = self.writer.as_ref().filter(|_| !self.header.encrypted)?;
        let encoder = Arc::clone(&writer.encoder);
        Some(Packing { unit: self.geometry.cluster(), encoder, short_tail: false })
    }

    fn unit(&self) -> u64 {
        self.geometry.cluster()
    }
}
