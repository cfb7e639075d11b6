//! The image: locate (pure), load the table (I/O elsewhere), answer (pure).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anydisk_core::{
    Access, BackingLink, Encoded, Error, Extent, GuestOffset, GuestRange, HostOffset, Id, Image,
    ImageInfo, ImageWrite, Lease, Limits, Lookup, Need, OpenRequest, Reference, Resize, Result,
    Role, Source, Supplied, TableCache, Ticket, Unwritten,
};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::descriptor::Descriptor;
use crate::extent::{Body, File, Flat, Packed, Part, Sparse};
use crate::growing::Growing;
use crate::layout::GrainMarker;
use crate::open::{self, Assembly};
use crate::second::Twice;
use crate::table::{Grain, SLICE, SliceAt, WIDE_ENTRY, run};
use crate::write::Writer;
use crate::{codec, info, limits};

/// Memory for the places and lengths of packed grains, in bytes: those of 256 MiB of disk.
const MARKER_CACHE: usize = 64 << 10;

/// A VMDK: one link of a chain, of one or more extents.
#[derive(Debug)]
pub struct VmdkImage {
    pub(crate) files: Growing<File>,
    /// The file of which metadata was needed last.
    last_file: AtomicUsize,
    /// In guest order without gaps; those that resizing cut off are empty.
    pub(crate) parts: Growing<Part>,
    backing: Option<Reference>,
    /// Slices of grain directories and tables, by [`key`].
    pub(crate) tables: TableCache,
    /// What stands before packed grains (sector, length), by [`key`].
    markers: TableCache,
    pub(crate) unwritten: Unwritten,
    pub(crate) writer: Option<Writer>,
    info: ImageInfo,
    warnings: Vec<String>,
}

/// What one look at the tables tells about the start of a range.
#[derive(Debug)]
pub(crate) enum Look<'a> {
    /// Metadata is missing.
    Need(Need<'a>),
    /// No table: nothing is there for so many bytes.
    NoTable(u64),
    /// `answer` holds for `len` bytes.
    Run { answer: Grain, len: u64, slice: SliceAt },
}

