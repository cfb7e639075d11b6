//! The writing side: places, commits, zeroes, and what is written back in which order.
//!
//! ```text
//!   flush:  data -> flush -> L2 tables -> flush -> L1 table -> flush
//! ```
//!
//! So the tables on the medium name nothing that is not there, and the image is never marked as one that
//! needs a check.

mod clear;
mod empty;
mod link;
mod place;
mod resize;

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use anydisk_core::{
    Attempt, Below, Claims, Committed, Doubt, Error, GuestOffset, GuestRange, Handled, HostOffset,
    Image, ImageWrite, Inserted, Pace, Reserved, Result, Storage, TakenRun, Updated, Zeroing,
};

use crate::image::{Level, QedImage, broken_table};
use crate::survey::Survey;
use crate::table::{Place, SliceAt};
use crate::{NAME, limits};

/// What writing needs beside the image.
#[derive(Debug)]
pub(crate) struct Writer {
    claims: Claims,
    /// Held while an L2 table is made; space for the next one, if it was taken already.
    next_table: Mutex<Option<TakenRun>>,
    /// One change of the size runs at a time.
    resizing: Mutex<()>,
    /// There are entries for what lies behind the end of the disk.
    names_behind_end: AtomicBool,
    /// Whether the size is the one that is known.
    doubt: Doubt,
    /// When tables are written back though nobody flushes.
    pace: Pace,
}

impl Writer {
    pub(crate) fn new(survey: &Survey) -> Self {
        // Only where the L1 table names nothing, clusters without a name look like a lost table.
        let named = if survey.names_something { u64::MAX / 2 } else { 0 };
        Self {
            claims: Claims::default(),
            next_table: Mutex::default(),
            resizing: Mutex::default(),
            names_behind_end: survey.names_behind_end.into(),
            doubt: Doubt::default(),
            pace: Pace::new(named, 0),
        }
    }
}

/// The answer of a step that works in memory alone.
enum Step<'a, T> {
    Done(T),
    Need(anydisk_core::Need<'a>),
    Full,
}

impl QedImage {
    fn writing(&self) -> Result<&Writer> {
        let why = "it was opened for reading";
        self.writer.as_ref().ok_or_else(|| Error::ReadOnly { why: why.into() })
    }

    /// `count` clusters from the one that holds `at`, cut at the end of the disk.
    fn units(&self, at: GuestOffset, count: u64) -> GuestRange {
        let start = at.get() & !(self.geometry.cluster() - 1);
        let end = start.saturating_add(count.saturating_mul(self.geometry.cluster()));
        GuestRange::between(GuestOffset(start), GuestOffset(end)).before(GuestOffset(self.size()))
    }

    /// Clusters that a range of whole units has.
    fn clusters(&self, units: GuestRange) -> u64 {
        units.len().div_ceil(self.geometry.cluster())
    }

    /// The L2 table for a place, made now if there is none.
    fn own_table(&self, place: Place) -> Result<Step<'_, HostOffset>> {
        if let Some(found) = self.table_at(place)? {
            return Ok(found);
        }
        let writer = self.writing()?;
        let mut next = writer.next_table.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have made it meanwhile.
        if let Some(found) = self.table_at(place)? {
            return Ok(found);
        }
        let (len, cluster) = (self.geometry.table_len(), self.geometry.cluster());
        let take = || {
            writer.pace.reserved(len);
            self.space.take_zeroed(len, cluster)
        };
        let at = next.get_or_insert_with(take).at;
        check_place(at.saturating_add(len))?;
        // New space reads as zero, so only the slice that is about to change is made.
        if self.l2.create(SliceAt::of(at, place.l2).at, []) == Inserted::Full {
            return Ok(Step::Full);
        }
        self.grow_to(at.saturating_add(len));
        let l1 = SliceAt::of(self.header.l1_table_offset, place.l1);
        Ok(match self.l1.update(l1.at, |entries| entries.set(index_in(l1), at.get())) {
            Updated::Missing => Step::Need(self.need(Level::L1, l1)),
            Updated::Full => Step::Full,
            Updated::Done(()) => {
                writer.pace.committed(len);
                *next = None;
                Step::Done(at)
            }
        })
    }

    /// The L2 table that the L1 table names; `None`: it names none.
    fn table_at(&self, place: Place) -> Result<Option<Step<'_, HostOffset>>> {
        let l1 = SliceAt::of(self.header.l1_table_offset, place.l1);
        let Some(entry) = self.l1.read(l1.at, |entries| entries.get(index_in(l1))) else {
            return Ok(Some(Step::Need(self.need(Level::L1, l1))));
        };
        let table = self.geometry.table(entry, self.end().get());
        Ok(table.map_err(|entry| broken_table(l1, entry))?.map(Step::Done))
    }
}

/// Number of an entry in its slice.
fn index_in(slice: SliceAt) -> usize {
    usize::try_from(slice.index).unwrap_or(usize::MAX)
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

impl ImageWrite for QedImage {
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        self.place_plain(range)
    }

    fn claims(&self) -> Option<&Claims> {
        self.writer.as_ref().map(|writer| &writer.claims)
    }

    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>> {
        self.commit_reserved(reserved)
    }

    fn abandon(&self, reserved: &Reserved) {
        let len = self.clusters(reserved.range) * self.geometry.cluster();
        self.space.give_back(reserved.at, len);
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
        let writer = self.writing()?;
        writer.doubt.check()?;
        let committed = writer.pace.begin();
        self.space.write_back(&*self.store, &[&self.l1, &self.l2], |_, picture| {
            let entries = picture.entries.iter();
            let bytes: Vec<u8> = entries.flat_map(|entry| entry.to_le_bytes()).collect();
            Ok(self.store.write_at(picture.at, &bytes)?)
        })?;
        writer.pace.written(committed);
        self.space.punch_freed(&*self.store)
    }

    fn unit(&self) -> u64 {
        self.geometry.cluster()
    }
}
