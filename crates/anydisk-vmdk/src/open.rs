//! From files to an image: the descriptor, then the extents it names.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use anydisk_core::{
    Access, Error, GuestOffset, GuestRange, HostOffset, Invalid, OpenRequest, Reference, Result,
    Role, Storage, StorageExt, Value,
};
use zerocopy::FromBytes;

use crate::NAME;
use crate::descriptor::{Descriptor, ExtentAccess, ExtentKind, ExtentLine};
use crate::extent::{Body, File, Flat, Packed, Part, Sparse};
use crate::header::{Cowd, Header, invalid, limit, unsupported};
use crate::layout::{
    COWD_ENTRIES, COWD_MAGIC, MAGIC, MetadataMarker, SECTOR, SESPARSE_MAGIC, SparseHeader, flags,
    marker,
};
use crate::limits;
use crate::table::{ENTRY, Geometry};

/// An image taken apart.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// The files; the first holds the descriptor.
    pub(crate) files: Vec<File>,
    /// The parts of the disk, in guest order without gaps.
    pub(crate) parts: Vec<Part>,
    pub(crate) descriptor: Descriptor,
    /// Bytes there are for the descriptor where it is embedded.
    pub(crate) room: Option<u64>,
}

/// Opens what the request names and the extents it is made of.
pub(crate) fn assemble(request: &OpenRequest<'_>) -> Result<Assembly> {
    let mut magic = [0; 8];
    request.store.read_padded_at(HostOffset::ZERO, &mut magic)?;
    if magic[..4] == MAGIC {
        return assemble_sparse(request);
    }
    if magic[..4] == COWD_MAGIC {
        return Err(unsupported("a COWD extent without its descriptor"));
    }
    if magic == SESPARSE_MAGIC {
        return Err(unsupported("a seSparse extent without its descriptor"));
    }
    let len = request.store.len()?;
    limit("size of the descriptor in bytes", len, request.limits.descriptor as u64)?;
    let descriptor = read_descriptor(request, HostOffset::ZERO, len)?;
    Assembler::new(request).finish(descriptor, None)
}

/// A sparse extent that holds its descriptor: the disk is this extent, whatever the descriptor
/// says of it (who renames the file leaves the old name inside).
fn assemble_sparse(request: &OpenRequest<'_>) -> Result<Assembly> {
    let header = read_header(&*request.store, request)?;
    let Some((at, room)) = header.descriptor else {
        let found = Value::Number(0);
        let expected = "a descriptor (an extent without one is opened by the file that names it)";
        return Err(
            invalid!(SparseHeader, descriptorOffset, HostOffset::ZERO, found, expected).into()
        );
    };
    let descriptor = read_descriptor(request, at, room)?;
    let mut assembler = Assembler::new(request);
    // An old habit: a descriptor file that begins like a sparse extent.
    if header.capacity == 0 {
        return assembler.finish(descriptor, Some(room));
    }
    if let [_, second, ..] = descriptor.extents.as_slice() {
        return Err(unsupported(format!(
            "an extent that holds the descriptor of several (the second at {})",
            second.at
        )));
    }
    let sparse = assembler.hosted(0, &header)?;
    let range = GuestRange::whole(header.capacity);
    let writable = request.access == Access::ReadWrite;
    assembler.parts.push(Part { range, writable, kind: "", body: Body::Sparse(sparse) });
    let Assembler { files, parts, .. } = assembler;
    Ok(Assembly { files, parts, descriptor, room: Some(room) })
}

fn read_descriptor(request: &OpenRequest<'_>, at: HostOffset, len: u64) -> Result<Descriptor> {
    let end = HostOffset(request.store.len()?);
    if at.saturating_add(len) > end {
        let found = Value::Hex(at.get());
        let expected = format!("{len} bytes before the end of the file at {end}");
        return Err(
            invalid!(SparseHeader, descriptorOffset, HostOffset::ZERO, found, expected).into()
        );
    }
    let mut text = vec![0; usize::try_from(len).expect("limited above")];
    request.store.read_padded_at(at, &mut text)?;
    Descriptor::parse(&text, at, request.limits)
}

