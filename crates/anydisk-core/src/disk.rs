//! A disk: an image over the images below it. The only read loop and the only write loop.

use std::io::IoSlice;
use std::sync::Arc;

use anydisk_codec::{Decoded, Decoders};
use anydisk_storage::{Holes, HostOffset, Identity, Run, Space, Storage, StorageExt, is_zero};

use crate::decoded::{DecodedCache, UnitKey};
use crate::held;
use crate::image::{check_range, read_only};
use crate::{
    Attempt, Below, Chosen, Companions, Encoded, Error, Extent, Feature, GuestOffset, GuestRange,
    Handled, Image, ImageWrite, Limits, Location, Lookup, Need, NewSize, NoCompanions, Placement,
    Preallocation, Reference, Reservation, Reserved, Result, SnapshotRef, Source, Supplied,
    Zeroing,
};

/// One image of a disk, with how it came to be there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Layer {
    /// The image.
    pub image: Arc<dyn Image>,
    /// Where it was found.
    pub location: Location,
    /// How its format was chosen.
    pub chosen: Chosen,
    /// What it names as the image below, followed or not.
    pub backing: Option<Reference>,
    /// What a person should know of the image, though it opened; see [`Opened::warnings`](crate::Opened::warnings).
    pub warnings: Vec<String>,
}

impl Layer {
    /// A layer that was not opened from a file.
    #[must_use]
    pub fn new(image: Arc<dyn Image>, name: &str) -> Self {
        let location = Location::Other(name.to_owned());
        Self { image, location, chosen: Chosen::Named, backing: None, warnings: Vec::new() }
    }
}

/// A disk as the guest sees it: the top image, and below it the images that show through.
///
/// `&self` reads and writes, from any number of threads. A disk is also a [`Storage`], so an image
/// can lie in an image.
#[derive(Debug)]
pub struct Disk {
    layers: Vec<Layer>,
    decoded: DecodedCache,
    decoders: Decoders,
    name: String,
    /// What reads as zero behind the end of a file.
    padding: Padding,
}

/// What reads as zero behind the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// Everything.
    All,
    /// The rest of the unit in which it ends, where the format lets a writer leave that out.
    LastUnit,
    /// Nothing.
    Nothing,
}

/// What the whole disk says about a guest range.
#[derive(Debug)]
pub struct DiskExtent<'a> {
    /// Index of the layer that answers; 0 is the top. For [`Source::Absent`], which only the
    /// lowest can answer, the lowest that was asked.
    pub layer: usize,
    /// Its answer. [`Source::Absent`] reads as zero: nothing lies below.
    pub extent: Extent<'a>,
}

/// The answer of [`Disk::map_cached`].
#[derive(Debug)]
#[must_use]
pub enum DiskLookup<'a> {
    /// The extent.
    Found(DiskExtent<'a>),
    /// Metadata is missing: read it, [supply](Disk::supply) it, ask again.
    Need(DiskNeed<'a>),
}

/// Metadata of one layer, to be read before a question can be answered.
#[derive(Clone, Copy, Debug)]
pub struct DiskNeed<'a> {
    /// Index of the layer.
    pub layer: usize,
    /// What to read.
    pub need: Need<'a>,
}

impl Disk {
    /// A disk of one image.
    #[must_use]
    pub fn new(image: Arc<dyn Image>) -> Self {
        let name = image.info().format;
        Self::from_layers(vec![Layer::new(image, name)], &Limits::default())
    }

    /// A disk of several images, the top one first.
    ///
    /// # Panics
    /// If there is no layer.
    #[must_use]
    pub fn from_layers(layers: Vec<Layer>, limits: &Limits) -> Self {
        assert!(!layers.is_empty(), "a disk has a top image");
        let name = layers[0].location.to_string();
        Self {
            layers,
            decoded: DecodedCache::new(limits.decoded_cache),
            decoders: Decoders::new(),
            name,
            padding: Padding::All,
        }
    }

