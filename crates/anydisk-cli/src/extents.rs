//! What a disk holds, run by run, in qemu-img's terms.

use anydisk::storage::Storage;
use anydisk::{Disk, DiskExtent, GuestRange, Layer, Result, Source};

const RAW: &str = "raw";

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
    fn end(&self) -> u64 {
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
}

impl<'a> Entries<'a> {
    pub(crate) fn new(disk: &'a Disk, range: GuestRange) -> Self {
        Self { disk, rest: range, ahead: None }
    }

    /// The next answer of the disk.
    fn step(&mut self) -> Result<Option<Entry>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let entry = look(self.disk, self.rest)?;
        self.rest = self.rest.skip(entry.length);
        Ok(Some(entry))
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

/// The answer of the disk. As in qemu-img, holes of a host file count where its bytes are those of
/// the disk: in raw images and in extents that are files of their own. Elsewhere the format's own
/// word counts.
fn look(disk: &Disk, range: GuestRange) -> Result<Entry> {
    let found = disk.map(range)?;
    let told = entry(disk, &found, range);
    let layer = &disk.layers()[found.layer];
    let is_raw = layer.image.info().format == RAW;
    match &found.extent.source {
        Source::Data { store, .. } if is_raw || is_extent(layer, &**store) => {
            let status = disk.status(range.first(told.length))?.extent;
            let zero = matches!(status.source, Source::Zero { .. });
            // A hole in an extent is stored data that happens to be zero.
            Ok(Entry { length: status.len, zero, data: !(zero && is_raw), ..told })
        }
        _ => Ok(told),
    }
}

/// Whether `store` is another file than the one that the image was opened by.
fn is_extent(layer: &Layer, store: &dyn Storage) -> bool {
    store.name() != layer.location.to_string()
}

fn entry(disk: &Disk, found: &DiskExtent<'_>, range: GuestRange) -> Entry {
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
            entry.file = Some(store.name().to_owned());
            return Entry { offset: Some(at.get()), ..entry };
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
            (entry.zero, entry.present) = (true, false);
            reserved.as_ref()
        }
        _ => None,
    };
    entry.offset = place.map(|at| at.get());
    entry.file = place.map(|_| layer.location.to_string());
    entry
}
