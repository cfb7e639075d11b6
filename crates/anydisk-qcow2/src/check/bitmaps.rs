//! The bitmap directory, and what the bitmaps in it name (qcow2, "Bitmaps extension").

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use anydisk_core::{HostOffset, Invalid, Result};

use super::references::References;
use super::roots::{Roots, Tables, tell_unreadable};
use super::stream::Stream;
use super::subject::Subject;
use super::trouble::{Teller, Trouble};
use crate::bitmap::{BitmapEntry, Claimed, Fault, Part, Place, check_entry, check_table_size};
use crate::layout::RawBitmap;
use crate::limits;

/// Notes the directory and the tables that it names, where the image vouches for them.
pub(super) fn find(
    subject: &Subject,
    teller: &mut Teller<'_>,
    roots: &mut Roots,
    tables: &mut Tables,
) -> Result<()> {
    let bad = |teller: &mut Teller<'_>, text: String| {
        teller.tell(Trouble::Bitmaps, HostOffset::ZERO, || format!("bitmaps extension: {text}"));
    };
    let place = match Place::claimed(&subject.header) {
        // Where the image does not vouch for them nobody looks at them, and what they name is lost
        // space.
        Ok(None) => return Ok(()),
        Ok(Some(Claimed { place, fault })) => {
            if let Some(invalid) = fault {
                bad(teller, told(&invalid));
            }
            place
        }
        Err(invalid) => {
            bad(teller, told(&invalid));
            return Ok(());
        }
    };
    let (at, len) = (place.at.get(), place.len);
    // Elsewhere, or larger, there is no directory; what else is wrong has been told.
    if place.at.is_aligned(subject.cluster_size()) && len <= limits::BITMAP_DIRECTORY {
        if subject.region(at, len).is_ok() {
            roots.note(subject, teller, "the bitmap directory", at, len);
        } else {
            bad(teller, format!("the directory at {at:#x} reaches past the end of the file"));
        }
        let count = place.count;
        Directory { subject, end: at.saturating_add(len), count }.note(teller, tables, at);
    }
    Ok(())
}

fn told(invalid: &Invalid) -> String {
    format!("{} is {}, expected {}", invalid.field, invalid.found, invalid.expected)
}

struct Directory<'a> {
    subject: &'a Subject,
    end: u64,
    count: u32,
}

