//! The traits a format implements: translate, and keep space. Nobody here moves guest bytes.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use anydisk_codec::Encode;
use anydisk_storage::{HostOffset, Storage, StorageExt};

use crate::{
    BackingLink, Bitmaps, Claims, Compact, Error, Extent, GuestOffset, GuestRange, Id, Resize,
    Result, Snapshots, WriteLease,
};

/// What **one** image file says about the disk, and nothing about the files below it.
///
/// All methods may be called by any number of threads at once.
pub trait Image: Send + Sync + Debug {
    /// Virtual size in bytes.
    fn size(&self) -> u64;

    /// The extent at the start of `range`, from memory alone: no I/O, no waiting for I/O.
    ///
    /// The caller guarantees that `range` is not empty and lies on the disk. In exchange the answer
    /// holds for 1 to `range.len()` bytes, as many as one look at the tables tells.
    ///
    /// [`Lookup::Need`] names bytes of the metadata that must be read first: read them in whatever
    /// way you do I/O, hand them to [`supply`](Self::supply), ask again. A format may need several.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the tables break the format for this range.
    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>>;

    /// Takes the bytes of `need`, whatever question it came from: exactly [`Need::len`] of them,
    /// zeroes for what lies past the end of the store. Does no I/O. Bytes that were overtaken by a
    /// change of the image are ignored; in any case, ask again.
    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied>;

    /// The part of the disk around `at` that cannot be mapped, as the table for it is damaged or not there;
    /// `None`: a unit, or it is not known. Whoever salvages asks it where mapping failed, so as not to try each
    /// unit of a disk of which a wrong bit makes an absurdly large one.
    fn lost_around(&self, at: GuestOffset) -> Option<GuestRange> {
        let _ = at;
        None
    }

    /// Makes room for tables by writing changed ones back, in their order. Blocks; needed only
    /// after [`Supplied::Full`].
    fn relieve(&self) -> Result<()> {
        self.writer().map_or(Ok(()), ImageWrite::flush)
    }

    /// Reads the bytes of `need` and supplies them, making room if there is none.
    fn satisfy(&self, need: &Need<'_>) -> Result<()> {
        match self.supply(need, &need.read()?)? {
            Supplied::Taken => Ok(()),
            Supplied::Full => self.relieve(),
        }
    }

    /// The extent at the start of `range`, reading metadata as needed. Reads no payload.
    fn map(&self, range: GuestRange) -> Result<Extent<'_>> {
        loop {
            match self.map_cached(range)? {
                Lookup::Found(extent) => return Ok(extent),
                Lookup::Need(need) => self.satisfy(&need)?,
            }
        }
    }

    /// What can be said about the image without reading its tables.
    fn info(&self) -> ImageInfo;

    /// The writing side; `None` if the image was opened for reading or can only be read.
    fn writer(&self) -> Option<&dyn ImageWrite> {
        None
    }

    /// Changing the virtual size, if the format and this image can.
    fn resizer(&self) -> Option<&dyn Resize> {
        None
    }

    /// Making the file as short as what it holds, if the format and this image can.
    fn compactor(&self) -> Option<&dyn Compact> {
        None
    }

    /// The states that the image keeps, if the format has snapshots.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// The dirty bitmaps that the image keeps, if the format has them.
    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        None
    }

    /// Changing the name of the image below, if the format has one and the image is open for
    /// writing.
    fn backing_link(&self) -> Option<&dyn BackingLink> {
        None
    }
}

/// The answer of [`Image::supply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Supplied {
    /// Ask again.
    Taken,
    /// There was no room, because too many tables are changed and not written back:
    /// [relieve](Image::relieve) the image, where blocking is allowed, and ask again.
    Full,
}

/// The answer of [`Image::map_cached`].
#[derive(Debug)]
#[must_use]
pub enum Lookup<'a> {
    /// The extent.
    Found(Extent<'a>),
    /// Metadata is missing.
    Need(Need<'a>),
}

/// Metadata to be read before a question can be answered.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Where it lies.
    pub store: &'a Arc<dyn Storage>,
    /// Position of the first byte.
    pub at: HostOffset,
    /// Number of bytes.
    pub len: usize,
    /// So many of them are in every file that was not cut off; those behind may lie past its end.
    pub least: usize,
    /// The image's own: tells what the bytes are for, and whether they came too late.
    pub ticket: u64,
}

impl Need<'_> {
    /// Reads the bytes, padded with zeroes past the end of the store.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        self.store.read_padded_at(self.at, &mut bytes)?;
        Ok(bytes)
    }
}

