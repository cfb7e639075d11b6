//! The bitmap directory, and what the bitmaps in it name (qcow2, "Bitmaps extension").

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use anydisk_core::{HostOffset, Result};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::references::References;
use super::roots::{Roots, Tables, tell_unreadable};
use super::stream::Stream;
use super::subject::Subject;
use super::trouble::{Teller, Trouble};
use crate::features::autoclear;
use crate::layout::extension;

/// What qemu accepts.
const BITMAPS: u32 = 65_535;
const ENTRY: u64 = 1024;
const NAME: u16 = 1023;
const GRANULARITY: std::ops::RangeInclusive<u8> = 9..=31;
/// Bytes that the clusters of one bitmap may take.
const DATA: u64 = 512 << 20;

/// Flag of an entry: its content is not to be trusted.
const IN_USE: u32 = 1;
/// Flags of an entry that have a meaning: in use, enabled.
const FLAGS: u32 = IN_USE | 2;
/// Bits of an entry of a bitmap's table.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
const ALL_ONES: u64 = 1;

/// The bitmaps extension.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtension {
    nb_bitmaps: U32,
    reserved: U32,
    directory_size: U64,
    directory_offset: U64,
}

/// The fixed part of an entry of the directory.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBitmap {
    table_offset: U64,
    table_size: U32,
    flags: U32,
    kind: u8,
    granularity_bits: u8,
    name_size: U16,
    extra_data_size: U32,
}

/// Notes the directory and the tables that it names, where the image vouches for them.
pub(super) fn find(
    subject: &Subject,
    teller: &mut Teller<'_>,
    roots: &mut Roots,
    tables: &mut Tables,
) -> Result<()> {
    let header = &subject.header;
    let Some(bytes) = header.extension(extension::BITMAPS) else { return Ok(()) };
    if header.version < 3 || header.autoclear_features & autoclear::BITMAPS == 0 {
        return Ok(()); // Nobody looks at them, so what they name is lost space.
    }
    let bad = |teller: &mut Teller<'_>, text: String| {
        teller.tell(Trouble::Bitmaps, HostOffset::ZERO, || format!("bitmaps extension: {text}"));
    };
    let Ok(raw) = RawExtension::read_from_bytes(bytes) else {
        bad(teller, format!("it has {} bytes, expected 24", bytes.len()));
        return Ok(());
    };
    let (count, len) = (raw.nb_bitmaps.get(), raw.directory_size.get());
    let at = raw.directory_offset.get();
    if raw.reserved.get() != 0 {
        bad(teller, format!("reserved is {:#x}, expected 0", raw.reserved.get()));
    }
    if !(1..=BITMAPS).contains(&count) {
        bad(teller, format!("nb_bitmaps is {count}, expected 1 to {BITMAPS}"));
    }
    if !HostOffset(at).is_aligned(subject.cluster_size()) {
        bad(
            teller,
            format!("the directory is at {at:#x}, expected a multiple of the cluster size"),
        );
    } else if len > ENTRY * u64::from(BITMAPS) {
        bad(teller, format!("the directory has {len} bytes, more than any may have"));
    } else {
        if subject.region(at, len).is_ok() {
            roots.note(subject, teller, "the bitmap directory", at, len);
        } else {
            bad(teller, format!("the directory at {at:#x} reaches past the end of the file"));
        }
        Directory { subject, end: at.saturating_add(len), count }.note(teller, tables, at);
    }
    Ok(())
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
            if count > u64::from(BITMAPS) {
                break; // That there are too many is told below.
            }
            self.note_bitmap(teller, tables, place, &raw);
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
        place: HostOffset,
        raw: &RawBitmap,
    ) {
        if let Some(text) = self.constraint(raw) {
            self.bad(teller, place, || text);
        } else if raw.flags.get() & IN_USE != 0 {
            teller.tell(Trouble::BitmapInUse, place, || {
                format!("bitmap at {place}: it is marked as in use: whoever recorded in it did not store it")
            });
        }
        let (at, len) = (raw.table_offset.get(), u64::from(raw.table_size.get()) * 8);
        if at != 0
            && HostOffset(at).is_aligned(self.subject.cluster_size())
            && tables.try_note(self.subject, at, len).is_err()
        {
            teller.tell(Trouble::BitmapBits, place, || {
                format!("bitmap at {place}: its table, {len:#x} bytes at {at:#x}, reaches past the end of the file")
            });
        }
    }

    /// What is wrong with an entry, if anything.
    fn constraint(&self, raw: &RawBitmap) -> Option<String> {
        let (at, size) = (raw.table_offset.get(), raw.table_size.get());
        let (flags, bits) = (raw.flags.get(), raw.granularity_bits);
        let data = u64::from(size) << self.subject.bits();
        if at == 0 || !HostOffset(at).is_aligned(self.subject.cluster_size()) {
            return Some(format!("bitmap_table_offset is {at:#x}, expected a cluster's place"));
        }
        if size == 0 || data > DATA {
            let most = DATA >> self.subject.bits();
            return Some(format!("bitmap_table_size is {size}, expected 1 to {most}"));
        }
        if flags & !FLAGS != 0 {
            return Some(format!("flags are {flags:#x}, expected no other bits than {FLAGS:#x}"));
        }
        if raw.kind != 1 {
            return Some(format!("type is {}, expected 1", raw.kind));
        }
        if !GRANULARITY.contains(&bits) {
            return Some(format!("granularity_bits is {bits}, expected 9 to 31"));
        }
        if raw.name_size.get() > NAME || raw.extra_data_size.get() != 0 {
            return Some("its name is too long, or it has extra data".into());
        }
        let covers = u128::from(data * 8) << bits;
        if flags & IN_USE == 0 && covers < u128::from(self.subject.header.disk_size()) {
            return Some("its table is too short for the disk".into());
        }
        None
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
    let at = word & OFFSET;
    let legal = word & !(OFFSET | ALL_ONES) == 0
        && HostOffset(at).is_aligned(subject.cluster_size())
        && (at == 0 || word & ALL_ONES == 0);
    if !legal {
        if let Some(place) = place {
            teller.tell(Trouble::BitmapBits, place, || {
                format!("entry {word:#x} of a bitmap's table, expected a cluster's place, 0 or 1")
            });
        }
        return;
    }
    if at == 0 {
        return;
    }
    match subject.region(at, subject.cluster_size()) {
        Ok(run) => references.add_data(run.first, times),
        Err(_) => {
            if let Some(place) = place {
                teller.tell(Trouble::BitmapBits, place, || {
                    format!("a cluster of a bitmap, at {at:#x}, lies past the end of the file")
                });
            }
        }
    }
}

/// Notes that the clusters that hold bits are metadata.
pub(super) fn claim(subject: &Subject, roots: &Roots, references: &References) -> Result<()> {
    for segment in &roots.bitmap_tables {
        let visit = |_: u64, word: u64| {
            if let Ok(run) = subject.region(word & OFFSET, subject.cluster_size())
                && word & OFFSET != 0
            {
                references.claim(run);
            }
            Ok(())
        };
        let mut lost = None;
        let len = segment.end - segment.start;
        subject.words(segment.start, len, visit, |_, error| lost = Some(error))?;
        lost.map_or(Ok(()), Err)?;
    }
    Ok(())
}