    /// The same disk, in which tables and data behind the end of a file that was cut off are errors.
    /// In every other disk they read as zeroes, because formats allow it of the last unit and
    /// programs rely on it.
    ///
    /// Tables that were read before count as they were read.
    #[must_use]
    pub fn unpadded(&self) -> Self {
        Self { padding: Padding::Nothing, ..self.with_layers(self.layers.clone()) }
    }

    /// As [`unpadded`](Self::unpadded), but what is missing of the unit in which a file ends reads as
    /// zeroes where the format [allows](crate::ImageInfo::loose_end) it.
    #[must_use]
    pub fn unpadded_but_for_last_unit(&self) -> Self {
        Self { padding: Padding::LastUnit, ..self.unpadded() }
    }

    /// The same disk under another image: writes go to `top`.
    #[must_use]
    pub fn overlaid(mut self, top: Layer) -> Self {
        self.name = top.location.to_string();
        self.layers.insert(0, top);
        // Decoded units are kept by layer number, which has just moved.
        self.decoded.clear();
        self
    }

    /// The disk as it was at a snapshot of its top image: a disk of its own, read-only, over the same
    /// layers below. This one goes on beside it; the snapshot cannot be deleted while it is open.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the format has no snapshots; [`Error::NotFound`]; what the image
    /// says of its tables.
    pub fn at_snapshot(&self, which: &SnapshotRef) -> Result<Self> {
        let Some(snapshots) = self.top().snapshots() else {
            let format = self.top().info().format;
            return Err(Error::Unsupported { format, feature: Feature::Snapshots });
        };
        let mut layers = self.layers.clone();
        layers[0].image = snapshots.open(which)?;
        Ok(self.with_layers(layers))
    }

    /// A disk like this one, of other layers, with caches of its own.
    fn with_layers(&self, layers: Vec<Layer>) -> Self {
        Self {
            layers,
            decoded: self.decoded.of_same_size(),
            decoders: Decoders::new(),
            name: self.name.clone(),
            padding: self.padding,
        }
    }

    /// The images, the top one first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The top image.
    #[must_use]
    pub fn top(&self) -> &dyn Image {
        &*self.layers[0].image
    }