impl VmdkImage {
    /// Opens the image that the request names, with the extents it is made of.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] and [`Error::Limit`] for what the files say,
    /// [`Error::Denied`] for extents that the resolver does not open, [`Error::ReadOnly`] and
    /// [`Error::NeedsRepair`] for images that cannot be written as asked.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, true)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<Self> {
        let assembly = open::assemble(request)?;
        if request.access == Access::ReadWrite {
            assembly.check_size()?;
        }
        let info = info::of(&assembly);
        let Assembly { files, parts, descriptor, room, warnings } = assembly;
        let packed = parts.iter().any(Part::is_packed);
        let mut image = Self {
            backing: backing(&descriptor),
            tables: table_cache(&parts, request.limits),
            markers: TableCache::new(2, if packed { MARKER_CACHE } else { 0 }),
            unwritten: Unwritten::default(),
            writer: None,
            files: files.into(),
            last_file: AtomicUsize::new(0),
            parts: parts.into(),
            info,
            warnings,
        };
        if request.access == Access::ReadWrite {
            // What was written to make it must be flushed too.
            image.files.iter().for_each(|file| file.used.store(is_new, Relaxed));
            let writer = Writer::new(&image, descriptor, room, is_new, request.limits)?;
            image.writer = Some(writer);
        }
        Ok(image)
    }

    /// Bytes of a grain, the largest if extents differ.
    pub(crate) fn grain(&self) -> Option<u64> {
        self.info.cluster_size
    }

    /// The image below, as the descriptor named it when it was opened.
    #[must_use]
    pub fn backing(&self) -> Option<&Reference> {
        self.backing.as_ref()
    }

    /// What a person should know of the image, though it opened.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The part that holds the start of `range`, its number, and what of the range lies in it.
    #[inline]
    pub(crate) fn part_at(&self, range: GuestRange) -> Result<(usize, &Part, GuestRange)> {
        let start = range.start();
        let index = self.parts.partition_point(|part| part.range().end() <= start);
        match self.parts.get(index) {
            Some(part) => Ok((index, part, range.before(part.range().end()))),
            None => Err(Error::OutOfRange { range, size: self.size() }),
        }
    }

    #[inline]
    fn map_flat(&self, part: &Part, flat: &Flat, range: GuestRange) -> Result<Lookup<'_>> {
        let place = flat.place(part.offset_of(range));
        let (at, rest) = place.map_err(|error| self.in_file_of(part, error))?;
        let store = &self.files[flat.file].store;
        let source = Source::Data { store, at, shared: false };
        let len = range.len().min(rest);
        Ok(Lookup::Found(Extent { len, source, lease: Lease::eternal() }))
    }

    /// Names the file that the error is about, where it is not the one that was opened.
    #[cold]
    pub(crate) fn in_file_of(&self, part: &Part, error: Error) -> Error {
        match part.file().filter(|file| *file != 0) {
            Some(file) => error.within(&self.files[file].name),
            None => error,
        }
    }

    #[inline]
    fn map_sparse<'a>(
        &'a self,
        part: &Part,
        sparse: &'a Sparse,
        range: GuestRange,
    ) -> Result<Lookup<'a>> {
        let lease = sparse.lease();
        if let Some(at) = self.plain_grain(sparse, part.offset_of(range), range.len()) {
            let store = &self.files[sparse.file].store;
            let source = Source::Data { store, at, shared: false };
            return Ok(Lookup::Found(Extent { len: range.len(), source, lease }));
        }
        self.map_entry(part, sparse, range, lease).map_err(|error| self.in_file_of(part, error))
    }

    /// What the entry says, if it is not the place of a grain that lies there as it is.
    fn map_entry<'a>(
        &'a self,
        part: &Part,
        sparse: &'a Sparse,
        range: GuestRange,
        lease: Lease<'a>,
    ) -> Result<Lookup<'a>> {
        let (answer, len, slice) = match self.look(part, sparse, range)? {
            Look::Need(need) => {
                return Ok(match self.unwritten_len(sparse, part.offset_of(range))? {
                    Some(len) => found(len.min(range.len()), Source::Absent { reserved: None }),
                    None => Lookup::Need(need),
                });
            }
            Look::NoTable(len) => return Ok(found(len, Source::Absent { reserved: None })),
            Look::Run { answer, len, slice } => (answer, len, slice),
        };
        let entry_at = slice.entry_at();
        let within = part.offset_of(range) & (sparse.geometry().grain() - 1);
        match answer {
            Grain::Absent => Ok(found(len, Source::Absent { reserved: None })),
            Grain::Zero => Ok(found(len, Source::Zero { reserved: None })),
            Grain::Broken(entry) => Err(sparse.broken(entry_at, entry)),
            Grain::Sector(sector) if sparse.packed == Packed::No => {
                let at = sparse.grain_at(sector, 1, entry_at)?.saturating_add(within);
                // Where the file was cut off, what lies before the cut is there.
                let len = len.min(sparse.bytes_before_end(at)?);
                let store = &self.files[sparse.file].store;
                let source = Source::Data { store, at, shared: false };
                Ok(Lookup::Found(Extent { len, source, lease }))
            }
            Grain::Sector(sector) => {
                let at = sparse.grain_at(sector, 1, entry_at)?;
                let range = range.first(len);
                match self.map_packed(part, sparse, range, at, lease) {
                    Err(error) => self.map_second(part, sparse, range, at)?.ok_or(error),
                    found => found,
                }
            }
        }
    }

    /// The packed grain that the second table names, where the first names another one at `first`.
    #[cold]
    fn map_second<'a>(
        &'a self,
        part: &Part,
        sparse: &'a Sparse,
        range: GuestRange,
        first: HostOffset,
    ) -> Result<Option<Lookup<'a>>> {
        let place = sparse.geometry().locate(part.offset_of(range));
        if !self.has_second(sparse) {
            return Ok(None);
        }
        let table = match self.second_table(sparse, place.table) {
            Ok(Table::Need(need)) => return Ok(Some(Lookup::Need(need))),
            Ok(Table::At(table)) => table,
            _ => return Ok(None),
        };
        let slice = sparse.geometry().table_slice(table, place.entry);
        let seen = self.tables.read(key(sparse.file, slice.at), |entries| {
            sparse.decode(entries.get(slice.index as usize))
        });
        let at = match seen {
            None => return Ok(Some(Lookup::Need(self.need_table(sparse, slice)))),
            Some(Grain::Sector(sector)) => sparse.grain_place(sector, 1),
            Some(_) => None,
        };
        let Some(at) = at.filter(|at| *at != first) else { return Ok(None) };
        Ok(self.map_packed(part, sparse, range, at, sparse.lease()).ok())
    }

    /// Where `len` bytes lie that are `from_start` bytes into an extent, if they are part of one grain
    /// that is stored plainly and the tables are in memory. This is the way of nearly every small
    /// read; whatever else there is, the long way tells.
    #[inline(always)]
    pub(crate) fn plain_grain(
        &self,
        sparse: &Sparse,
        from_start: u64,
        len: u64,
    ) -> Option<HostOffset> {
        let geometry = sparse.division();
        let place = geometry.locate(from_start);
        if sparse.packed != Packed::No || place.within + len > geometry.grain() {
            return None;
        }
        let table =
            sparse.known.get(place.table).or_else(|| self.get_to_know(sparse, place.table))?;
        let slice = geometry.table_slice(table, place.entry);
        let key = key(sparse.file, slice.at);
        let entry = self.tables.read(key, |entries| entries.get(slice.index as usize))?;
        let Grain::Sector(sector) = sparse.decode(entry) else { return None };
        let at = sparse.grain_place(sector, 1)?.saturating_add(place.within);
        (at.saturating_add(len) <= sparse.end()).then_some(at)
    }

    /// Where table number `number` is, if the directory is in memory and names it; remembered for
    /// the next look.
    #[cold]
    fn get_to_know(&self, sparse: &Sparse, number: u64) -> Option<HostOffset> {
        let age = sparse.known.age();
        let Ok(Table::At(table)) = self.table(sparse, number) else { return None };
        sparse.known.put(age, number, table);
        Some(table)
    }

    /// The tables' answer for the start of `range`, which lies in `part`.
    #[inline]
    pub(crate) fn look<'a>(
        &'a self,
        part: &Part,
        sparse: &'a Sparse,
        range: GuestRange,
    ) -> Result<Look<'a>> {
        let geometry = &sparse.geometry();
        let from_start = part.offset_of(range);
        let place = geometry.locate(from_start);
        let table = match self.table(sparse, place.table)? {
            Table::Need(need) => return Ok(Look::Need(need)),
            Table::Absent(count) => {
                let covered = count.saturating_mul(geometry.coverage());
                let end = (from_start & !(geometry.coverage() - 1)).saturating_add(covered);
                return Ok(Look::NoTable(range.len().min(end - from_start)));
            }
            Table::At(table) => table,
        };
        let slice = geometry.table_slice(table, place.entry);
        let grains = sparse.grains_of(place.within + range.len());
        let end = slice.index.saturating_add(grains).min(slice.count);
        let step = sparse.grain_sectors();
        let seen = self.tables.read(key(sparse.file, slice.at), |entries| {
            run(|index| sparse.decode(entries.get(index as usize)), slice.index, end, step)
        });
        let Some((mut answer, mut count)) = seen else {
            return Ok(Look::Need(self.need_table(sparse, slice)));
        };
        if self.is_doubted(sparse, answer) {
            match self.look_twice(sparse, place, table, (answer, count))? {
                Twice::Need(need) => return Ok(Look::Need(need)),
                Twice::Run(said, of) => (answer, count) = (said, of),
            }
        }
        if sparse.packed != Packed::No && matches!(answer, Grain::Sector(_)) {
            count = 1;
        }
        let len = (u64::from(count) * geometry.grain() - place.within).min(range.len());
        Ok(Look::Run { answer, len, slice })
    }

    /// Bytes from `from_start` on whose tables are known to be empty without being read: those of
    /// the slice that holds its entry, and of the tables behind it.
    fn unwritten_len(&self, sparse: &Sparse, from_start: u64) -> Result<Option<u64>> {
        // Else what the first directory says of the tables behind it counts.
        if !sparse.misled.is_empty() {
            return Ok(None);
        }
        let geometry = &sparse.geometry();
        let place = geometry.locate(from_start);
        let Table::At(table) = self.table(sparse, place.table)? else { return Ok(None) };
        let first = key(sparse.file, geometry.table_slice(table, place.entry).at);
        let Some(end) = self.unwritten.run_end(first) else { return Ok(None) };
        let len = geometry.table_len();
        let start = key(sparse.file, table);
        if start.saturating_add(len) > end {
            return Ok(None);
        }
        let slice = sparse.directory_slice(sparse.directory(), place.table);
        let is_in_run = |entry: u64| {
            let place = sparse.table_place(entry).map(|at| key(sparse.file, at));
            entry == 0 || place.is_some_and(|at| at >= start && at.saturating_add(len) <= end)
        };
        let others = self.tables.read(key(sparse.file, slice.at), |entries| {
            let behind = slice.index + 1..slice.count;
            behind.take_while(|index| is_in_run(entries.get(*index as usize))).count()
        });
        let tables = 1 + others.unwrap_or(0) as u64;
        let coverage = geometry.coverage();
        let end = (from_start & !(coverage - 1)).saturating_add(tables.saturating_mul(coverage));
        Ok(Some(end - from_start))
    }

    /// Where the grain table `number` is. A directory entry that cannot be, or that names none, is
    /// looked up in the second directory, if there is one.
    #[inline]
    pub(crate) fn table<'a>(&'a self, sparse: &'a Sparse, number: u64) -> Result<Table<'a>> {
        if sparse.is_misled(number) {
            return self.second_table(sparse, number);
        }
        let first = self.table_in(sparse, sparse.directory(), number);
        match first {
            Err(error) if sparse.redundant().is_some() => {
                self.second_table(sparse, number).map_err(|_| error)
            }
            Ok(Table::Absent(count)) if self.has_second(sparse) => {
                Ok(match self.second_table(sparse, number) {
                    Ok(Table::Absent(other)) => Table::Absent(count.min(other)),
                    Ok(answer) => answer,
                    Err(_) => Table::Absent(1),
                })
            }
            answer => answer,
        }
    }

    /// Where the grain table `number` is by the second directory, if there is one.
    pub(crate) fn second_table<'a>(&'a self, sparse: &'a Sparse, number: u64) -> Result<Table<'a>> {
        let Some(redundant) = sparse.redundant() else { return Ok(Table::Absent(1)) };
        let entry_len = sparse.geometry().entry_len();
        let at = redundant.saturating_add(number.saturating_mul(entry_len));
        // What was cut off is no entry of 0.
        match at.saturating_add(entry_len) <= sparse.end() {
            true => self.table_in(sparse, redundant, number),
            false => Err(sparse.outside("grain directory entry", at, 0).into()),
        }
    }

    #[inline]
    pub(crate) fn table_in<'a>(
        &'a self,
        sparse: &'a Sparse,
        directory: HostOffset,
        number: u64,
    ) -> Result<Table<'a>> {
        let slice = sparse.directory_slice(directory, number);
        let seen = self.tables.read(key(sparse.file, slice.at), |entries| {
            let absent = (slice.index..slice.count)
                .take_while(|index| entries.get(*index as usize) == 0)
                .count();
            (entries.get(slice.index as usize), absent as u64)
        });
        let Some((entry, absent)) = seen else {
            return Ok(Table::Need(self.need_table(sparse, slice)));
        };
        Ok(match sparse.table_at(entry, slice.entry_at())? {
            Some(table) => Table::At(table),
            None => Table::Absent(absent),
        })
    }

    /// A packed grain at `at`; its length stands before it.
    fn map_packed<'a>(
        &'a self,
        part: &Part,
        sparse: &'a Sparse,
        range: GuestRange,
        at: HostOffset,
        lease: Lease<'a>,
    ) -> Result<Lookup<'a>> {
        let store = &self.files[sparse.file].store;
        let head = sparse.packed.head();
        let place = key(sparse.file, at);
        let seen = self.markers.read(place, |pair| (pair.get(0), pair.get(1)));
        let Some((lba, size)) = seen else {
            let len = usize::try_from(head).expect("12 at most");
            let ticket = ticket(self.markers.ticket(place), Kind::Marker);
            return Ok(Lookup::Need(Need { store, at, len, least: len, ticket }));
        };
        let grain = sparse.geometry().grain();
        let from_start = part.offset_of(range) & !(grain - 1);
        let len = sparse.check_marker(at, from_start, lba, size)?;
        let start = GuestOffset(part.range().start().get() + from_start);
        // The last grain of an extent is packed short or whole, as its writer liked.
        let stored = grain.min(sparse.geometry().capacity() - from_start);
        let unit = GuestRange::between(start, GuestOffset(start.get().saturating_add(stored)));
        let unit = unit.before(part.range().end());
        let codec = codec::of_grain(unit.len(), grain);
        let at = at.saturating_add(head);
        let source = Source::Encoded(Encoded { store, at, len, codec, unit });
        Ok(Lookup::Found(Extent { len: range.len(), source, lease }))
    }

    /// The number of the file of a need: mostly that of the last one, or the next, where a disk of
    /// thousands of files is looked at from its start on.
    fn file_of(&self, need: &Need<'_>) -> Option<usize> {
        let is_it = |file: &File| Arc::ptr_eq(&file.store, need.store);
        let last = self.last_file.load(Relaxed);
        let near =
            [last, last + 1].into_iter().find(|file| self.files.get(*file).is_some_and(is_it));
        let found = near.or_else(|| self.files.iter().position(is_it));
        if let Some(file) = found.filter(|file| *file != last) {
            self.last_file.store(file, Relaxed);
        }
        found
    }

    pub(crate) fn need_table<'a>(&'a self, sparse: &Sparse, slice: SliceAt) -> Need<'a> {
        let place = key(sparse.file, slice.at);
        let kind = if slice.entry_len == WIDE_ENTRY { Kind::Wide } else { Kind::Table };
        let len = usize::try_from(slice.len()).expect("a slice is small");
        Need {
            store: &self.files[sparse.file].store,
            at: slice.at,
            len,
            least: len,
            ticket: ticket(self.tables.ticket(place), kind),
        }
    }
}

