//! Extents that are added behind the last one of a split disk, as it was made.

use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Located, NewSize, Preallocation, Reference, Result,
    Role, StorageExt,
};
use zerocopy::FromBytes;

use super::flat;
use crate::create;
use crate::descriptor::{Descriptor, ExtentKind, ExtentLine};
use crate::extent::{Body, File, Flat, Part, Sparse};
use crate::header::{limit, unsupported};
use crate::image::VmdkImage;
use crate::layout::{SECTOR, SparseHeader};
use crate::limits;
use crate::open;
use crate::write::{SparseWriter, Writer};

/// Bytes of the extents of a split disk, where nothing tells it.
const SPLIT: u64 = 2 << 30;

/// Create types of split disks; those with other words for the number are old.
const SPLIT_TYPES: [&str; 4] =
    ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "2GbMaxExtentSparse", "2GbMaxExtentFlat"];

/// Bytes of each extent of a split disk but the last; `None` for a disk that is not split.
pub(super) fn split_len(descriptor: &Descriptor) -> Option<u64> {
    let is_split = |word: &&&str| descriptor.create_type.eq_ignore_ascii_case(word);
    SPLIT_TYPES.iter().find(is_split)?;
    match descriptor.extents.as_slice() {
        [first, _, ..] => Some(first.len),
        _ => Some(SPLIT),
    }
}

/// The name of the `step`-th extent behind the one called `last`: its number is counted on.
fn next_name(last: &[u8], step: u64) -> Result<Vec<u8>> {
    let dot = last.iter().rposition(|byte| *byte == b'.').unwrap_or(last.len());
    let (stem, extension) = last.split_at(dot);
    let digits = stem.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (stem, number) = stem.split_at(stem.len() - digits);
    let number: Option<u64> = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    let Some(next) = number.and_then(|number| number.checked_add(step)) else {
        let name = String::from_utf8_lossy(last).into_owned();
        return Err(unsupported(format!("adding an extent behind {name:?}, which has no number")));
    };
    Ok([stem, format!("{next:0digits$}").as_bytes(), extension].concat())
}

/// Files that may be there already, left by a resize that was cut short: their numbers are passed over.
const TAKEN: u64 = 1 << 12;

/// A new file behind the extent `last` and the `step` files that were made, with the next number that no
/// file has.
fn next_file(last: &ExtentLine, step: &mut u64, new: &NewSize<'_>) -> Result<(Vec<u8>, Located)> {
    let end = step.saturating_add(TAKEN);
    loop {
        *step += 1;
        let name = next_name(&last.name, *step)?;
        match new.companions.make(&Reference::new(Role::Extent, name.clone())) {
            Err(Error::Exists { .. }) if *step < end => {}
            made => return Ok((name, made?)),
        }
    }
}

impl VmdkImage {
    /// Makes files for extents of these lengths and puts them behind the disk, in memory. What was
    /// made is told in `made`, also if not all could be.
    pub(super) fn add_extents(
        &self,
        writer: &Writer,
        lens: &[u64],
        new: &NewSize<'_>,
        made: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<()> {
        if lens.is_empty() {
            return Ok(());
        }
        let count = self.files.len().saturating_add(lens.len()) as u64;
        limit("number of extents", count, limits::FILES.min(writer.limits.extents as u64))?;
        let last = writer.descriptor.read(|descriptor| descriptor.extents.last().cloned());
        let last = last.ok_or_else(|| unsupported("adding to a disk without extents"))?;
        let first = self.files.len();
        self.make_files(&last, lens, new, made)?;
        let mut start = self.parts.last().map_or(0, |part| part.range().end().get());
        let mut parts = Vec::new();
        for (len, file) in lens.iter().zip(first..) {
            let body = self.new_body(writer, &last, (file, *len), new.preallocation)?;
            let end = start.saturating_add(*len);
            let range = GuestRange::between(GuestOffset(start), GuestOffset(end));
            parts.push(Part::new(range, true, last.kind.word(), body));
            start = end;
        }
        self.parts.extend(parts);
        Ok(())
    }

    /// Makes files behind the last extent.
    fn make_files(
        &self,
        last: &ExtentLine,
        lens: &[u64],
        new: &NewSize<'_>,
        made: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<()> {
        let mut files = Vec::new();
        let mut step = 0;
        for len in lens {
            let (name, located) = next_file(last, &mut step, new)?;
            made.push((*len, name));
            let file = File::new(located.store, located.location.to_string());
            file.used.store(true, Relaxed);
            files.push(file);
        }
        self.files.extend(files);
        Ok(())
    }

    /// Fills file number `file` with an empty extent of `len` bytes, as the last one is.
    fn new_body(
        &self,
        writer: &Writer,
        last: &ExtentLine,
        (file, len): (usize, u64),
        how: Preallocation,
    ) -> Result<Body> {
        match last.kind {
            ExtentKind::Flat => {
                // The line says what the last one does, also where the data begins.
                let flat = Flat::new(file, last.start, last.start.saturating_add(len));
                flat::grow(&flat, &*self.files[file].store, (0, len), how)?;
                Ok(Body::Flat(flat))
            }
            ExtentKind::Sparse => Ok(Body::Sparse(self.new_sparse(writer, file, len)?)),
            _ => Err(unsupported("adding an extent of this type")),
        }
    }

    /// An empty sparse extent in file number `number`, divided as the last one is.
    fn new_sparse(&self, writer: &Writer, number: usize, len: u64) -> Result<Sparse> {
        let sparse = self.parts.iter().filter_map(|part| match &part.body {
            Body::Sparse(sparse) => Some(sparse),
            _ => None,
        });
        let like = sparse.last().ok_or_else(|| unsupported("adding a sparse extent to others"))?;
        let mut bytes = [0; 512];
        self.files[like.file].store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
        let header = SparseHeader::read_from_bytes(&bytes).expect("512 bytes are a header");
        let capacity = (len / SECTOR).into();
        let header = SparseHeader { capacity, uncleanShutdown: 0, ..header };
        let store = &*self.files[number].store;
        create::write_sparse(store, header, &[])?;
        store.flush()?;
        let header = open::read_header(store, &writer.limits)?;
        let sparse = open::hosted_extent(number, store, &header)?;
        let own = SparseWriter::of(self, &sparse, &[], true, &writer.limits)?;
        sparse.writer.set(own.into()).expect("the extent is new");
        self.files[number].metadata_end.store(sparse.overhead.get(), Relaxed);
        Ok(sparse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_extent_is_counted_on() {
        let next = |name: &str, step| {
            next_name(name.as_bytes(), step).map(|name| String::from_utf8(name).expect("text"))
        };
        assert_eq!(next("disk-s001.vmdk", 1).expect("a number"), "disk-s002.vmdk");
        assert_eq!(next("disk-f099", 2).expect("a number"), "disk-f101");
        assert_eq!(next("a.b-s999.x", 1).expect("a number"), "a.b-s1000.x");
        assert!(next("disk.vmdk", 1).is_err());
        assert!(next("disk-s99999999999999999999.vmdk", 1).is_err());
    }
}
