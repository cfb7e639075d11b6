//! The image: a bit says whether a sector is here, and then it is at its own place.

use std::sync::Arc;

use anydisk_core::{
    BackingLink, Detail, DetailValue, Extent, GuestRange, HostOffset, Image, ImageInfo, ImageWrite,
    Lease, Limits, Lookup, Need, Reference, Result, Role, Source, Storage, Supplied, TableCache,
    Unwritten,
};

use crate::bitmap::{SLICE, SLICE_BITS, SLICE_LEN, from_bytes, run};
use crate::header::Header;
use crate::layout::LONGEST;
use crate::write::Writer;
use crate::{Kind, NAME};

/// An open cow image.
#[derive(Debug)]
pub struct CowImage {
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) header: Header,
    /// Slices of the bitmap.
    pub(crate) bits: TableCache,
    /// Parts of the bitmap that are holes.
    pub(crate) unwritten: Unwritten,
    pub(crate) writer: Option<Writer>,
}

/// A part of the bitmap that is cached as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceAt {
    pub(crate) at: HostOffset,
    /// Bytes that the bitmap has there.
    pub(crate) len: u64,
    /// The bit looked for, counted from the start of the slice.
    pub(crate) bit: u64,
}

/// What one look at the bitmap tells about the start of a range.
#[derive(Debug)]
pub(crate) enum Look<'a> {
    /// The bits are not in memory.
    Need(Need<'a>),
    /// For `len` bytes: whether they are here.
    Run { here: bool, len: u64 },
}

impl CowImage {
    /// Opens the image in `store` for reading. The backing file is not opened.
    ///
    /// # Errors
    /// As [`Header::parse`], and those of the store.
    pub fn open(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let mut bytes = vec![0; LONGEST];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        let header = Header::parse(bytes.get(..count).unwrap_or_default(), store.len()?)?;
        let most = usize::try_from(header.bitmap_len.saturating_mul(2)).unwrap_or(usize::MAX);
        let bits = TableCache::new(SLICE, limits.table_cache.min(most));
        Ok(Self { store, header, bits, unwritten: Unwritten::default(), writer: None })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The image below, as the header names it now. User-mode Linux knows raw ones only; of QEMU's the
    /// format is not stored.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        let name = match self.lock_backing() {
            Ok(name) => name.clone(),
            Err(_) => self.header.backing_file.clone(),
        };
        let mut reference = Reference::new(Role::Backing, name?);
        if let Kind::Uml(_) = self.header.kind {
            reference.format = Some("raw".to_owned());
        }
        Some(reference)
    }

    /// Where a byte of the disk is in the file, if it is here.
    pub(crate) fn place_of(&self, range: GuestRange) -> HostOffset {
        self.header.data.saturating_add(range.start().get())
    }

    /// The sectors that a range touches: the first, and the first behind.
    pub(crate) fn sectors_of(&self, range: GuestRange) -> (u64, u64) {
        let sector = u64::from(self.header.sector);
        (range.start().get() / sector, range.end().get().div_ceil(sector))
    }

    /// The slice that holds the bit of a sector; `None` if the bitmap, which may end too early in
    /// images of old kinds, has none.
    pub(crate) fn slice_of(&self, sector: u64) -> Option<SliceAt> {
        let first = sector / SLICE_BITS * SLICE_LEN;
        if sector / 8 >= self.header.bitmap_len {
            return None;
        }
        Some(SliceAt {
            at: self.header.bitmap.saturating_add(first),
            len: (self.header.bitmap_len - first).min(SLICE_LEN),
            bit: sector % SLICE_BITS,
        })
    }

    /// Whether the start of the range is here, and for how long the answer holds.
    pub(crate) fn look(&self, range: GuestRange) -> Look<'_> {
        let (first, end) = self.sectors_of(range);
        let Some(slice) = self.slice_of(first) else {
            return Look::Run { here: false, len: range.len() };
        };
        let bits = (slice.len * 8).min(slice.bit + (end - first));
        let seen = self.bits.read(slice.at, |words| run(|index| words.get(index), slice.bit, bits));
        let Some((here, count)) = seen.or_else(|| Some((false, self.unwritten_bits(slice)?)))
        else {
            return Look::Need(self.need(slice));
        };
        let end = first.saturating_add(count).saturating_mul(self.header.sector.into());
        Look::Run { here, len: range.len().min(end - range.start().get()) }
    }

    /// Bits of a slice, from the one looked for on, and of what follows, that are known to be 0 without
    /// being read; `None` if not all of the slice is.
    fn unwritten_bits(&self, slice: SliceAt) -> Option<u64> {
        let end = self.unwritten.run_end(slice.at)?.min(self.header.bitmap_end());
        let len = end.checked_since(slice.at).filter(|len| *len >= slice.len)?;
        Some(len.saturating_mul(8) - slice.bit)
    }

    pub(crate) fn need(&self, slice: SliceAt) -> Need<'_> {
        let len = usize::try_from(slice.len).expect("at most 4 KiB");
        self.bits.need(&self.store, slice.at, len)
    }
}

impl Image for CowImage {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        // A sector never moves, but an image that is open for writing may be emptied.
        let lease = match &self.writer {
            Some(writer) => writer.space.leases().take(),
            None => Lease::eternal(),
        };
        Ok(match self.look(range) {
            Look::Need(need) => Lookup::Need(need),
            Look::Run { here: false, len } => {
                Lookup::Found(Extent::without_data(len, Source::Absent { reserved: None }))
            }
            Look::Run { here: true, len } => {
                let (store, at) = (&self.store, self.place_of(range));
                let source = Source::Data { store, at, shared: false };
                Lookup::Found(Extent { len, source, lease })
            }
        })
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.bits.supply(need, from_bytes(bytes)))
    }

    /// Beside reading the bits, asks whether what follows them is a hole.
    fn satisfy(&self, need: &Need<'_>) -> Result<()> {
        let rest = self.header.bitmap_end().checked_since(need.at).unwrap_or(0);
        self.unwritten.learn(&*self.store, need.at, need.at, rest)?;
        match self.supply(need, &need.read()?)? {
            Supplied::Taken => Ok(()),
            Supplied::Full => self.relieve(),
        }
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.cluster_size = Some(self.header.sector.into());
        let number = |name, value| Detail { name, value: DetailValue::Number(value) };
        info.details = vec![
            Detail { name: "written-by", value: DetailValue::Text(self.header.kind.to_string()) },
            number("data-offset", self.header.data.get()),
        ];
        if self.header.mtime > 0 {
            info.details.push(number("backing-mtime", self.header.mtime.unsigned_abs()));
        }
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writer.is_some().then_some(self)
    }

    fn backing_link(&self) -> Option<&dyn BackingLink> {
        self.writer.is_some().then_some(self)
    }
}