/// Where a grain table is.
pub(crate) enum Table<'a> {
    Need(Need<'a>),
    /// Nowhere, like so many in a row.
    Absent(u64),
    At(HostOffset),
}

/// The name of a place in one of the files. File numbers are limited by the number of extents.
pub(crate) fn key(file: usize, at: HostOffset) -> HostOffset {
    HostOffset((file as u64).wrapping_mul(limits::KEYS).wrapping_add(at.get()))
}

/// The file and place that a key names.
pub(crate) fn unkey(key: HostOffset) -> (usize, HostOffset) {
    let file = usize::try_from(key.get() / limits::KEYS).unwrap_or(usize::MAX);
    (file, HostOffset(key.get() % limits::KEYS))
}

/// What the bytes of a need are.
#[derive(Clone, Copy)]
enum Kind {
    /// Entries of 4 bytes.
    Table,
    /// Entries of 8 bytes.
    Wide,
    /// What stands before a packed grain.
    Marker,
}

/// The cache's ticket, beside two bits that tell the kind.
fn ticket(of: Ticket, kind: Kind) -> u64 {
    of.to_bits() << 2 | kind as u64
}

fn table_entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry).into())
}

fn wide_entries(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|entry| u64::from_le_bytes(*entry))
}

/// Sector and length of what stands before a packed grain.
pub(crate) fn marker(bytes: &[u8]) -> [u64; 2] {
    match GrainMarker::read_from_bytes(bytes) {
        Ok(marker) => [marker.lba.get(), marker.size.get().into()],
        Err(_) => [0, U32::read_from_bytes(bytes).map_or(0, |size| size.get().into())],
    }
}