/// Reads the header of a hosted sparse extent, and its footer if that is the one that counts.
fn read_header(store: &dyn Storage, request: &OpenRequest<'_>) -> Result<Header> {
    let mut bytes = [0; 512];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    let header = Header::parse(&bytes[..count], HostOffset::ZERO, request.limits)?;
    if header.directory.is_some() || header.capacity == 0 {
        return Ok(header);
    }
    let footer = read_footer(store, request, header.has(flags::MARKERS))?;
    if !header.agrees_with(&footer) {
        let at = HostOffset(store.len()?.saturating_sub(2 * SECTOR));
        let expected = "the capacity, grain size, table size and flags of the header";
        return Err(text_invalid("footer", at, Value::Number(footer.capacity), expected).into());
    }
    // The descriptor is where the header says: the footer's copy may be older.
    Ok(Header { descriptor: header.descriptor, ..footer })
}

/// The footer: the last but one of the file's sectors, between its marker (where blocks are marked)
/// and the end of stream.
fn read_footer(store: &dyn Storage, request: &OpenRequest<'_>, marked: bool) -> Result<Header> {
    let len = store.len()?;
    let at = HostOffset(len.saturating_sub(3 * SECTOR));
    let mut bytes = [0; 1536];
    store.read_padded_at(at, &mut bytes)?;
    let (head, rest) = bytes.split_at(512);
    let (footer, tail) = rest.split_at(512);
    let is = |bytes: &[u8], value: u64, kind: u32| {
        MetadataMarker::read_from_bytes(bytes).is_ok_and(|marker| {
            marker.size.get() == 0 && marker.value.get() == value && marker.kind.get() == kind
        })
    };
    let marked_so = !marked || is(head, 1, marker::FOOTER);
    if len < 4 * SECTOR || !marked_so || !is(tail, 0, marker::END_OF_STREAM) {
        let expected = "a footer between its marker and the end-of-stream marker, as gdOffset says";
        return Err(text_invalid("footer", at, Value::Missing, expected).into());
    }
    let at = at.saturating_add(SECTOR);
    let footer = Header::parse(footer, at, request.limits)?;
    if footer.directory.is_none() {
        let found = Value::Hex(u64::MAX);
        let expected = "the place of the directory";
        return Err(invalid!(SparseHeader, gdOffset, at, found, expected).into());
    }
    Ok(footer)
}

/// Collects files and parts.
struct Assembler<'a> {
    request: &'a OpenRequest<'a>,
    files: Vec<File>,
    parts: Vec<Part>,
    /// Files by the name that the descriptor gives them: each is opened once.
    by_name: HashMap<Vec<u8>, usize>,
}

impl<'a> Assembler<'a> {
    fn new(request: &'a OpenRequest<'a>) -> Self {
        let own = File {
            store: Arc::clone(&request.store),
            name: request.location.to_string(),
            used: AtomicBool::new(false),
        };
        Self { request, files: vec![own], parts: Vec::new(), by_name: HashMap::new() }
    }

    /// Opens the extents of a descriptor and puts them end to end.
    fn finish(mut self, descriptor: Descriptor, room: Option<u64>) -> Result<Assembly> {
        if descriptor.extents.is_empty() {
            let expected = "at least 1 (a disk without extents has no bytes)";
            let at = descriptor.at();
            return Err(text_invalid("number of extents", at, Value::Number(0), expected).into());
        }
        // First all sizes: a descriptor that cannot be meant opens no file.
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
        Ok(Assembly { files: self.files, parts: self.parts, descriptor, room })
    }

    fn part(&mut self, line: &ExtentLine, range: GuestRange) -> Result<Part> {
        let access = match (line.access, self.request.access) {
            (ExtentAccess::None, _) => None,
            (ExtentAccess::ReadWrite, Access::ReadWrite) => Some(Access::ReadWrite),
            _ => Some(Access::Read),
        };
        let (kind, body) = match (line.kind, access) {
            (ExtentKind::Zero, _) | (_, None) => ("ZERO", Body::Zero),
            (ExtentKind::Flat, Some(access)) => ("FLAT", self.flat(line, access)?),
            (ExtentKind::Sparse, Some(access)) => {
                let file = self.file(line, access)?;
                let sparse = self.sparse(file, line).map_err(|error| self.within(file, error))?;
                ("SPARSE", Body::Sparse(sparse))
            }
            (ExtentKind::VmfsSparse, Some(_)) => {
                let file = self.file(line, Access::Read)?;
                let sparse = self.cowd(file, line).map_err(|error| self.within(file, error))?;
                ("VMFSSPARSE", Body::Sparse(sparse))
            }
        };
        let stored = !matches!(body, Body::Zero) && line.kind != ExtentKind::VmfsSparse;
        let writable = stored && access == Some(Access::ReadWrite);
        Ok(Part { range, writable, kind, body })
    }

