//! All tables and entries, in the order of the disk.

use anydisk_core::{
    CheckRequest, Codec, Error, GuestOffset, GuestRange, HostOffset, Image, Result, StorageExt,
    can_be_leaks, check_limit,
};

use super::Teller;
use super::mend::{self, Cut, Mender};
use super::places::{Places, Run};
use crate::layout::RawHeader;
use crate::piece::{Piece, each_word};
use crate::table::{Cluster, ENTRY};
use crate::{NAME, QcowImage, limits};

/// An L2 table, and the entry that names it.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: HostOffset,
    l1: u64,
}

/// The field that names the L1 table.
pub(super) const L1_FIELD: HostOffset =
    HostOffset(std::mem::offset_of!(RawHeader, l1_table_offset) as u64);

/// What is walked over.
pub(super) struct Walk<'a> {
    image: &'a QcowImage,
    request: &'a CheckRequest<'a>,
    /// The L1 table, as far as it reaches over nothing that its entries name.
    l1: Piece,
    /// In the order of the disk. None of them overlaps another.
    tables: Vec<Table>,
}

/// One entry that is not 0.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: HostOffset,
    value: u64,
    guest: GuestRange,
}

impl<'a> Walk<'a> {
    /// Reads the L1 table. What it says wrongly is told.
    pub(super) fn new(
        image: &'a QcowImage,
        request: &'a CheckRequest<'a>,
        mender: &mut Mender<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<Self> {
        let l1 = trusted_l1(image, teller)?;
        let mut walk = Self { image, request, l1, tables: Vec::new() };
        let (start, file_len) = (l1.at(), walk.file_len()?);
        let mut tables = Vec::new();
        each_word(image, start, l1.end - l1.at, &mut |at, entry| {
            let l1 = (at.get() - start.get()) / ENTRY;
            let guest = walk.table_guest(l1);
            match image.geometry.table(entry) {
                Ok(Some(table)) if table.get() >= file_len => {
                    // It reads as zeroes, which is a table without entries.
                    let text = format!("the L2 table at {table} lies behind the end of the file");
                    mender.clear_entry(at, mend::past_end(at, guest, text, true), teller)?;
                }
                Ok(Some(table)) => {
                    let table = Table { at: table, l1 };
                    if let Some(cut) = walk.cut(table, at, file_len) {
                        mender.fill_up(&cut, teller)?;
                    }
                    tables.push(table);
                }
                Ok(None) => {}
                Err(entry) => {
                    let text = format!("the L1 entry is {entry:#x}, where no table can be");
                    teller.corrupt("l1-entry-invalid", at, guest, text);
                }
            }
            check_count(tables.len())
        })?;
        walk.tables = walk.apart(tables, teller);
        Ok(walk)
    }

    /// What is missing of a table, which the entry at `entry` names, if the file ends in it.
    fn cut(&self, table: Table, entry: HostOffset, file_len: u64) -> Option<Cut> {
        let place = Piece::new(table.at, self.image.geometry.l2_len());
        let entries = file_len.checked_sub(place.at).filter(|_| file_len < place.end)? / ENTRY;
        let covered = self.table_guest(table.l1)?;
        let lost = covered.skip(covered.len().min(entries * self.image.geometry.cluster()));
        Some(Cut { kind: "l2-table-cut", what: "L2 table", entry, place, lost })
    }

    /// Leaves out the tables that lie on another, which are told: none is read twice.
    fn apart(&self, mut tables: Vec<Table>, teller: &mut Teller<'_>) -> Vec<Table> {
        tables.sort_unstable_by_key(|table| (table.at, table.l1));
        let mut end = HostOffset::ZERO;
        tables.retain(|table| {
            let is_apart = table.at >= end;
            if is_apart {
                end = table.at.saturating_add(self.image.geometry.l2_len());
            } else {
                let at = self.image.geometry.l1_slice(table.l1).entry_at();
                let text = format!("the L2 table at {} lies on another", table.at);
                teller.corrupt("l2-table-shared", at, self.table_guest(table.l1), text);
            }
            is_apart
        });
        tables.sort_unstable_by_key(|table| table.l1);
        tables
    }

    pub(super) fn file_len(&self) -> Result<u64> {
        Ok(self.image.store.len()?)
    }

    pub(super) fn image(&self) -> &QcowImage {
        self.image
    }

    /// The part of the disk that the table of an L1 entry maps.
    fn table_guest(&self, l1: u64) -> Option<GuestRange> {
        let coverage = self.image.geometry.coverage();
        let range = GuestRange::new(GuestOffset(l1.checked_mul(coverage)?), coverage)?;
        Some(range.before(GuestOffset(self.image.size())))
    }

    /// Calls `each` for all entries, and tells how far it has come.
    fn each(&self, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let (geometry, size) = (&self.image.geometry, GuestOffset(self.image.size()));
        for (done, table) in (0_u64..).zip(&self.tables) {
            let progress = self.request.progress;
            let (done, all) =
                (done * geometry.l2_len(), self.tables.len() as u64 * geometry.l2_len());
            if progress.is_some_and(|told| !told(done, all)) {
                return Err(Error::Cancelled);
            }
            let first = table.l1 * geometry.coverage();
            each_word(self.image, table.at, geometry.l2_len(), &mut |at, value| {
                let number = (at.get() - table.at.get()) / ENTRY;
                let start = GuestOffset(first.saturating_add(number * geometry.cluster()));
                let end = GuestOffset(start.get().saturating_add(geometry.cluster())).min(size);
                each(Entry { at, value, guest: GuestRange::between(start, end) })
            })?;
        }
        Ok(())
    }

    /// The pieces of metadata.
    pub(super) fn metadata(&self) -> impl Iterator<Item = Run> {
        let geometry = &self.image.geometry;
        let head = (HostOffset::ZERO, size_of::<RawHeader>() as u64, HostOffset::ZERO);
        let l1 = (self.l1.at(), self.l1.end - self.l1.at, L1_FIELD);
        let name_field = HostOffset(std::mem::offset_of!(RawHeader, backing_file_offset) as u64);
        let name = self.image.header.backing_file.map(|(at, len)| (at, len.into(), name_field));
        let tables = self.tables.iter().map(move |table| {
            (table.at, geometry.l2_len(), geometry.l1_slice(table.l1).entry_at())
        });
        let fixed = [Some(head), Some(l1), name];
        fixed.into_iter().flatten().chain(tables).map(move |(at, len, entry)| Run {
            place: Piece::new(at, len),
            entry,
            guest: None,
            is_metadata: true,
            // The L1 table is written in whole sectors.
            padding: if entry == L1_FIELD { len.next_multiple_of(512) - len } else { 0 },
        })
    }

    /// Looks at every entry by itself, and gathers the places that they name.
    pub(super) fn first(
        &self,
        places: &mut Places,
        mender: &mut Mender<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let geometry = &self.image.geometry;
        let file_len = self.file_len()?;
        let mut sums = Sums::default();
        let mut buffers = Buffers::new(geometry.cluster());
        self.each(&mut |entry| {
            let Some(cluster) = geometry.decode(entry.value) else {
                let text = format!("the L2 entry is {:#x}", entry.value);
                teller.corrupt("l2-entry-invalid", entry.at, Some(entry.guest), text);
                return Ok(());
            };
            let Some(run) = self.run_of(entry, cluster) else { return Ok(()) };
            sums.add(&run, cluster);
            let at = HostOffset(run.place.at);
            match cluster {
                Cluster::Packed { .. } if run.place.end > file_len => {
                    let text = format!("the stream at {at} reaches behind the end of the file");
                    teller.corrupt("compressed-past-end", entry.at, run.guest, text);
                }
                Cluster::Packed { len, .. } => {
                    if let Err(why) = buffers.decode(self.image, at, len)? {
                        let text = format!("the stream at {at} of {len} bytes is broken: {why}");
                        teller.corrupt("compressed-broken", entry.at, run.guest, text);
                    }
                }
                _ if run.place.at >= file_len => {
                    let text = format!("the cluster at {at} lies behind the end of the file");
                    let harmless = self.image.header.backing_file.is_none();
                    let finding = mend::past_end(entry.at, run.guest, text, harmless);
                    return mender.clear_entry(entry.at, finding, teller);
                }
                // What lies behind the end of the disk need not be there.
                _ if run.place.at + entry.guest.len() > file_len => {
                    let place = Piece::new(at, entry.guest.len());
                    let lost = entry.guest.skip(file_len - place.at);
                    let (kind, what, entry) = ("cluster-cut", "cluster", entry.at);
                    mender.fill_up(&Cut { kind, what, entry, place, lost }, teller)?;
                }
                _ => {}
            }
            places.gather(run);
            Ok(())
        })?;
        let report = &mut teller.report;
        report.total_clusters = Some(self.image.size().div_ceil(geometry.cluster()));
        report.allocated_clusters = Some(sums.allocated);
        report.compressed_clusters = Some(sums.compressed);
        report.fragmented_clusters = Some(sums.fragmented);
        Ok(())
    }

    /// Tells of `count` clusters that nothing names, if a table is lost that may have named them; and of an
    /// L1 table in which the file ends. Whether anything may have been lost with a table.
    pub(super) fn tell_lost(
        &self,
        count: u64,
        mender: &mut Mender<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<bool> {
        let geometry = &self.image.geometry;
        let l1 = whole_l1(self.image);
        let file_len = self.file_len()?;
        let (at, kind, text) = if count > 0 && l1.end > file_len {
            let text = format!(
                "the L1 table ends at {}, behind the end of the file at {}: nothing names {count} \
                 clusters",
                HostOffset(l1.end),
                HostOffset(file_len)
            );
            (L1_FIELD, "l1-table-past-end", text)
        } else if l1.end > file_len {
            self.tell_l1_cut(l1, mender, teller)?;
            return Ok(false);
        } else if self.tables.is_empty() && !can_be_leaks(count * geometry.cluster(), 0) {
            // Discarding leaves the tables where they are.
            let text = format!(
                "the L1 table names nothing, and there are {count} clusters: it may be damaged"
            );
            (l1.at(), "tables-lost", text)
        } else {
            return Ok(false);
        };
        teller.corrupt(kind, at, Some(GuestRange::whole(self.image.size())), text);
        Ok(true)
    }

    /// Tells of an L1 table in which the file ends, or behind its end, where no cluster is without a name.
    fn tell_l1_cut(
        &self,
        l1: Piece,
        mender: &mut Mender<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let all = GuestRange::whole(self.image.size());
        let Some(there) = self.file_len()?.checked_sub(l1.at) else {
            let text = format!("the L1 table at {} lies behind the end of the file", l1.at());
            teller.corrupt("l1-table-past-end", L1_FIELD, Some(all), text);
            return Ok(());
        };
        let lost = all.skip((there / ENTRY).saturating_mul(self.image.geometry.coverage()));
        let (kind, what, entry, place) = ("l1-table-cut", "L1 table", L1_FIELD, l1);
        mender.fill_up(&Cut { kind, what, entry, place, lost }, teller)
    }

    /// Calls `each` for all places that entries name.
    pub(super) fn again(&self, each: &mut dyn FnMut(Run)) -> Result<()> {
        self.each(&mut |entry| {
            let cluster = self.image.geometry.decode(entry.value);
            if let Some(run) = cluster.and_then(|cluster| self.run_of(entry, cluster)) {
                each(run);
            }
            Ok(())
        })
    }

    fn run_of(&self, entry: Entry, cluster: Cluster) -> Option<Run> {
        let place = match cluster {
            Cluster::Absent => return None,
            Cluster::Data(at) => Piece::new(at, self.image.geometry.cluster()),
            Cluster::Packed { at, len } => Piece::new(at, len.into()),
        };
        let guest = Some(entry.guest);
        Some(Run { place, entry: entry.at, guest, is_metadata: false, padding: 0 })
    }
}

/// What a report counts.
#[derive(Default)]
struct Sums {
    allocated: u64,
    compressed: u64,
    fragmented: u64,
    end: Option<u64>,
}

impl Sums {
    fn add(&mut self, run: &Run, cluster: Cluster) {
        self.allocated += 1;
        self.compressed += u64::from(matches!(cluster, Cluster::Packed { .. }));
        self.fragmented += u64::from(self.end.is_some_and(|end| end != run.place.at));
        self.end = Some(run.place.end);
    }
}

/// Room for one stream and its cluster.
struct Buffers {
    packed: Vec<u8>,
    cluster: Vec<u8>,
    decoder: anydisk_codec::Decoder,
}

impl Buffers {
    fn new(cluster: u64) -> Self {
        let len = usize::try_from(cluster).expect("at most 64 KiB");
        Self { packed: Vec::new(), cluster: vec![0; len], decoder: anydisk_codec::Decoder::new() }
    }

    /// Whether a stream holds a cluster.
    fn decode(
        &mut self,
        image: &QcowImage,
        at: HostOffset,
        len: u32,
    ) -> Result<Result<(), anydisk_core::DecodeError>> {
        self.packed.resize(len as usize, 0);
        image.store.read_padded_at(at, &mut self.packed)?;
        let decoded = self.decoder.decode(Codec::Deflate, &self.packed, &mut self.cluster);
        Ok(decoded.map(drop))
    }
}

/// The L1 table, as long as the header makes it.
fn whole_l1(image: &QcowImage) -> Piece {
    Piece::new(image.geometry.l1_table(), image.geometry.l1_entries() * ENTRY)
}

/// The L1 table up to the first byte that one of its entries names. Its length comes from the size of the
/// disk, which one wrong bit makes any: what lies behind is then no entries, but tables and data.
fn trusted_l1(image: &QcowImage, teller: &mut Teller<'_>) -> Result<Piece> {
    let whole = whole_l1(image);
    let mut trusted = whole;
    let mut by = None;
    each_word(image, whole.at(), whole.end - whole.at, &mut |at, entry| {
        if at.get() < trusted.end
            && let Ok(Some(table)) = image.geometry.table(entry)
            && Piece::new(table, image.geometry.l2_len()).meets(trusted)
        {
            trusted.end = table.get().max(at.get() + ENTRY);
            by = Some((at, table));
        }
        Ok(())
    })?;
    if let Some((at, table)) = by {
        teller
            .doubt_header(image, &format!("the L2 table at {table} that its entry at {at} names"));
    }
    Ok(trusted)
}

fn check_count(tables: usize) -> Result<()> {
    let what = "number of L2 tables of an image to be checked";
    check_limit(NAME, what, tables as u64, limits::TABLES)
}
