//! The extents of a descriptor, opened and put end to end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anydisk_core::{
    Access, Error, GuestOffset, GuestRange, HostOffset, MissingStorage, OpenRequest, Result,
    Storage, Value,
};

use super::{Assembly, cowd, hosted, read_header, sesparse, text_invalid};
use crate::descriptor::{Descriptor, ExtentAccess, ExtentKind, ExtentLine};
use crate::extent::{Body, File, Flat, Part, Sparse};
use crate::header::limit;
use crate::layout::SECTOR;
use crate::limits;
use crate::mend;

/// Collects files and parts.
pub(super) struct Assembler<'a> {
    request: &'a OpenRequest<'a>,
    files: Vec<File>,
    parts: Vec<Part>,
    /// Files by the name that the descriptor gives them: each is opened once.
    by_name: HashMap<Vec<u8>, usize>,
    warnings: Vec<String>,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(request: &'a OpenRequest<'a>) -> Self {
        let own = File::new(Arc::clone(&request.store), request.location.to_string());
        Self {
            request,
            files: vec![own],
            parts: Vec::new(),
            by_name: HashMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Opens the extents of a descriptor and puts them end to end.
    pub(super) fn finish(mut self, descriptor: Descriptor, room: Option<u64>) -> Result<Assembly> {
        if descriptor.extents.is_empty() {
            let expected = "at least 1 (a disk without extents has no bytes)";
            let at = descriptor.at();
            return Err(text_invalid("number of extents", at, Value::Number(0), expected).into());
        }
        // First all sizes: a descriptor that cannot be meant opens no file.
        limit("number of extents", descriptor.extents.len() as u64, limits::FILES)?;
        let mut end = 0_u64;
        let mut ranges = Vec::with_capacity(descriptor.extents.len());
        for line in &descriptor.extents {
            let next = end.saturating_add(line.len);
            limit("size of the disk in bytes", next, limits::DISK)?;
            ranges.push(GuestRange::between(GuestOffset(end), GuestOffset(next)));
            end = next;
        }
        for (line, range) in descriptor.extents.iter().zip(ranges) {
            let part = self.part(line, range)?;
            self.parts.push(part);
        }
        Ok(self.assembly(descriptor, room))
    }

    /// What was collected.
    pub(super) fn assembly(mut self, descriptor: Descriptor, room: Option<u64>) -> Assembly {
        self.tell_second_directories();
        for part in &self.parts {
            if let Body::Sparse(sparse) = &part.body {
                let end = &self.files[sparse.file].metadata_end;
                end.fetch_max(sparse.overhead.get(), Relaxed);
            }
        }
        let Self { files, parts, warnings, .. } = self;
        Assembly { files, parts, descriptor, room, warnings }
    }

    pub(super) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn tell_second_directories(&mut self) {
        for part in &self.parts {
            let Body::Sparse(sparse) = &part.body else { continue };
            let name = &self.files[sparse.file].name;
            let what = match (sparse.damaged, sparse.misled.is_empty()) {
                (true, _) => "its first grain directory is not in the file; the second is used",
                (_, false) => {
                    "its first grain directory names one place for several tables; for these, the second is used"
                }
                _ => continue,
            };
            self.warnings.push(format!("Of {name}, {what}."));
        }
    }

    fn part(&mut self, line: &ExtentLine, range: GuestRange) -> Result<Part> {
        let access = match (line.access, self.request.access) {
            (ExtentAccess::None, _) => None,
            (ExtentAccess::ReadWrite, Access::ReadWrite) => Some(Access::ReadWrite),
            _ => Some(Access::Read),
        };
        let (kind, body) = match (line.kind, access) {
            (ExtentKind::Zero, _) | (_, None) => ("ZERO", Body::Zero),
            (kind @ (ExtentKind::Flat | ExtentKind::Device), Some(access)) => {
                (kind.word(), self.flat(line, access)?)
            }
            (_, Some(access)) => {
                let is_written = matches!(line.kind, ExtentKind::Sparse | ExtentKind::VmfsSparse);
                let file = self.file(line, if is_written { access } else { Access::Read })?;
                (line.kind.word(), self.grains(file, line)?)
            }
        };
        let stored = !matches!(line.kind, ExtentKind::Zero | ExtentKind::SeSparse);
        let writable = stored && access == Some(Access::ReadWrite);
        Ok(Part::new(range, writable, kind, body))
    }

    /// The file of an extent, opened by the resolver unless it is open already.
    fn file(&mut self, line: &ExtentLine, access: Access) -> Result<usize> {
        if let Some(&file) = self.by_name.get(&line.name) {
            return self.shared(file, line, access);
        }
        let reference = line.reference();
        let names = std::iter::once(reference.clone()).chain(line.reference_as_written());
        let located = self.request.part(names, access)?;
        let own = self.request.store.identity();
        if own.is_some() && located.store.identity() == own {
            return Err(reference.denied("it is the descriptor itself"));
        }
        let (name, mut store) = (located.location.to_string(), located.store);
        if self.request.resolver.bears_loss() && access == Access::Read {
            // One of which nothing can be read is dealt with when it is.
            let (limits, notes) = (self.request.limits, &mut self.warnings);
            let mended = mend::for_salvage(mend::Part::Extent, Arc::clone(&store), limits, notes);
            store = mended.unwrap_or(store);
        }
        self.files.push(File::new(store, name));
        let file = self.files.len() - 1;
        self.by_name.insert(line.name.clone(), file);
        Ok(file)
    }

    /// A file that another extent is in already.
    fn shared(&self, file: usize, line: &ExtentLine, access: Access) -> Result<usize> {
        if access == Access::Read || self.files[file].store.is_writable() {
            return Ok(file);
        }
        let name = String::from_utf8_lossy(&line.name);
        Err(Error::ReadOnly { why: format!("another extent of {name:?} is read-only").into() })
    }

    fn within(&self, file: usize, error: Error) -> Error {
        error.within(&self.files[file].name)
    }

    fn flat(&mut self, line: &ExtentLine, access: Access) -> Result<Body> {
        let file = self.file(line, access)?;
        let end = HostOffset(self.files[file].store.len()?);
        Ok(Body::Flat(Flat::new(file, line.start, end)))
    }

    /// The extent of grains in a file; what cannot be read, where that is borne.
    fn grains(&mut self, file: usize, line: &ExtentLine) -> Result<Body> {
        match self.sparse(file, line) {
            Ok(sparse) => Ok(Body::Sparse(sparse)),
            Err(why) if self.request.resolver.bears_loss() => Ok(self.missing(file, &why)),
            Err(why) => Err(self.within(file, why)),
        }
    }

    /// Stands for all of an extent of which nothing can be read.
    fn missing(&mut self, file: usize, why: &Error) -> Body {
        let name = self.files[file].name.clone();
        let store = Arc::new(MissingStorage::new(name.clone(), why));
        self.files.push(File::new(store, name));
        let endless = HostOffset(i64::MAX.unsigned_abs());
        Body::Flat(Flat::new(self.files.len() - 1, HostOffset::ZERO, endless))
    }

    /// The extent of grains in a file, of at least as many bytes as the line promises.
    fn sparse(&mut self, file: usize, line: &ExtentLine) -> Result<Sparse> {
        let store = Arc::clone(&self.files[file].store);
        let store = &*store;
        let (field, at, sparse) = match line.kind {
            ExtentKind::VmfsSparse => ("numSectors", 12, cowd::extent(file, store)?),
            ExtentKind::SeSparse => ("capacity", 16, sesparse::extent(file, store)?),
            _ => {
                let header = read_header(store, self.request.limits)?;
                ("capacity", 12, hosted::extent(file, store, &header)?)
            }
        };
        check_capacity(field, HostOffset(at), sparse.geometry().capacity(), line)?;
        Ok(sparse)
    }
}

/// The extent's file must hold at least what the descriptor's line promises.
fn check_capacity(
    field: &'static str,
    at: HostOffset,
    capacity: u64,
    line: &ExtentLine,
) -> Result<()> {
    if capacity >= line.len {
        return Ok(());
    }
    let expected = format!("at least the {} sectors of the descriptor", line.len / SECTOR);
    Err(text_invalid(field, at, Value::Number(capacity / SECTOR), expected).into())
}