fn found(len: u64, source: Source<'_>) -> Lookup<'_> {
    Lookup::Found(Extent::without_data(len, source))
}

pub(crate) fn backing(descriptor: &Descriptor) -> Option<Reference> {
    let parent = descriptor.parent.as_ref()?;
    let mut reference = Reference::new(Role::Backing, beside_us(&parent.name).to_vec());
    reference.format = Some(crate::NAME.to_owned());
    reference.content_id = parent.content_id.map(Id::from);
    Some(reference)
}

/// A path of a Windows host, or of a datastore of ESXi, means nothing here: what it calls the file is looked for
/// beside the image.
fn beside_us(name: &[u8]) -> &[u8] {
    let is_windows = name.contains(&b'\\') && !name.contains(&b'/');
    let is_datastore = name.starts_with(b"/vmfs/volumes/") || name.starts_with(b"[");
    let separator = match (is_windows, is_datastore) {
        (true, _) => b'\\',
        (_, true) => b'/',
        _ => return name,
    };
    let last = name.rsplit(|byte| *byte == separator).next();
    last.filter(|last| !last.is_empty()).unwrap_or(name)
}

impl Part {
    fn is_packed(&self) -> bool {
        matches!(&self.body, Body::Sparse(sparse) if sparse.packed != Packed::No)
    }
}

impl Image for VmdkImage {
    fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.range().end().get())
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let (_, part, range) = self.part_at(range)?;
        match &part.body {
            Body::Zero => Ok(found(range.len(), Source::Zero { reserved: None })),
            Body::Flat(flat) => self.map_flat(part, flat, range),
            Body::Sparse(sparse) => self.map_sparse(part, sparse, range),
        }
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let Some(file) = self.file_of(need) else { return Ok(Supplied::Taken) };
        let place = key(file, need.at);
        let came = Ticket::from_bits(need.ticket >> 2);
        let taken = match need.ticket & 3 {
            kind if kind == Kind::Marker as u64 => self.markers.insert(place, came, marker(bytes)),
            kind if kind == Kind::Wide as u64 => {
                self.tables.insert(place, came, wide_entries(bytes))
            }
            _ => self.tables.insert(place, came, table_entries(bytes)),
        };
        Ok(taken.into())
    }

    /// Beside reading the bytes, asks whether what follows them is a hole.
    fn satisfy(&self, need: &Need<'_>) -> Result<()> {
        if let Some(file) = self.file_of(need) {
            let end = HostOffset(self.files[file].metadata_end.load(Relaxed));
            let rest = end.checked_since(need.at).unwrap_or(0);
            self.unwritten.learn(&**need.store, need.at, key(file, need.at), rest)?;
        }
        match self.supply(need, &need.read()?)? {
            Supplied::Taken => Ok(()),
            Supplied::Full => self.relieve(),
        }
    }

    fn info(&self) -> ImageInfo {
        let mut info = self.info.clone();
        if let Some(writer) = &self.writer {
            writer.descriptor.read(|descriptor| info::set_ids(&mut info, descriptor));
        }
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writer.is_some().then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writer.is_some().then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writer.is_some().then_some(self)
    }
}