/// The writing side of an image.
///
/// Writing data takes two phases. [`try_place`](Self::try_place) answers a place: where the range
/// already has one that is its own, it is written in place; else a [`Reservation`] names new space
/// for whole units. The caller writes the data **and fills the rest of the units** from what the
/// disk holds there, then commits. Until then readers see the old content; a reservation that is
/// dropped gives its space back.
///
/// Tables are written back only after the data they name was flushed, so after a power failure
/// everything that was flushed is there and everything else is the old or the new state of its unit.
///
/// Data may also be written by the caller itself, through the file behind the store: it then writes
/// all of it **before** it commits, and calls [`flush`](Self::flush) for durability, never an
/// `fsync` of its own, which would take an error of the kernel away from the store that must
/// remember it.
pub trait ImageWrite: Image {
    /// A place for the data of the start of `range`, from memory alone.
    ///
    /// The caller guarantees that `range` is not empty and lies on the disk.
    fn try_place(&self, range: GuestRange) -> Result<Attempt<'_>>;

    /// As [`try_place`](Self::try_place), for a unit that is stored packed in exactly `len` bytes.
    /// `unit` must be one whole unit (see [`packing`](Self::packing)).
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format or this image stores no packed units; so answers the
    /// default.
    fn try_place_encoded(&self, unit: GuestRange, len: usize) -> Result<Attempt<'_>> {
        let (_, _) = (unit, len);
        let format = self.info().format;
        Err(Error::Unsupported { format, feature: "compressed data".into() })
    }

    /// The claims that make an attempt [busy](Attempt::Busy), to wait for or to be told of their
    /// end; `None` if no attempt ever is.
    fn claims(&self) -> Option<&Claims>;

    /// Makes a reservation's data what the guest sees, from memory alone. It takes no space: what
    /// else a place needs, as a table, is taken with it, so that a copy by many threads, which
    /// take places in turn and commit as they come, makes the file that one thread makes.
    ///
    /// # Errors
    /// All or nothing: after an error nothing changed, and the caller abandons the reservation.
    fn try_commit(&self, reserved: &Reserved) -> Result<Committed<'_>>;

    /// As [`try_commit`](Self::try_commit), reading metadata as needed. Called by
    /// [`Reservation::commit`].
    ///
    /// # Errors
    /// After an error the reservation is [abandoned](Self::abandon).
    fn commit(&self, reserved: &Reserved) -> Result<()> {
        let commit = || loop {
            match self.try_commit(reserved)? {
                Committed::Done => return Ok(()),
                Committed::Need(need) => self.satisfy(&need)?,
                Committed::Full => self.relieve()?,
            }
        };
        commit().inspect_err(|_| self.abandon(reserved))
    }

    /// Gives a reservation's space back, once all I/O on it has ended. Called when a
    /// [`Reservation`] is dropped. The space may hold old bytes from now on: it is never handed out
    /// as [zeroed](Reserved::zeroed) again.
    fn abandon(&self, reserved: &Reserved);

    /// Makes the start of `range` read as zero by metadata alone, where the format can: for whole
    /// units, and for what is zero already. Claims the units it changes, so it waits for whoever has
    /// reserved them; may read metadata. Freed space is [retired](crate::Quarantine::retire).
    fn zero(&self, range: GuestRange, how: Zeroing) -> Result<Handled>;

    /// Gives the space of the start of `range` back. Afterwards it reads as zero, or, where the
    /// format has no other way, as before; never as the layer below, unless that is what it read
    /// before, or as old host bytes. Claims the units it changes, as [`zero`](Self::zero), which
    /// with [`Zeroing::unmap`] is a discard that every format may use.
    fn discard(&self, range: GuestRange, below: Below) -> Result<Handled>;

    /// Returns when every write, zero and discard that returned before is on stable storage. It
    /// flushes every store that data was placed in, also if no table changed, and does not wait for
    /// reservations that are not committed. Nothing else makes anything durable: an image that is
    /// dropped writes nothing back.
    fn flush(&self) -> Result<()>;

    /// The store that new data goes to, if it is the same for all of the disk: what a copy asks
    /// whether it can [share](anydisk_storage::CopyFrom) blocks.
    fn data_store(&self) -> Option<&Arc<dyn Storage>> {
        None
    }

    /// The first part of `range` that cannot be written though the image can, and why (VMDK: an extent
    /// that is marked read-only). Writing there is an [`Error::ReadOnly`]; this is for who wants to
    /// know before anything is written.
    fn frozen_part(&self, range: GuestRange) -> Option<(GuestRange, &'static str)> {
        let _ = range;
        None
    }

    /// How this image packs units, if it does.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// Space is allotted in units of this many bytes: a write of whole, aligned units needs no fill.
    fn unit(&self) -> u64;

    /// A place for the start of `range`, reading metadata and waiting for others as needed.
    fn place(&self, range: GuestRange) -> Result<Placement<'_>> {
        loop {
            match self.try_place(range)? {
                Attempt::Placed(placement) => return Ok(placement),
                Attempt::Need(need) => self.satisfy(&need)?,
                Attempt::Full => self.relieve()?,
                Attempt::Busy => wait(self.claims(), range),
            }
        }
    }

    /// A place for a packed unit, reading metadata and waiting for others as needed.
    fn place_encoded(&self, unit: GuestRange, len: usize) -> Result<Placement<'_>> {
        loop {
            match self.try_place_encoded(unit, len)? {
                Attempt::Placed(placement) => return Ok(placement),
                Attempt::Need(need) => self.satisfy(&need)?,
                Attempt::Full => self.relieve()?,
                Attempt::Busy => wait(self.claims(), unit),
            }
        }
    }
}

