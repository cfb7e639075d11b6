//! What a disk holds, run by run, in qemu-img's terms.

use anydisk::storage::Storage;
use anydisk::{Disk, DiskExtent, GuestRange, Result, Source};

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
        let found = look(self.disk, self.rest)?;
        let entry = entry(self.disk, &found, self.rest);
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

/// The answer of the disk. As in qemu-img, a hole in the file of a raw image is a hole of the disk;
/// in the file of any other format the format's own word counts.
fn look(disk: &Disk, range: GuestRange) -> Result<DiskExtent<'_>> {
    let found = disk.map(range)?;
    if disk.layers()[found.layer].image.info().format == "raw" {
        return disk.status(range.first(found.extent.len));
    }
    Ok(found)
}

fn entry(disk: &Disk, found: &DiskExtent<'_>, range: GuestRange) -> Entry {
    let mut entry = Entry {
        start: range.start().get(),
        length: found.extent.len,
        depth: found.layer,
        present: true,
        ..Entry::default()
    };
    let layer_file = || disk.layers()[found.layer].location.to_string();
    match &found.extent.source {
        Source::Data { store, at, .. } => {
            entry.data = true;
            entry.offset = Some(at.get());
            entry.file = Some(shown(disk, store.name()));
        }
        Source::Encoded(_) => (entry.data, entry.compressed) = (true, true),
        Source::Zero { reserved } => {
            entry.zero = true;
            entry.offset = reserved.map(anydisk::HostOffset::get);
            entry.file = reserved.map(|_| shown(disk, &layer_file()));
        }
        _ => {
            entry.zero = true;
            // Behind the end of a shorter image below it is that image that says zero.
            entry.present = found.layer + 1 < disk.layers().len();
            entry.depth += usize::from(entry.present);
        }
    }
    entry
}

/// The name of a file as qemu-img shows it: the folder of the top image is written only if it was
/// typed.
fn shown(disk: &Disk, name: &str) -> String {
    let typed = disk.layers()[0].location.to_string().starts_with("./");
    name.strip_prefix("./").filter(|_| !typed).unwrap_or(name).to_owned()
}