/// A cache for the tables of all extents: as large as allowed, or with room for eight times what
/// there can be, so that few slices meet in one set. An empty slot costs little.
fn table_cache(parts: &[Part], limits: &Limits) -> TableCache {
    let slices = parts.iter().map(|part| match &part.body {
        Body::Sparse(sparse) => sparse.geometry().slices(),
        _ => 0,
    });
    let slice = SLICE as usize * size_of::<u64>();
    let all = slices.fold(0, u64::saturating_add).saturating_mul(8 * slice as u64);
    let bytes = usize::try_from(all).unwrap_or(usize::MAX).min(limits.table_cache);
    TableCache::new(SLICE as usize, bytes)
}

#[cfg(test)]
mod tests {
    use super::beside_us;

    #[test]
    fn paths_of_other_hosts_are_what_they_call_the_file() {
        for (name, expected) in [
            ("base.vmdk", "base.vmdk"),
            ("../base.vmdk", "../base.vmdk"),
            ("/srv/base.vmdk", "/srv/base.vmdk"),
            ("C:\\VMs\\base.vmdk", "base.vmdk"),
            ("/vmfs/volumes/5f1-2/vm/base.vmdk", "base.vmdk"),
            ("[datastore1] vm/base.vmdk", "base.vmdk"),
            ("[1] base.vmdk", "[1] base.vmdk"),
        ] {
            assert_eq!(beside_us(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }
}
