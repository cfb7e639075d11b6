//! A disk: an image over the images below it. The only read loop and the only write loop.

mod read;
mod store;
mod write;

use std::sync::Arc;

use anydisk_codec::Decoders;
use anydisk_storage::Storage;

use crate::decoded::DecodedCache;
use crate::image::check_range;
use crate::{
    Below, Chosen, Error, Extent, Feature, GuestOffset, GuestRange, Image, Limits, Location,
    Lookup, Need, Reference, Result, SnapshotRef, Source, Supplied, held,
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
///
/// A disk that is dropped is not flushed, for a drop can tell no error: formats keep tables in memory until a
/// [`flush`](Self::flush), and without them what was written after the last one is not found again.
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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// In every other disk of a format that leaves out zeroes at the end of its file they read as zeroes,
    /// because programs rely on it: what is copied, committed or backed up is therefore read from a disk of
    /// [this kind](Self::unpadded_but_for_last_unit), in the convert crate always.
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
                Lookup::Found(mut extent) => {
                    range = inside.first(extent.len);
                    extent.len = range.len();
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

/// Length of a range that is known to lie in a buffer.
fn bytes_in(range: GuestRange) -> usize {
    bytes_of(range.len())
}

fn bytes_of(len: u64) -> usize {
    usize::try_from(len).expect("the length of a buffer in memory")
}
