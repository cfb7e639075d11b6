//! Dirty bitmaps: told, and read. Who writes to the image drops them.

use anydisk_core::{
    BitmapInfo, Bitmaps, Changes, Error, GuestOffset, GuestRange, HostOffset, NewBitmap, Result,
    Storage, StorageExt, bits,
};

use crate::extension::StoredBitmap;
use crate::guard::read_only;
use crate::image::ParallelsImage;
use crate::layout::SECTOR;

/// Bytes of bits that are read at once.
const AT_ONCE: u64 = 64 << 10;

/// What a bitmap says, read piece by piece.
#[derive(Debug)]
struct StoredChanges<'a> {
    store: &'a dyn Storage,
    bitmap: &'a StoredBitmap,
    /// Bytes of the disk.
    size: u64,
    /// Bits that an entry of the table stands for.
    per_entry: u64,
    /// The piece that was read last: the number of its first bit, and its words.
    piece: Option<(u64, Vec<u64>)>,
}

impl StoredChanges<'_> {
    /// Bits from `first` on that are as the first one is: it, and their number, at least 1.
    fn run(&mut self, first: u64) -> Result<(bool, u64)> {
        let index = usize::try_from(first / self.per_entry).unwrap_or(usize::MAX);
        let rest = self.per_entry - first % self.per_entry;
        match self.bitmap.table.get(index).copied().unwrap_or(0) {
            plain @ (0 | 1) => Ok((plain == 1, rest)),
            sector => self.stored_run(sector, first, rest),
        }
    }

    /// The same of bits that are stored in the cluster at `sector`, of which `rest` are left.
    fn stored_run(&mut self, sector: u64, first: u64, rest: u64) -> Result<(bool, u64)> {
        let start = first / (AT_ONCE * 8) * (AT_ONCE * 8);
        // Where clusters are smaller than a piece, or no multiple of one, it ends with the cluster.
        let entry_start = first / self.per_entry * self.per_entry;
        let start = start.max(entry_start);
        if self.piece.as_ref().is_none_or(|(at, _)| *at != start) {
            self.piece = Some((start, self.read(sector, start - entry_start)?));
        }
        let words = self.piece.as_ref().map_or(&[][..], |(_, words)| words);
        let end = (words.len() as u64 * 64).min(first - start + rest);
        let word = |index: usize| words.get(index).copied().unwrap_or(0);
        Ok(bits::run(word, first - start, end))
    }

    /// The words of a piece, `from` bits into the cluster at `sector`.
    fn read(&self, sector: u64, from: u64) -> Result<Vec<u64>> {
        let at = HostOffset(sector.saturating_mul(SECTOR)).saturating_add(from / 8);
        let len = AT_ONCE.min((self.per_entry - from) / 8);
        let mut bytes = vec![0; usize::try_from(len).expect("64 KiB at most")];
        self.store.read_exact_at(at, &mut bytes)?;
        Ok(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// The first bit from `from` on, before `end`, that is `set`, or clear.
    fn find(&mut self, from: u64, end: u64, set: bool) -> Result<Option<u64>> {
        let mut at = from;
        while at < end {
            let (is_set, len) = self.run(at)?;
            if is_set == set {
                return Ok(Some(at));
            }
            at += len;
        }
        Ok(None)
    }
}

impl Changes for StoredChanges<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let unit = self.bitmap.granularity;
        let end = self.size.div_ceil(unit);
        let Some(first) = self.find(from.get() / unit, end, true)? else { return Ok(None) };
        let behind = self.find(first, end, false)?.unwrap_or(end);
        let start = GuestOffset((first * unit).max(from.get()));
        let end = GuestOffset(behind.saturating_mul(unit).min(self.size));
        Ok(Some(GuestRange::between(start, end)).filter(|range| !range.is_empty()))
    }
}

/// What is stored is only told: nothing here keeps account of changes.
impl Bitmaps for ParallelsImage {
    fn list(&self) -> Result<Vec<BitmapInfo>> {
        let info = |bitmap: &StoredBitmap| BitmapInfo {
            name: bitmap.id.to_string(),
            granularity: bitmap.granularity,
            enabled: false,
            inconsistent: self.header.is_open(),
        };
        Ok(self.stored_bitmaps().iter().map(info).collect())
    }

    fn add(&self, _: &NewBitmap) -> Result<()> {
        Err(read_only("it was opened for reading"))
    }

    fn remove(&self, _: &str) -> Result<()> {
        Err(read_only("it was opened for reading"))
    }

    fn clear(&self, _: &str) -> Result<()> {
        Err(read_only("it was opened for reading"))
    }

    fn set_enabled(&self, _: &str, _: bool) -> Result<()> {
        Err(read_only("it was opened for reading"))
    }

    fn merge(&self, _: &str, _: &mut dyn Changes) -> Result<()> {
        Err(read_only("it was opened for reading"))
    }

    fn changes(&self, name: &str) -> Result<Box<dyn Changes + '_>> {
        let mut all = self.stored_bitmaps().iter();
        let bitmap = all.find(|bitmap| bitmap.id.to_string() == name);
        let bitmap =
            bitmap.ok_or_else(|| Error::NotFound { what: "bitmap", name: name.to_owned() })?;
        if self.header.is_open() {
            let why = "the image was not closed by its last writer".into();
            return Err(Error::Unusable { what: "bitmap", name: name.to_owned(), why });
        }
        Ok(Box::new(StoredChanges {
            store: &**self.table.store(),
            bitmap,
            size: self.table.shape().size,
            per_entry: self.header.cluster * 8,
            piece: None,
        }))
    }
}