fn wait(claims: Option<&Claims>, range: GuestRange) {
    if let Some(claims) = claims {
        claims.wait(range);
    }
}

/// The answer of [`ImageWrite::try_commit`].
#[derive(Debug)]
#[must_use]
pub enum Committed<'a> {
    /// The guest sees the data.
    Done,
    /// Metadata is missing; the reservation stays.
    Need(Need<'a>),
    /// Too many tables are changed: [relieve](Image::relieve) the image; the reservation stays.
    Full,
}

/// The answer of [`ImageWrite::try_place`].
#[derive(Debug)]
#[must_use]
pub enum Attempt<'a> {
    /// A place.
    Placed(Placement<'a>),
    /// Metadata is missing.
    Need(Need<'a>),
    /// Too many tables are changed: [relieve](Image::relieve) the image and ask again.
    Full,
    /// Someone is changing the mapping of this range, or changed it between two looks at it:
    /// [wait](Claims::wait) for it, or have yourself [told](Claims::notify), and ask again; where
    /// nobody holds a claim any more, at once. It may be you: never wait on a thread that has to
    /// commit.
    Busy,
}

/// Where data goes.
#[derive(Debug)]
#[must_use]
pub enum Placement<'a> {
    /// The range has its own place: write there, and that is all.
    InPlace {
        /// The store to write to.
        store: &'a Arc<dyn Storage>,
        /// Position of the range's first byte.
        at: HostOffset,
        /// Bytes from the start of the range that may be written there.
        len: u64,
        /// Keeps the place the range's own. Drop it when the bytes have been written.
        lease: WriteLease<'a>,
    },
    /// New space for whole units.
    Fresh(Reservation<'a>),
}

/// What a reservation is about; plain data, kept by whoever finishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Whole units of the disk, cut at its end, that begin at or before the range asked for.
    pub range: GuestRange,
    /// Position of the first byte of `range` in the store.
    pub at: HostOffset,
    /// The host space is known to read as zero: zeroes need not be written there. Only space that
    /// lies behind every byte ever written while the image was open, and behind the end of the
    /// file as it was opened, is known to. The caller may then leave any of it unwritten, so the
    /// format sees to it that the file reaches the end of the space before a table names it
    /// ([`BlockSpace`](crate::BlockSpace) does).
    pub zeroed: bool,
    /// The image's own: what it wants to find again at commit, 0 if nothing.
    pub token: u64,
}

impl Reserved {
    /// What must be written beside the data in `covered`: the rest of the units before and behind.
    #[must_use]
    pub fn edges(&self, covered: GuestRange) -> [GuestRange; 2] {
        [
            GuestRange::between(self.range.start(), covered.start()),
            GuestRange::between(covered.end(), self.range.end()),
        ]
    }

    /// Where the guest offset `at`, which must lie in the units, goes in the store.
    #[must_use]
    pub fn place_of(&self, at: GuestOffset) -> HostOffset {
        self.at.saturating_add(at.get().saturating_sub(self.range.start().get()))
    }
}

/// New space for units of the disk, invisible until committed. Dropping it gives the space back.
///
/// It holds a claim on its units, not the image's lock: all of the image can be read meanwhile.
#[must_use]
pub struct Reservation<'a> {
    owner: Option<&'a dyn ImageWrite>,
    store: &'a Arc<dyn Storage>,
    reserved: Reserved,
}

impl<'a> Reservation<'a> {
    /// A reservation that `owner` will be asked to commit or abandon: made by the format, or again
    /// from its [parts](Self::into_parts).
    pub fn new(owner: &'a dyn ImageWrite, store: &'a Arc<dyn Storage>, reserved: Reserved) -> Self {
        Self { owner: Some(owner), store, reserved }
    }

    /// Whole units of the disk, cut at its end.
    #[must_use]
    pub fn range(&self) -> GuestRange {
        self.reserved.range
    }