    /// Virtual size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.top().size()
    }

    /// Whether the disk can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.top().writer().is_some()
    }

    /// What lies below the top image, whether it is open here or not.
    #[must_use]
    pub fn below(&self) -> Below {
        let is_named = self.layers.len() > 1 || self.layers[0].backing.is_some();
        if is_named { Below::Image } else { Below::Nothing }
    }

    /// The extent at the start of `range`, from memory alone. Never [`Source::Absent`] while a
    /// layer below has an answer.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], or what a layer says of its tables.
    pub fn map_cached(&self, range: GuestRange) -> Result<DiskLookup<'_>> {
        check_range(range, self.size())?;
        self.look_from(0, range)
    }

    /// Takes the bytes of `need.need`, whatever question it came from; see [`Image::supply`].
    pub fn supply(&self, need: &DiskNeed<'_>, bytes: &[u8]) -> Result<Supplied> {
        match self.layers.get(need.layer) {
            Some(layer) => layer.image.supply(&need.need, bytes),
            None => Ok(Supplied::Taken),
        }
    }

    /// Makes room for tables of the layer that answered [`Supplied::Full`]. Blocks.
    pub fn relieve(&self, layer: usize) -> Result<()> {
        self.layers.get(layer).map_or(Ok(()), |layer| layer.image.relieve())
    }

    /// The extent at the start of `range`, reading metadata as needed.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], or what a layer says of its tables.
    pub fn map(&self, range: GuestRange) -> Result<DiskExtent<'_>> {
        check_range(range, self.size())?;
        self.map_from(0, range)
    }

    /// As [`map`](Self::map), and holes of the host file are told as zero: what a copy or an
    /// allocation map wants to know. Asks the file system; not for small reads.
    ///
    /// # Errors
    /// As [`map`](Self::map), and those of asking for holes.
    pub fn status(&self, range: GuestRange) -> Result<DiskExtent<'_>> {
        let mut found = self.map(range)?;
        let Source::Data { store, at, .. } = found.extent.source else { return Ok(found) };
        let Some(holes) = store.holes() else { return Ok(found) };
        let run = holes.run_at(at, found.extent.len)?;
        found.extent.len = found.extent.len.min(run.len.max(1));
        if run.hole {
            found.extent.source = Source::Zero { reserved: Some(at) };
        }
        Ok(found)
    }

    #[inline]
    fn is_padded(&self) -> bool {
        self.padding == Padding::All
    }

    fn map_from(&self, first: usize, range: GuestRange) -> Result<DiskExtent<'_>> {
        loop {
            match self.look_from(first, range)? {
                DiskLookup::Found(found) if self.is_padded() => return Ok(found),
                DiskLookup::Found(found) => {
                    return held::first_part(&self.layers, found, self.padding);
                }
                DiskLookup::Need(DiskNeed { layer, need }) => {
                    if !self.is_padded() {
                        held::check_table(&self.layers[layer], &need)?;
                    }
                    self.layers[layer].image.satisfy(&need)?;
                }
            }
        }
    }

    /// Walks down the chain until a layer answers.
    fn look_from(&self, first: usize, mut range: GuestRange) -> Result<DiskLookup<'_>> {
        let mut absent = None;
        for (index, layer) in self.layers.iter().enumerate().skip(first) {
            let inside = range.before(GuestOffset(layer.image.size()));
            if inside.is_empty() {
                break; // Behind the end of a shorter layer: zero.
            }
            match layer.image.map_cached(inside)? {
                Lookup::Need(need) => return Ok(DiskLookup::Need(DiskNeed { layer: index, need })),
                Lookup::Found(extent) if extent.len == 0 => {
                    let format = layer.image.info().format;
                    let feature = "an extent without bytes".into();
                    return Err(Error::Unsupported { format, feature });
                }
                Lookup::Found(extent) => {
                    range = inside.first(extent.len);
                    let found = DiskExtent { layer: index, extent };
                    if !matches!(found.extent.source, Source::Absent { .. }) {
                        return Ok(DiskLookup::Found(found));
                    }
                    absent = Some(found);
                }
            }
        }
        let mut found = absent.unwrap_or_else(|| DiskExtent {
            layer: first,
            extent: Extent::without_data(range.len(), Source::Absent { reserved: None }),
        });
        found.extent.len = range.len();
        Ok(DiskLookup::Found(found))
    }

    /// Reads `buf` from guest offset `at`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] past the end of the disk; what a layer, its store or a decoder says.
    pub fn read(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        let range = self.range_of(at, buf.len())?;
        self.read_from(0, range, buf)
    }

    /// The read loop.
    fn read_from(&self, first: usize, mut range: GuestRange, mut buf: &mut [u8]) -> Result<()> {
        while !range.is_empty() {
            let done = match self.read_cached_data(first, range, buf)? {
                0 => self.read_mapped(first, range, buf)?,
                done => done,
            };
            range = range.skip(done);
            buf = &mut buf[bytes_of(done)..];
        }
        Ok(())
    }

    /// Reads what layer `first` holds as plain data at the start of `range`, if its tables are in
    /// memory. Returns the bytes read, 0 if it is something else.
    ///
    /// This is the way of nearly every read. The answer is looked at where it lies: moving it costs
    /// as much as finding it.
    #[inline]
    fn read_cached_data(&self, first: usize, range: GuestRange, buf: &mut [u8]) -> Result<u64> {
        let Some(layer) = self.layers.get(first).filter(|_| self.is_padded()) else { return Ok(0) };
        let inside = match first {
            0 => range, // Known to lie on the disk.
            _ => range.before(GuestOffset(layer.image.size())),
        };
        if inside.is_empty() {
            return Ok(0);
        }
        match &layer.image.map_cached(inside) {
            Ok(Lookup::Found(Extent { len, source: Source::Data { store, at, .. }, lease: _ })) => {
                let part = inside.first(*len).len();
                store.read_padded_at(*at, &mut buf[..bytes_of(part)])?;
                Ok(part)
            }
            _ => Ok(0), // Whatever it is, it is asked for again.
        }
    }

    /// Reads the start of `range`, whatever it is. Returns the bytes read.
    fn read_mapped(&self, first: usize, range: GuestRange, buf: &mut [u8]) -> Result<u64> {
        let found = self.map_from(first, range)?;
        let part = range.first(found.extent.len);
        self.read_extent(&found, part, &mut buf[..bytes_in(part)])?;
        Ok(part.len())
    }

    fn read_extent(&self, found: &DiskExtent<'_>, part: GuestRange, out: &mut [u8]) -> Result<()> {
        match &found.extent.source {
            Source::Data { store, at, .. } => Ok(store.read_padded_at(*at, out)?),
            Source::Zero { .. } | Source::Absent { .. } => {
                out.fill(0);
                Ok(())
            }
            Source::Encoded(encoded) => self.read_encoded(found, encoded, part, out),
        }
    }

    fn read_encoded(
        &self,
        found: &DiskExtent<'_>,
        encoded: &Encoded<'_>,
        part: GuestRange,
        out: &mut [u8],
    ) -> Result<()> {
        let unit = encoded.unit;
        if part == unit {
            return self.unpack(encoded, out);
        }
        let generation = found.extent.lease.generation();
        let (at, len) = (encoded.at, encoded.len);
        let key = UnitKey { layer: found.layer, unit: unit.start(), at, len, generation };
        let bytes = match self.decoded.get(&key) {
            Some(bytes) => bytes,
            None => self.decode_into_cache(key, encoded)?,
        };
        let skip = bytes_in(GuestRange::between(unit.start(), part.start()));
        out.copy_from_slice(&bytes[skip..skip + out.len()]);
        Ok(())
    }

    fn decode_into_cache(&self, key: UnitKey, encoded: &Encoded<'_>) -> Result<Arc<[u8]>> {
        let mut bytes = vec![0; bytes_in(encoded.unit)];
        self.unpack(encoded, &mut bytes)?;
        let bytes = Arc::from(bytes);
        self.decoded.put(key, &bytes);
        Ok(bytes)
    }

    /// Reads the packed bytes of a unit and decodes them.
    fn unpack(&self, encoded: &Encoded<'_>, out: &mut [u8]) -> Result<()> {
        let packed = read_packed(encoded)?;
        if !self.is_padded()
            && let Some(held) = held::packed(encoded, &packed)?
        {
            // A stream that goes on behind the end of the file may decode with zeroes there.
            self.decode(encoded, held, out)?;
        }
        self.decode(encoded, &packed, out)?;
        Ok(())
    }

    /// Writes `data` to guest offset `at`. Durable after the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Error::ReadOnly`], also if the rest of a unit lies in an image below that is not open;
    /// [`Error::OutOfRange`], or what the top image or its store says; then any part of the data may
    /// have been written.
    pub fn write(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        let range = self.range_of(at, data.len())?;
        self.write_range(range, Payload::Bytes(data))
    }

    /// The write loop.
    fn write_range(&self, mut range: GuestRange, mut payload: Payload<'_>) -> Result<()> {
        let writer = self.writer()?;
        while !range.is_empty() {
            let done = match writer.place(range)? {
                Placement::InPlace { store, at, len, lease } => {
                    let part = range.first(len);
                    payload.write_to(&**store, at, part.len())?;
                    drop(lease);
                    part.len()
                }
                Placement::Fresh(reservation) => self.write_fresh(reservation, range, payload)?,
            };
            range = range.skip(done);
            payload = payload.skip(done);
        }
        Ok(())
    }

    /// Writes the part of `range` that the reservation covers, fills the rest of its units and
    /// commits. Returns how many bytes of `range` that was.
    fn write_fresh(
        &self,
        reservation: Reservation<'_>,
        range: GuestRange,
        payload: Payload<'_>,
    ) -> Result<u64> {
        let reserved = reservation.reserved();
        let part = range.before(reserved.range.end());
        let at = reserved.place_of(part.start());
        match payload {
            Payload::Bytes(data) => {
                let [head, tail] = reserved.edges(part);
                let (head, tail) = (self.edge(head, reserved)?, self.edge(tail, reserved)?);
                let start = if head.is_empty() { at } else { reserved.at };
                let data = &data[..bytes_in(part)];
                if head.is_empty() && tail.is_empty() {
                    reservation.store().write_at(start, data)?;
                } else {
                    let parts = [IoSlice::new(&head), IoSlice::new(data), IoSlice::new(&tail)];
                    reservation.store().write_vectored_at(start, &parts)?;
                }
            }
            Payload::Zeroes => {
                self.fill(&reservation, part)?;
                if !reserved.zeroed {
                    write_zeroes(&**reservation.store(), at, part.len())?;
                }
            }
        }
        reservation.commit()?;
        Ok(part.len())
    }

    /// What must be written beside the data: the old content of `edge`, or nothing if that is zero
    /// and the new space is zero already.
    fn edge(&self, edge: GuestRange, reserved: &Reserved) -> Result<Vec<u8>> {
        if edge.is_empty() {
            return Ok(Vec::new());
        }
        self.check_complete(edge)?;
        if reserved.zeroed && self.reads_as_zero(edge)? {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; bytes_in(edge)];
        self.read_from(0, edge, &mut bytes)?;
        if reserved.zeroed && is_zero(&bytes) {
            bytes.clear();
        }
        Ok(bytes)
    }

    /// Fails if an image that is not open here may hold some of `range`.
    fn check_complete(&self, mut range: GuestRange) -> Result<()> {
        let last = self.layers.len() - 1;
        let Some(missing) = &self.layers[last].backing else { return Ok(()) };
        while !range.is_empty() {
            let found = self.map(range)?;
            if found.layer == last && matches!(found.extent.source, Source::Absent { .. }) {
                let name = missing.display_name();
                let why = format!("{name}, which holds the bytes beside these, is not open");
                return Err(Error::ReadOnly { why: why.into() });
            }
            range = range.skip(found.extent.len);
        }
        Ok(())
    }

    /// Whether the tables alone tell that all of `range` is zero.
    fn reads_as_zero(&self, mut range: GuestRange) -> Result<bool> {
        while !range.is_empty() {
            let found = self.map(range)?;
            if !matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. }) {
                return Ok(false);
            }
            range = range.skip(found.extent.len);
        }
        Ok(true)
    }

    /// A place for the start of `range` in the top image (layer 0), from memory alone, for callers
    /// that do their own I/O. Before committing a reservation, [`fill`](Self::fill) what the data does not cover.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::OutOfRange`], or what the top image says.
    pub fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>> {
        check_range(range, self.size())?;
        self.writer()?.try_place(range)
    }

    /// Fills the units of a reservation, except `covered`, with what the disk holds there now.
    ///
    /// # Errors
    /// Those of reading, and of writing to the reservation's store.
    pub fn fill(&self, reservation: &Reservation<'_>, covered: GuestRange) -> Result<()> {
        let reserved = reservation.reserved();
        for edge in reserved.edges(covered) {
            let bytes = self.edge(edge, reserved)?;
            if !bytes.is_empty() {
                reservation.store().write_at(reserved.place_of(edge.start()), &bytes)?;
            }
        }
        Ok(())
    }

    /// Decodes a packed unit whose packed bytes the caller has read (`encoded.len` of them, zeroes
    /// past the end of the store). `out` takes the whole unit.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn decode(&self, encoded: &Encoded<'_>, packed: &[u8], out: &mut [u8]) -> Result<Decoded> {
        self.decoders.decode(encoded.codec, packed, out).map_err(|source| Error::Decode {
            range: encoded.unit,
            at: encoded.at,
            source,
        })
    }

    /// Makes `range` read as zero, by metadata where the format can, else by writing zeroes. With
    /// `unmap`, space is given back.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn zero(&self, range: GuestRange, unmap: bool) -> Result<()> {
        check_range(range, self.size())?;
        let writer = self.writer()?;
        let how = Zeroing { unmap, below: self.below() };
        let mut rest = range;
        while !rest.is_empty() {
            let done = match writer.zero(rest, how)? {
                Handled::Done(len) => len,
                Handled::ByData(len) => {
                    self.write_range(rest.first(len), Payload::Zeroes)?;
                    len
                }
            };
            rest = rest.skip(done);
        }
        Ok(())
    }

    /// Gives the space of `range` back where that can be done for whole units. What was discarded
    /// reads as zero; what could not be keeps its bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn discard(&self, range: GuestRange) -> Result<()> {
        check_range(range, self.size())?;
        let writer = self.writer()?;
        let mut rest = range;
        while !rest.is_empty() {
            let (Handled::Done(len) | Handled::ByData(len)) = writer.discard(rest, self.below())?;
            rest = rest.skip(len);
        }
        Ok(())
    }

    /// Returns when everything written, zeroed and discarded before is on stable storage.
    ///
    /// # Errors
    /// What the top image or its store says; then nothing is known about what was not flushed
    /// before.
    pub fn flush(&self) -> Result<()> {
        match self.top().writer() {
            Some(writer) => writer.flush(),
            None => Ok(()),
        }
    }

    /// Makes the disk `size` bytes long. New bytes read as zero, whatever lies below; shrinking
    /// drops what lies behind, and the caller guarantees that nothing is read or written there
    /// meanwhile. Durable after the next [`flush`](Self::flush) at the latest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the top image cannot; else as [`write`](Self::write).
    pub fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.resize_with(size, preallocation, &NoCompanions)
    }

    /// As [`resize`](Self::resize). An image of several files may need more of them, or fewer:
    /// `companions` makes and removes them.
    ///
    /// # Errors
    /// As [`resize`](Self::resize), and those of the maker.
    pub fn resize_with(
        &self,
        size: u64,
        preallocation: Preallocation,
        companions: &dyn Companions,
    ) -> Result<()> {
        self.writer()?;
        let Some(resizer) = self.top().resizer() else {
            let format = self.top().info().format;
            return Err(Error::Unsupported { format, feature: Feature::Resize });
        };
        let below = self.layers.get(1).map_or(0, |layer| layer.image.size());
        let zero = |range| self.zero(range, false);
        resizer.resize(&NewSize { size, preallocation, below, zero: &zero, companions })
    }

    fn writer(&self) -> Result<&dyn ImageWrite> {
        self.top().writer().ok_or_else(|| {
            read_only("it was opened for reading, or images of its kind are only read")
        })
    }

    fn range_of(&self, at: GuestOffset, len: usize) -> Result<GuestRange> {
        let len = len as u64;
        let size = self.size();
        let range = GuestRange::new(at, len).ok_or_else(|| Error::OutOfRange {
            range: GuestRange::between(at, GuestOffset(u64::MAX)),
            size,
        })?;
        check_range(range, size)?;
        Ok(range)
    }
}

