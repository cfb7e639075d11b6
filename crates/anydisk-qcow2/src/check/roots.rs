//! What the header names, directly or through the snapshot table and the bitmap directory.

use std::mem::offset_of;

use anydisk_core::{Error, HostOffset, Result};

use super::bitmaps;
use super::references::References;
use super::stream::Stream;
use super::subject::{PastEnd, Subject};
use super::sweep::{Segment, sweep};
use super::trouble::{Teller, Trouble};
use super::windows::Touched;
use crate::guard::Clusters;
use crate::layout::{RawHeader, RawSnapshot};
use crate::limits;

/// Where everything begins.
#[derive(Default)]
pub(super) struct Roots {
    /// Structures that are named once.
    regions: Vec<Clusters>,
    /// The bytes of all L1 tables, of the disk and of snapshots.
    pub(super) l1: Vec<Segment>,
    /// The clusters of all L1 tables.
    l1_clusters: Vec<Segment>,
    /// The bytes of all tables of bitmaps.
    pub(super) bitmap_tables: Vec<Segment>,
    bitmap_clusters: Vec<Segment>,
}

/// Byte ranges of tables, and their clusters.
#[derive(Default)]
pub(super) struct Tables {
    bytes: Vec<(u64, u64)>,
    clusters: Vec<(u64, u64)>,
}

impl Roots {
    /// Finds them, and tells what is wrong with them.
    pub(super) fn find(
        subject: &Subject,
        without_refcounts: bool,
        teller: &mut Teller<'_>,
    ) -> Result<Self> {
        let header = &subject.header;
        let mut roots = Self::default();
        let mut l1 = Tables::default();
        roots.note(subject, teller, "the header", 0, subject.cluster_size());
        let active = u64::from(header.l1_size) * 8;
        l1.note(subject, teller, "the L1 table", header.l1_table_offset.get(), active);
        roots.note_snapshots(subject, teller, &mut l1)?;
        let len = u64::from(header.refcount_table_clusters) << subject.bits();
        let at = header.refcount_table_offset.get();
        if !without_refcounts {
            roots.note(subject, teller, "the refcount table", at, len);
        }
        roots.note_crypto_header(subject, teller);
        let mut tables = Tables::default();
        bitmaps::find(subject, teller, &mut roots, &mut tables)?;
        (roots.l1, roots.l1_clusters) = l1.swept();
        (roots.bitmap_tables, roots.bitmap_clusters) = tables.swept();
        Ok(roots)
    }

    /// A structure that is named once.
    pub(super) fn note(
        &mut self,
        subject: &Subject,
        teller: &mut Teller<'_>,
        what: &str,
        at: u64,
        len: u64,
    ) {
        match subject.region(at, len) {
            Ok(clusters) => self.regions.push(clusters),
            Err(PastEnd) => tell_past_end(subject, teller, what, at, len),
        }
    }

    fn note_snapshots(
        &mut self,
        subject: &Subject,
        teller: &mut Teller<'_>,
        l1: &mut Tables,
    ) -> Result<()> {
        let header = &subject.header;
        if header.nb_snapshots > 0 && header.has_data_file() {
            let field = HostOffset(offset_of!(RawHeader, nb_snapshots) as u64);
            teller.tell(Trouble::SnapshotsWithDataFile, field, || {
                let count = header.nb_snapshots;
                format!("nb_snapshots is {count}, expected 0 with an external data file")
            });
        }
        let start = header.snapshots_offset.get();
        let mut stream = Stream::new(subject, start);
        let mut end = start;
        for number in 0..header.nb_snapshots {
            let at = HostOffset(end.next_multiple_of(8));
            stream.skip(at.get() - end);
            let entry: RawSnapshot = match stream.take_struct() {
                Ok(entry) => entry,
                Err(error) => {
                    tell_unreadable(teller, at, &error);
                    break;
                }
            };
            note_snapshot(subject, teller, l1, (number, at), &entry);
            let strings = u64::from(entry.id_str_size.get()) + u64::from(entry.name_size.get());
            stream.skip(u64::from(entry.extra_data_size.get()) + strings);
            end = stream.at();
            let len = end - start;
            if len > limits::SNAPSHOT_TABLE {
                teller.tell(Trouble::SnapshotTableTooLong, at, || {
                    let most = limits::SNAPSHOT_TABLE;
                    format!("the snapshot table has {len} bytes and more, expected at most {most}")
                });
                break;
            }
        }
        self.note(subject, teller, "the snapshot table", start, end - start);
        Ok(())
    }