    /// The store to write to.
    #[must_use]
    pub fn store(&self) -> &'a Arc<dyn Storage> {
        self.store
    }

    /// Position of the first byte of the range in the store.
    #[must_use]
    pub fn at(&self) -> HostOffset {
        self.reserved.at
    }

    /// The host space is known to read as zero: zeroes need not be written.
    #[must_use]
    pub fn is_zeroed(&self) -> bool {
        self.reserved.zeroed
    }

    /// What it is about.
    #[must_use]
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// Makes the new space what the guest sees. All of it must have been written. After an error
    /// the space is given back.
    pub fn commit(mut self) -> Result<()> {
        match self.owner.take() {
            Some(owner) => owner.commit(&self.reserved),
            None => Ok(()),
        }
    }

    /// The reservation as plain data, for whoever cannot keep the borrow. It must then be given to
    /// [`ImageWrite::commit`] or [`ImageWrite::abandon`], else its units stay claimed.
    #[must_use]
    pub fn into_parts(mut self) -> (Arc<dyn Storage>, Reserved) {
        self.owner = None;
        (Arc::clone(self.store), self.reserved)
    }
}

impl Debug for Reservation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reservation").field(&self.reserved).finish()
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(owner) = self.owner {
            owner.abandon(&self.reserved);
        }
    }
}

/// Whether another image lies below, whose content must not show through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing: what is absent reads as zero.
    Nothing,
    /// Another image.
    Image,
}

/// How to make a range zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zeroing {
    /// Space may be given back; else what is reserved stays reserved.
    pub unmap: bool,
    /// What lies below.
    pub below: Below,
}

/// How far a zero or discard got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Handled {
    /// The first so many bytes are done; at least 1.
    Done(u64),
    /// Metadata cannot do it for the first so many bytes (at least 1): to zero them, write zeroes;
    /// a discard leaves them as they are.
    ByData(u64),
}

/// How an image packs units.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Bytes in a unit.
    pub unit: u64,
    /// Packs a unit, on any thread.
    pub encoder: Arc<dyn Encode>,
    /// The last unit of the disk is packed short, not filled up with zeroes.
    pub short_tail: bool,
}

/// What can be said about an image without reading its tables.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Name of the format.
    pub format: &'static str,
    /// Unit of allocation in bytes, if the format has one.
    pub cluster_size: Option<u64>,
    /// The payload is encrypted.
    pub encrypted: bool,
    /// The option that takes the passphrase without which the payload can be neither read nor
    /// written, and which was not given.
    pub locked: Option<&'static str>,
    /// The payload is stored packed throughout (streamOptimized).
    pub compressed: bool,
    /// Every unit had its place from the start (a fixed VDI), so that holes of the file are what was
    /// never written.
    pub fixed: bool,
    /// The image was not closed cleanly.
    pub dirty: bool,
    /// The last unit of the file may end early, and goes on with zeroes to a multiple of so many
    /// bytes; 0 if the format writes units whole.
    pub loose_end: u64,
    /// Tells the image from every other one, where the format keeps such a number (VDI's
    /// `uuidCreate`).
    pub id: Option<Id>,
    /// Tells one state of the content from another, where the format keeps such a number (VMDK's
    /// CID).
    pub content_id: Option<Id>,
    /// What only this format has, in the field's words.
    pub details: Vec<Detail>,
    /// The rest of it, of which qemu-img shows nothing.
    pub more: Vec<Detail>,
}

impl ImageInfo {
    /// The info of an image of `format`, to be filled in.
    #[must_use]
    pub fn new(format: &'static str) -> Self {
        Self { format, ..Self::default() }
    }
}

/// A named value of a format, as `info` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The name, in qemu-img's spelling where it has one (`refcount-bits`).
    pub name: &'static str,
    /// The value.
    pub value: DetailValue,
}

impl Detail {
    /// A text.
    #[must_use]
    pub fn text(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, value: DetailValue::Text(text.into()) }
    }

    /// A number.
    #[must_use]
    pub fn number(name: &'static str, number: u64) -> Self {
        Self { name, value: DetailValue::Number(number) }
    }

    /// Yes or no.
    #[must_use]
    pub fn flag(name: &'static str, flag: bool) -> Self {
        Self { name, value: DetailValue::Flag(flag) }
    }
}

/// The value of a [`Detail`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetailValue {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<DetailValue>),
    /// Named values.
    Map(Vec<Detail>),
}

/// The usual refusal of a writer that was asked for a range that is not on the disk.
pub(crate) fn check_range(range: GuestRange, size: u64) -> Result<()> {
    if range.end().get() <= size { Ok(()) } else { Err(Error::OutOfRange { range, size }) }
}

/// A refusal to write, with its reason.
pub(crate) fn read_only(why: impl Into<Cow<'static, str>>) -> Error {
    Error::ReadOnly { why: why.into() }
}
