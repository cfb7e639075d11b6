//! What a disk holds, run by run, in qemu-img's terms.

use anydisk::storage::Storage;
use anydisk::{Disk, DiskExtent, GuestRange, Layer, Result, Source};

const RAW: &str = "raw";
const QCOW2: &str = "qcow2";
const VDI: &str = "vdi";
const VPC: &str = "vpc";

/// A run of the disk with one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// First byte on the disk.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Which image of the chain answers; 0 is the top.
    pub(crate) depth: usize,
    /// An image of the chain has something there.
    pub(crate) present: bool,
    /// It reads as zero.
    pub(crate) zero: bool,
    /// It is stored as data.
    pub(crate) data: bool,
    /// It is packed.
    pub(crate) compressed: bool,
    /// Where it is in its file, if there is such a place.
    pub(crate) offset: Option<u64>,
    /// The file.
    pub(crate) file: Option<String>,
}

impl Entry {
    /// First byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.length
    }

    /// Whether `next` goes on where this ends, with the same answer.
    fn goes_on(&self, next: &Self) -> bool {
        let expected = Self {
            start: self.end(),
            length: next.length,
            offset: self.offset.map(|at| at + self.length),
            ..self.clone()
        };
        expected == *next
    }
}

/// The runs of a range of a disk, each as long as it can be.
pub(crate) struct Entries<'a> {
    disk: &'a Disk,
    rest: GuestRange,
    ahead: Option<Entry>,
    /// Of each layer, asked once: of an image of thousands of extents it is a long answer.
    told: Vec<Told>,
    /// Of each layer, once it is known: holes of its file count.
    holes_count: Vec<Option<bool>>,
}

/// What an image says of itself.
struct Told {
    format: &'static str,
    /// Its file has no byte of the disk as it is.
    encrypted: bool,
}

impl Told {
    fn of(layer: &Layer) -> Self {
        let info = layer.image.info();
        Self { format: info.format, encrypted: info.encrypted }
    }
}

impl<'a> Entries<'a> {
    pub(crate) fn new(disk: &'a Disk, range: GuestRange) -> Self {
        let layers = disk.layers();
        let told = layers.iter().map(Told::of).collect();
        Self { disk, rest: range, ahead: None, told, holes_count: vec![None; layers.len()] }
    }

    /// The next answer of the disk.
    fn step(&mut self) -> Result<Option<Entry>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let entry = self.look(self.rest)?;
        self.rest = self.rest.skip(entry.length);
        Ok(Some(entry))
    }

    /// The answer of the disk. As in qemu-img, holes of a host file count where its bytes are those
    /// of the disk: in raw images, in extents that are files of their own, and where space was
    /// reserved for all of the disk at once. Elsewhere the format's own word counts.
    fn look(&mut self, range: GuestRange) -> Result<Entry> {
        let found = self.disk.map(range)?;
        let of_image = &self.told[found.layer];
        let (format, encrypted) = (of_image.format, of_image.encrypted);
        let mut told = entry(self.disk, &found, range, format);
        if encrypted {
            told.offset = None;
        }
        let Source::Data { store, .. } = &found.extent.source else { return Ok(told) };
        let layer = &self.disk.layers()[found.layer];
        if !is_extent(layer, &**store) && !self.holes_count(found.layer, &**store)? {
            return Ok(told);
        }
        let status = self.disk.status(range.first(told.length))?.extent;
        let zero = matches!(status.source, Source::Zero { .. });
        // Elsewhere than in a raw image a hole is stored data that happens to be zero.
        let data = !(zero && format == RAW);
        Ok(Entry { length: status.len, zero, data, ..told })
    }

    fn holes_count(&mut self, layer: usize, store: &dyn Storage) -> Result<bool> {
        if let Some(answer) = self.holes_count[layer] {
            return Ok(answer);
        }
        let image = self.disk.layers()[layer].image.info();
        let answer = match image.cluster_size {
            _ if image.format == RAW || image.fixed => true,
            Some(cluster) if image.format == QCOW2 => is_preallocated(store, cluster)?,
            _ => false,
        };
        self.holes_count[layer] = Some(answer);
        Ok(answer)
    }

    fn whole_entry(&mut self) -> Result<Option<Entry>> {
        let Some(mut entry) = self.ahead.take().map_or_else(|| self.step(), |e| Ok(Some(e)))?
        else {
            return Ok(None);
        };
        while let Some(next) = self.step()? {
            if !entry.goes_on(&next) {
                self.ahead = Some(next);
                break;
            }
            entry.length += next.length;
        }
        Ok(Some(entry))
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.whole_entry().transpose()
    }
}

/// Whether the file has many more clusters than it occupies: qemu's sign of preallocated metadata.
/// Where a file system cannot tell, nothing is known to be a hole either.
fn is_preallocated(store: &dyn Storage, cluster: u64) -> Result<bool> {
    let Some(holes) = store.holes() else { return Ok(false) };
    let clusters = store.len()?.div_ceil(cluster);
    let occupied = holes.allocated()? / cluster;
    let more = (occupied + 2).max(occupied.saturating_mul(10) / 9);
    Ok(clusters >= more)
}

/// Whether `store` is another file than the one that the image was opened by.
fn is_extent(layer: &Layer, store: &dyn Storage) -> bool {
    store.name() != layer.location.to_string()
}

/// The answer of an image of this format.
fn entry(disk: &Disk, found: &DiskExtent<'_>, range: GuestRange, format: &str) -> Entry {
    let mut entry = Entry {
        start: range.start().get(),
        length: found.extent.len,
        depth: found.layer,
        present: true,
        ..Entry::default()
    };
    let layer = &disk.layers()[found.layer];
    let place = match &found.extent.source {
        Source::Data { store, at, .. } => {
            entry.data = true;
            // Elsewhere bytes are transformed on the way: as they lie in a file, nobody reads them.
            let Some(file) = store.fd() else { return entry };
            entry.file = Some(store.name().to_owned());
            return Entry { offset: Some(file.start.get() + at.get()), ..entry };
        }
        Source::Encoded(_) => {
            (entry.data, entry.compressed) = (true, true);
            None
        }
        Source::Zero { reserved } => {
            entry.zero = true;
            reserved.as_ref()
        }
        Source::Absent { reserved } => {
            // A block that a VDI or VHD has not is zeroes to qemu.
            (entry.zero, entry.present) = (true, [VDI, VPC].contains(&format));
            reserved.as_ref()
        }
        _ => None,
    };
    entry.offset = place.map(|at| at.get());
    entry.file = place.map(|_| layer.location.to_string());
    entry
}