/// What is written: bytes, or as many zeroes as the range is long.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Bytes(&'a [u8]),
    Zeroes,
}

impl Payload<'_> {
    fn skip(self, len: u64) -> Self {
        match self {
            Self::Bytes(data) => Self::Bytes(&data[usize::try_from(len).unwrap_or(data.len())..]),
            Self::Zeroes => Self::Zeroes,
        }
    }

    /// Writes the first `len` bytes.
    fn write_to(self, store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
        match self {
            Self::Bytes(data) => {
                Ok(store.write_at(at, &data[..usize::try_from(len).unwrap_or(0)])?)
            }
            Self::Zeroes => write_zeroes(store, at, len),
        }
    }
}

/// Writes zeroes where bytes must be written, because the place may hold old ones.
fn write_zeroes(store: &dyn Storage, at: HostOffset, len: u64) -> Result<()> {
    let inside = store.len()?.saturating_sub(at.get()).min(len);
    if let Some(space) = store.space()
        && inside == len
        && space.zero(at, len, false).is_ok()
    {
        return Ok(());
    }
    Ok(store.write_zeroes_at(at, len)?)
}

fn read_packed(encoded: &Encoded<'_>) -> Result<Vec<u8>> {
    let mut packed = vec![0; encoded.len];
    encoded.store.read_padded_at(encoded.at, &mut packed)?;
    Ok(packed)
}

