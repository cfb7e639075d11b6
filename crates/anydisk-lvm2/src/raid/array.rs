//! An array as a mapping: the images that may be believed, and the rest computed from parity.

use anydisk_core::{Error, MappedFrom, MappedPiece, Mapping, Result, StorageExt};

use crate::plain::Part;
use crate::raid::layout::{Level, RowOf};
use crate::raid::parity::{Row, rebuild};
use crate::raid::superblock::Trust;

/// An array.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) name: String,
    pub(crate) level: Level,
    /// Bytes of a chunk; for a mirror the whole.
    pub(crate) chunk: u64,
    /// The images, `None` where one is gone.
    pub(crate) images: Vec<Option<Part>>,
    pub(crate) trust: Trust,
    /// Why images are gone, for people.
    pub(crate) gone: String,
}

/// Where a byte of the array is, if all images were there.
#[derive(Clone, Copy, Debug)]
struct Spot {
    image: u64,
    /// In the image.
    at: u64,
    /// Bytes up to the end of the chunk.
    len: u64,
    row: u64,
    slot: u64,
}

impl Array {
    /// The same array without the images that are not good anywhere.
    pub(crate) fn without_stale_images(mut self) -> Self {
        for (image, good) in self.images.iter_mut().zip(&self.trust.good) {
            if *good == 0 {
                *image = None;
            }
        }
        self
    }

    /// An error if a byte of the array is neither there nor computable, images being there or not
    /// as a whole.
    pub(crate) fn check(&self) -> Result<()> {
        let gone = self.images.iter().filter(|image| image.is_none()).count();
        let bearable = match self.level {
            Level::Stripe => gone == 0,
            Level::Mirror => gone < self.images.len(),
            Level::Parity(_) => gone <= 1,
            Level::Double(_) => gone <= 2,
            Level::Near(copies) => (0..self.count()).all(|chunk| self.has_copy(chunk, copies)),
        };
        if bearable { Ok(()) } else { Err(self.lost()) }
    }

    fn has_copy(&self, chunk: u64, copies: u64) -> bool {
        let images = (0..copies).map(|copy| (chunk * copies + copy) % self.count());
        images.filter_map(|image| usize::try_from(image).ok()).any(|i| self.images[i].is_some())
    }

    #[cold]
    fn lost(&self) -> Error {
        let why = match self.gone.is_empty() {
            true => "too many images of the array are stale or not filled yet".to_owned(),
            false => format!("too many images of the array are gone: {}", self.gone),
        };
        Error::Unusable { what: "logical volume", name: self.name.clone(), why: why.into() }
    }

    fn count(&self) -> u64 {
        self.images.len() as u64
    }

    /// The image of this number, if its bytes at `at` are good, and up to where it is.
    fn image(&self, number: u64, at: u64) -> Option<(&Part, u64)> {
        let index = usize::try_from(number).ok()?;
        let good = *self.trust.good.get(index)?;
        let part = self.images.get(index)?.as_ref()?;
        (at < good).then(|| (part, good - at))
    }

    /// The first of the copies at `spots` that is good.
    fn first_copy(&self, spots: impl Iterator<Item = Spot>, limit: u64) -> Result<MappedPiece<'_>> {
        for spot in spots {
            if let Some((part, good)) = self.image(spot.image, spot.at) {
                return Ok(MappedPiece {
                    len: limit.min(spot.len).min(good),
                    from: part.place(spot.at),
                });
            }
        }
        Err(self.lost())
    }

    /// A mirror: before the place that the copies agree up to any image will do, behind it only the
    /// first one that is there, which the others are filled from.
    fn copy(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let agreed = self.trust.in_sync.checked_sub(at).filter(|len| *len > 0);
        let spot = |image| Spot { image, at, len: agreed.unwrap_or(u64::MAX), row: 0, slot: 0 };
        let images = if agreed.is_some() { self.count() } else { 1 };
        self.first_copy((0..images).map(spot), limit)
    }

    /// Stripes of mirrors: copy `j` of chunk `c` is at place `c * copies + j` of all chunks.
    fn near(&self, at: u64, limit: u64, copies: u64) -> Result<MappedPiece<'_>> {
        let (chunk, within) = (at / self.chunk, at % self.chunk);
        let spot = |copy: u64| {
            // Chunks are at least a sector long and the volume below 2^63 bytes.
            let place = chunk * copies + copy;
            let at = place / self.count() * self.chunk + within;
            Spot { image: place % self.count(), at, len: self.chunk - within, row: 0, slot: 0 }
        };
        let agreed = at < self.trust.in_sync;
        self.first_copy((0..if agreed { copies } else { 1 }).map(spot), limit)
    }

    /// The spot of a byte of an array of stripes, with or without parity.
    fn striped(&self, at: u64, data: u64) -> Spot {
        let (chunk, within) = (at / self.chunk, at % self.chunk);
        let (row, slot) = (chunk / data, chunk % data);
        let image = self.row(row).data(slot);
        Spot { image, at: row * self.chunk + within, len: self.chunk - within, row, slot }
    }

    fn row(&self, row: u64) -> RowOf {
        self.level.row(self.count(), row)
    }

    fn data_images(&self) -> u64 {
        self.level.data_images(self.count()).unwrap_or(1)
    }

    /// Reads what the row of `spot` has at the same place in all other images.
    fn read_row(&self, spot: Spot, len: usize) -> Result<Vec<Option<Vec<u8>>>> {
        let read = |number: u64| {
            let Some((part, good)) = self.image(number, spot.at) else { return Ok(None) };
            if good < len as u64 {
                return Ok(None);
            }
            let mut bytes = vec![0; len];
            part.store.read_exact_at(part.at.saturating_add(spot.at), &mut bytes)?;
            Ok(Some(bytes))
        };
        (0..self.count()).map(read).collect()
    }

    fn rebuild_at(&self, spot: Spot, buf: &mut [u8]) -> Result<()> {
        // Behind this place the parity was not computed yet.
        if spot.at.saturating_add(buf.len() as u64) > self.trust.in_sync {
            return Err(self.lost());
        }
        let bytes = self.read_row(spot, buf.len())?;
        let of = self.row(spot.row);
        let held = |image: u64| {
            let bytes = bytes.get(usize::try_from(image).ok()?)?;
            bytes.as_deref()
        };
        let data = (0..self.data_images()).map(|slot| {
            let image = of.data(slot);
            (of.power(image), held(image))
        });
        let row = Row {
            data: data.collect(),
            p: of.parity().and_then(held),
            q: of.second().and_then(held),
        };
        let slot = usize::try_from(spot.slot).unwrap_or(usize::MAX);
        rebuild(&row, slot, buf).ok_or_else(|| self.lost())
    }
}

/// Bytes that are computed at once: all images are held in memory for as long.
const COMPUTED: u64 = 64 << 10;

impl Mapping for Array {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        match self.level {
            Level::Mirror => return self.copy(at, limit),
            Level::Near(copies) => return self.near(at, limit, copies),
            _ => {}
        }
        let spot = self.striped(at, self.data_images());
        match self.image(spot.image, spot.at) {
            Some((part, good)) => {
                Ok(MappedPiece { len: limit.min(spot.len).min(good), from: part.place(spot.at) })
            }
            None => Ok(MappedPiece {
                len: limit.min(spot.len).min(COMPUTED),
                from: MappedFrom::Computed,
            }),
        }
    }

    fn compute(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.rebuild_at(self.striped(at, self.data_images()), buf)
    }
}