    /// The file of an extent, opened by the resolver unless it is open already.
    fn file(&mut self, line: &ExtentLine, access: Access) -> Result<usize> {
        if let Some(&file) = self.by_name.get(&line.name) {
            return self.shared(file, line, access);
        }
        let reference = Reference::new(Role::Extent, line.name.clone());
        let located = self.request.resolver.resolve(&reference, self.request.location, access)?;
        let own = self.request.store.identity();
        if own.is_some() && located.store.identity() == own {
            return Err(reference.denied("it is the descriptor itself"));
        }
        let used = AtomicBool::new(false);
        let name = located.location.to_string();
        self.files.push(File { store: located.store, name, used });
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
        Ok(Body::Flat(Flat { file, at: line.start, end }))
    }

    fn sparse(&self, file: usize, line: &ExtentLine) -> Result<Sparse> {
        let header = read_header(&*self.files[file].store, self.request)?;
        check_capacity("capacity", HostOffset(0x0C), header.capacity, line)?;
        self.hosted(file, &header)
    }

    fn hosted(&self, file: usize, header: &Header) -> Result<Sparse> {
        let directory = header.directory.ok_or_else(|| {
            let (found, expected) = (Value::Number(0), "the place of the directory");
            invalid!(SparseHeader, gdOffset, HostOffset::ZERO, found, expected)
        })?;
        let sparse = Sparse {
            file,
            geometry: Geometry::new(header.grain, header.entries, header.capacity),
            directory,
            redundant: header.redundant,
            zeroed: header.has(flags::ZEROED_GRAIN),
            packed: match (header.has(flags::COMPRESSED), header.has(flags::MARKERS)) {
                (false, _) => Packed::No,
                (true, true) => Packed::Marked,
                (true, false) => Packed::Counted,
            },
            overhead: header.overhead,
            unclean: header.unclean,
            end: AtomicU64::new(self.files[file].store.len()?),
        };
        check_inside("overHead", header.overhead, 0, &sparse)?;
        check_inside("gdOffset", directory, sparse.geometry.tables() * ENTRY, &sparse)?;
        Ok(sparse)
    }

    fn cowd(&self, file: usize, line: &ExtentLine) -> Result<Sparse> {
        let store = &self.files[file].store;
        let mut bytes = [0; 32];
        let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
        let bytes = &bytes[..count];
        if !bytes.starts_with(&COWD_MAGIC) {
            let found = Value::from(&bytes[..count.min(4)]);
            return Err(text_invalid("magic", HostOffset::ZERO, found, "\"COWD\"").into());
        }
        let header = Cowd::parse(bytes)?;
        check_capacity("numSectors", HostOffset(12), header.capacity, line)?;
        let geometry = Geometry::new(header.grain, COWD_ENTRIES, header.capacity);
        let directory_len = geometry.tables() * ENTRY;
        let sparse = Sparse {
            file,
            geometry,
            directory: header.directory,
            redundant: None,
            zeroed: false,
            packed: Packed::No,
            // Tables and grains are allocated in turn, behind the directory.
            overhead: header.directory.saturating_add(directory_len),
            unclean: false,
            end: AtomicU64::new(store.len()?),
        };
        check_inside("gdOffset", header.directory, directory_len, &sparse)?;
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

fn check_inside(field: &'static str, at: HostOffset, len: u64, sparse: &Sparse) -> Result<()> {
    let end = sparse.end();
    if at.saturating_add(len) <= end {
        return Ok(());
    }
    let place = HostOffset(match field {
        "overHead" => std::mem::offset_of!(SparseHeader, overHead) as u64,
        _ => std::mem::offset_of!(SparseHeader, gdOffset) as u64,
    });
    let expected = format!("{len} bytes before the end of the file at {end}");
    Err(text_invalid(field, place, Value::Hex(at.get() / SECTOR), expected).into())
}

fn text_invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    Invalid { format: NAME, field: field.into(), at, found, expected: expected.into() }
}