    fn note_crypto_header(&mut self, subject: &Subject, teller: &mut Teller<'_>) {
        if let Some((at, len)) = subject.header.crypto_header() {
            self.note(subject, teller, "the crypto header", at.get(), len);
        }
    }

    /// Notes where it lies.
    pub(super) fn touch(&self, touched: &Touched) {
        self.regions.iter().for_each(|region| touched.note_run(*region));
        for segment in self.l1_clusters.iter().chain(&self.bitmap_clusters) {
            touched.note_run(Clusters::new(segment.start, segment.end - segment.start));
        }
    }

    /// Counts all of it, as metadata.
    pub(super) fn count(&self, references: &References) {
        for region in &self.regions {
            references.claim(*region);
            references.add(*region, 1);
        }
        for segment in self.l1_clusters.iter().chain(&self.bitmap_clusters) {
            let run = Clusters::new(segment.start, segment.end - segment.start);
            references.claim(run);
            if segment.times > 1 {
                references.claim(run);
            }
            references.add(run, segment.times);
        }
    }
}

impl Tables {
    /// A table that lies in the file, as a whole or in part; a cluster of another may be in it.
    pub(super) fn note(
        &mut self,
        subject: &Subject,
        teller: &mut Teller<'_>,
        what: &str,
        at: u64,
        len: u64,
    ) {
        if let Err(PastEnd) = self.try_note(subject, at, len) {
            tell_past_end(subject, teller, what, at, len);
        }
    }

    /// The same, with nothing told of one that reaches past the end of the file.
    pub(super) fn try_note(&mut self, subject: &Subject, at: u64, len: u64) -> Result<(), PastEnd> {
        // What lies past the end of the file is zero, and names nothing.
        self.bytes.push((at, at.saturating_add(len).min(subject.file_len)));
        let run = subject.region(at, len)?;
        self.clusters.push((run.first, run.end()));
        Ok(())
    }

    fn swept(self) -> (Vec<Segment>, Vec<Segment>) {
        (sweep(self.bytes), sweep(self.clusters))
    }
}

fn note_snapshot(
    subject: &Subject,
    teller: &mut Teller<'_>,
    l1: &mut Tables,
    (number, at): (u32, HostOffset),
    entry: &RawSnapshot,
) {
    let extra = entry.extra_data_size.get();
    if subject.header.version >= 3 && extra < 16 {
        teller.tell(Trouble::SnapshotShort, at, || {
            format!("entry {number} of the snapshot table has {extra} bytes of extra data, expected 16 and more")
        });
    }
    if extra > limits::SNAPSHOT_EXTRA {
        teller.tell(Trouble::SnapshotLong, at, || {
            let most = limits::SNAPSHOT_EXTRA;
            format!("entry {number} of the snapshot table has {extra} bytes of extra data, expected at most {most}")
        });
    }
    let (table, size) = (entry.l1_table_offset.get(), entry.l1_size.get());
    if !HostOffset(table).is_aligned(subject.cluster_size()) {
        teller.tell(Trouble::SnapshotL1Unaligned, at, || {
            format!("snapshot {number}: l1_table_offset is {table:#x}, expected a multiple of the cluster size")
        });
    } else if size > limits::L1_ENTRIES {
        teller.tell(Trouble::SnapshotL1TooLarge, at, || {
            let most = limits::L1_ENTRIES;
            format!("snapshot {number}: l1_size is {size}, expected at most {most}")
        });
    } else {
        let what = format_args!("the L1 table of snapshot {number}").to_string();
        l1.note(subject, teller, &what, table, u64::from(size) * 8);
    }
}

pub(super) fn tell_past_end(
    subject: &Subject,
    teller: &mut Teller<'_>,
    what: &str,
    at: u64,
    len: u64,
) {
    teller.tell(Trouble::PastEnd, HostOffset(at), || {
        let end = subject.file_len;
        format!("{what}, {len:#x} bytes at {at:#x}, reaches past the end of the file at {end:#x}")
    });
}

pub(super) fn tell_unreadable(teller: &mut Teller<'_>, at: HostOffset, error: &Error) {
    teller.tell(Trouble::Unreadable, at, || error.to_string());
}