/// Length of a range that is known to lie in a buffer.
fn bytes_in(range: GuestRange) -> usize {
    bytes_of(range.len())
}

fn bytes_of(len: u64) -> usize {
    usize::try_from(len).expect("the length of a buffer in memory")
}

// ------------------------------------------------------------------------------------------------
// A disk is a store: the one place where guest becomes host.

type StorageResult<T> = anydisk_storage::Result<T>;

impl Disk {
    fn clipped(&self, at: HostOffset, len: u64) -> GuestRange {
        GuestRange::between(GuestOffset(at.get()), GuestOffset(at.get().saturating_add(len)))
            .before(GuestOffset(self.size()))
    }

    fn storage_error(
        &self,
        what: &'static str,
        at: HostOffset,
        len: u64,
    ) -> impl FnOnce(Error) -> anydisk_storage::Error {
        move |error| error.of_store(what, &self.name, at, len)
    }
}

impl Storage for Disk {
    fn len(&self) -> StorageResult<u64> {
        Ok(self.size())
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> StorageResult<usize> {
        let range = self.clipped(at, buf.len() as u64);
        let inside = &mut buf[..bytes_in(range)];
        self.read_from(0, range, inside).map_err(self.storage_error("read", at, range.len()))?;
        Ok(bytes_in(range))
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> StorageResult<()> {
        let len = data.len() as u64;
        self.write(GuestOffset(at.get()), data).map_err(self.storage_error("write", at, len))
    }

    fn set_len(&self, len: u64) -> StorageResult<()> {
        if len == self.size() {
            return Ok(());
        }
        let what = "changing the length of a disk that is in use";
        Err(anydisk_storage::Error::Unsupported { store: self.name().into(), what })
    }

    fn flush(&self) -> StorageResult<()> {
        Self::flush(self).map_err(self.storage_error("flush", HostOffset::ZERO, 0))
    }

    fn is_writable(&self) -> bool {
        Self::is_writable(self)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn space(&self) -> Option<&dyn Space> {
        Some(self)
    }

    fn identity(&self) -> Option<Identity> {
        Some(Identity::Memory(std::ptr::from_ref(self).addr()))
    }
}

impl Holes for Disk {
    fn run_at(&self, at: HostOffset, limit: u64) -> StorageResult<Run> {
        let range = self.clipped(at, limit);
        if range.is_empty() {
            return Ok(Run { len: limit, hole: true });
        }
        let found = self.status(range).map_err(self.storage_error("map", at, limit))?;
        let hole = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
        Ok(Run { len: found.extent.len, hole })
    }

    fn allocated(&self) -> StorageResult<u64> {
        let mut rest = GuestRange::whole(self.size());
        let mut sum = 0;
        while !rest.is_empty() {
            let run = self.run_at(HostOffset(rest.start().get()), rest.len())?;
            sum += if run.hole { 0 } else { run.len };
            rest = rest.skip(run.len);
        }
        Ok(sum)
    }
}

impl Space for Disk {
    fn zero(&self, at: HostOffset, len: u64, unmap: bool) -> StorageResult<()> {
        let range = self.clipped(at, len);
        Self::zero(self, range, unmap).map_err(self.storage_error("zero", at, len))
    }

    fn discard(&self, at: HostOffset, len: u64) -> StorageResult<()> {
        let range = self.clipped(at, len);
        Self::discard(self, range).map_err(self.storage_error("discard", at, len))
    }

    fn allocate(&self, _: HostOffset, _: u64) -> StorageResult<()> {
        let what = "reserving space";
        Err(anydisk_storage::Error::Unsupported { store: Storage::name(self).into(), what })
    }
}
