//! From files to an image: the descriptor, then the extents it names.

mod assembler;
mod cowd;
mod hosted;
mod sesparse;

use std::collections::HashSet;
use std::sync::Arc;

use anydisk_core::{
    Access, Error, GuestRange, HostOffset, Invalid, OpenRequest, Reference, Result, StorageExt,
    Value,
};

use crate::NAME;
use crate::descriptor::{Descriptor, ExtentLine, is_descriptor};
use crate::extent::{Body, File, Part, Sparse};
use crate::header::{invalid, limit, unsupported};
use crate::image::backing;
use crate::layout::{COWD_MAGIC, MAGIC, SECTOR, SESPARSE_MAGIC, SparseHeader};
use crate::mend;
use assembler::Assembler;
pub(crate) use hosted::{extent as hosted_extent, read_footer, read_header};

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
    /// What a person should know of the image, though it opened.
    pub(crate) warnings: Vec<String>,
}

impl Assembly {
    /// Bytes that the descriptor says the extent has that holds it.
    pub(crate) fn told_of_own(&self) -> Option<u64> {
        let holds_it =
            self.room.is_some() && self.parts.first().is_some_and(|part| part.file() == Some(0));
        self.descriptor.extents.first().filter(|_| holds_it).map(|line| line.len)
    }

    /// What is written to a disk that is smaller than it was would go to where the rest lies.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] for a header that says less than the descriptor in its file.
    pub(crate) fn check_size(&self) -> Result<()> {
        let size = self.parts.first().map_or(0, |part| part.range().len());
        match self.told_of_own().filter(|told| *told > size) {
            None => Ok(()),
            Some(told) => {
                let why = format!("{size} bytes in the header, {told} in the descriptor");
                Err(Error::needs_repair(NAME, why))
            }
        }
    }
}

/// Opens what the request names and the extents it is made of. Where loss is borne, also what could be
/// opened after a repair, which is done in memory.
pub(crate) fn assemble(request: &OpenRequest<'_>) -> Result<Assembly> {
    if !request.resolver.bears_loss() || request.access != Access::Read {
        return assemble_file(request);
    }
    let mut notes = Vec::new();
    let store = mend::for_salvage(
        mend::Part::Whole,
        Arc::clone(&request.store),
        request.limits,
        &mut notes,
    )?;
    let mut assembly = assemble_file(&OpenRequest { store, ..request.clone() })?;
    assembly.warnings.extend(notes);
    Ok(assembly)
}

fn assemble_file(request: &OpenRequest<'_>) -> Result<Assembly> {
    let mut magic = [0; 8];
    request.store.read_padded_at(HostOffset::ZERO, &mut magic)?;
    if magic[..4] == MAGIC {
        return assemble_sparse(request);
    }
    if magic[..4] == COWD_MAGIC {
        return assemble_bare(request, "VMFSSPARSE", cowd::extent(0, &*request.store)?);
    }
    if magic == SESPARSE_MAGIC {
        return assemble_bare(request, "SESPARSE", sesparse::extent(0, &*request.store)?);
    }
    Assembler::new(request).finish(read_whole_descriptor(request)?, None)
}

/// The files that the image at the request's store is made of, and its parent, as its descriptor
/// names them. None is opened.
pub(crate) fn references(request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
    let mut magic = [0; 8];
    request.store.read_padded_at(HostOffset::ZERO, &mut magic)?;
    if magic[..4] == COWD_MAGIC || magic == SESPARSE_MAGIC {
        return Ok(Vec::new());
    }
    let (descriptor, is_whole) = if magic[..4] == MAGIC {
        let header = read_header(&*request.store, request.limits)?;
        let (at, room) = header.descriptor.ok_or_else(no_descriptor)?;
        (read_descriptor(request, at, room)?, header.capacity != 0)
    } else {
        (read_whole_descriptor(request)?, false)
    };
    // An extent that holds its descriptor is the whole disk, whatever the descriptor calls it.
    let lines = descriptor.extents.iter().filter(|line| !is_whole && line.is_in_a_file());
    let mut known = HashSet::new();
    let files = lines.filter(|line| known.insert(&line.name)).map(ExtentLine::reference);
    Ok(files.chain(backing(&descriptor)).collect())
}

/// A sparse extent that holds its descriptor: the disk is this extent, whatever the descriptor
/// says of it (who renames the file leaves the old name inside).
fn assemble_sparse(request: &OpenRequest<'_>) -> Result<Assembly> {
    let header = read_header(&*request.store, request.limits)?;
    let (at, room) = header.descriptor.ok_or_else(no_descriptor)?;
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
    let sparse = hosted::extent(0, &*request.store, &header)?;
    let range = GuestRange::whole(header.capacity);
    let writable = request.access == Access::ReadWrite;
    if let Some(line) = descriptor.extents.first().filter(|line| line.len > header.capacity) {
        assembler.warn(format!(
            "Its header speaks of {} bytes, its descriptor of {}: one of them is damaged.",
            header.capacity, line.len
        ));
    }
    assembler.push(Part::new(range, writable, "", Body::Sparse(sparse)));
    Ok(assembler.assembly(descriptor, Some(room)))
}

/// An extent of ESX by itself. What it says is shown; whether there was a disk below it, only its
/// descriptor knows.
fn assemble_bare(
    request: &OpenRequest<'_>,
    kind: &'static str,
    sparse: Sparse,
) -> Result<Assembly> {
    let mut assembler = Assembler::new(request);
    let range = GuestRange::whole(sparse.geometry().capacity());
    if range.is_empty() {
        return Err(unsupported("an extent of 0 bytes"));
    }
    assembler.push(Part::new(range, false, kind, Body::Sparse(sparse)));
    assembler.warn(format!(
        "It is an extent ({kind}) without the descriptor that names it: what it has from a disk \
         below reads as zero."
    ));
    Ok(assembler.assembly(Descriptor::missing(), None))
}

fn no_descriptor() -> Invalid {
    let found = Value::Number(0);
    let expected = "a descriptor (an extent without one is opened by the file that names it)";
    invalid!(SparseHeader, descriptorOffset, HostOffset::ZERO, found, expected)
}

/// The descriptor that is all of the file.
fn read_whole_descriptor(request: &OpenRequest<'_>) -> Result<Descriptor> {
    let len = request.store.len()?;
    if len > request.limits.descriptor as u64 {
        // What is none is not too large.
        let mut head = [0; 4 << 10];
        request.store.read_padded_at(HostOffset::ZERO, &mut head)?;
        if !is_descriptor(&head) {
            let (found, expected) = (Value::from(&head[..16]), "the text of a descriptor");
            return Err(text_invalid("version", HostOffset::ZERO, found, expected).into());
        }
    }
    limit("size of the descriptor in bytes", len, request.limits.descriptor as u64)?;
    read_descriptor(request, HostOffset::ZERO, len)
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