impl Directory<'_> {
    fn note(&self, teller: &mut Teller<'_>, tables: &mut Tables, at: u64) {
        let mut stream = Stream::new(self.subject, at);
        let (mut count, mut names, hasher) = (0, HashSet::new(), RandomState::new());
        while stream.at() < self.end {
            let place = HostOffset(stream.at());
            let Some(raw) = self.next(teller, &mut stream) else { return };
            let (extra, name) = (raw.extra_data_size.get(), raw.name_size.get());
            stream.skip(extra.into());
            let name = match stream.take(name.into()) {
                Ok(name) => hasher.hash_one(name),
                Err(error) => return tell_unreadable(teller, place, &error),
            };
            if !names.insert(name) {
                self.bad(teller, place, || "its name is that of another one".into());
            }
            stream.skip(stream.at().next_multiple_of(8) - stream.at());
            count += 1;
            if count > u64::from(limits::BITMAPS) {
                break; // That there are too many is told below.
            }
            self.note_bitmap(teller, tables, (place, count), &raw);
        }
        if count != u64::from(self.count) || stream.at() != self.end {
            let expected = self.count;
            teller.tell(Trouble::Bitmaps, HostOffset(at), || {
                format!("the bitmap directory holds {count} bitmaps, expected {expected}")
            });
        }
    }

    /// The next entry, if it lies in the directory.
    fn next(&self, teller: &mut Teller<'_>, stream: &mut Stream<'_>) -> Option<RawBitmap> {
        let place = HostOffset(stream.at());
        let fixed = size_of::<RawBitmap>() as u64;
        let fits = |len: u64| place.get().saturating_add(len) <= self.end;
        let raw = match stream.take_struct::<RawBitmap>() {
            Ok(raw) => raw,
            Err(error) => {
                tell_unreadable(teller, place, &error);
                return None;
            }
        };
        let whole = fixed + u64::from(raw.extra_data_size.get()) + u64::from(raw.name_size.get());
        if !fits(fixed) || !fits(whole.next_multiple_of(8)) {
            self.bad(teller, place, || "it reaches past the end of the directory".into());
            return None;
        }
        Some(raw)
    }

    fn note_bitmap(
        &self,
        teller: &mut Teller<'_>,
        tables: &mut Tables,
        (place, number): (HostOffset, u64),
        raw: &RawBitmap,
    ) {
        let entry = BitmapEntry::new(raw, b"");
        match self.judge(raw, &entry, place) {
            // Behind those that are counted lies something else.
            Err(Fault::Unknown(invalid)) if number <= u64::from(self.count) => {
                teller.tell(Trouble::BitmapUnknown, place, || {
                    let told = told(&invalid);
                    format!("bitmap at {place}: {told}: it is of a kind that is not known here")
                });
            }
            Err(Fault::Unknown(invalid) | Fault::Broken(invalid)) => {
                self.bad(teller, place, || told(&invalid))
            }
            Ok(()) if entry.is_in_use() => {
                teller.tell(Trouble::BitmapInUse, place, || {
                    format!("bitmap at {place}: it is marked as in use: whoever recorded in it did not store it")
                });
            }
            Ok(()) => {}
        }
        let (at, len) = (entry.table.get(), u64::from(entry.table_entries) * 8);
        if at != 0
            && HostOffset(at).is_aligned(self.subject.cluster_size())
            && tables.try_note(self.subject, at, len).is_err()
        {
            teller.tell(Trouble::BitmapBits, place, || {
                format!("bitmap at {place}: its table, {len:#x} bytes at {at:#x}, reaches past the end of the file")
            });
        }
    }

    fn judge(&self, raw: &RawBitmap, entry: &BitmapEntry, place: HostOffset) -> Result<(), Fault> {
        let subject = self.subject;
        check_entry(raw, place, subject.cluster_size())?;
        check_table_size(entry, place, subject.header.disk_size(), subject.bits())
            .map_err(Fault::Broken)
    }

    fn bad(&self, teller: &mut Teller<'_>, at: HostOffset, text: impl FnOnce() -> String) {
        teller.tell(Trouble::Bitmaps, at, || format!("bitmap at {at}: {}", text()));
    }
}

/// Counts the clusters that hold bits. `tells`: what is wrong with entries is told.
pub(super) fn count(
    subject: &Subject,
    roots: &Roots,
    references: &References,
    teller: &mut Teller<'_>,
    tells: bool,
) -> Result<()> {
    for segment in &roots.bitmap_tables {
        let mut lost = Vec::new();
        let visit = |number: u64, word: u64| {
            let place = HostOffset(segment.start + number * 8);
            count_entry(subject, references, teller, tells.then_some(place), (word, segment.times));
            Ok(())
        };
        let len = segment.end - segment.start;
        subject.words(segment.start, len, visit, |at, error| lost.push((at, error)))?;
        for (at, error) in lost.iter().filter(|_| tells) {
            tell_unreadable(teller, HostOffset(*at), error);
        }
    }
    Ok(())
}

fn count_entry(
    subject: &Subject,
    references: &References,
    teller: &mut Teller<'_>,
    place: Option<HostOffset>,
    (word, times): (u64, u64),
) {
    let tell = |teller: &mut Teller<'_>, text: String| {
        if let Some(place) = place {
            teller.tell(Trouble::BitmapBits, place, || text);
        }
    };
    match Part::of(word, HostOffset::ZERO, subject.bits()) {
        Ok(Part::Zeroes | Part::Ones) => {}
        Ok(Part::At(at)) => match subject.region(at.get(), subject.cluster_size()) {
            Ok(run) => references.add_data(run.first, times),
            Err(_) => {
                let text = format!("a cluster of a bitmap, at {at}, lies past the end of the file");
                tell(teller, text);
            }
        },
        Err(_) => {
            let expected = "a cluster's place, 0 or 1";
            tell(teller, format!("entry {word:#x} of a bitmap's table, expected {expected}"));
        }
    }
}
