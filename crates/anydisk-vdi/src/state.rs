//! The header as it stands in the file, and the fields of it that change while an image is open.

use std::mem::offset_of;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Doubt, HostOffset, Result, Storage, TableShape, Uuid, narrow};

use crate::header::{Header, Uuids, Version};
use crate::layout::{HeaderV0, HeaderV1, kind};
use crate::link::Changes;

/// The header of an open image. It is written as a whole, inside one sector: the file has the old or
/// the new one.
#[derive(Debug)]
pub(crate) struct HeaderState {
    version: Version,
    /// `uuidModify` is that of this session's content.
    renewed: AtomicBool,
    now: Mutex<Now>,
    /// Whether the size and the place of the map are those that are known.
    pub(crate) doubt: Doubt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Now {
    bytes: Vec<u8>,
    uuids: Uuids,
}

/// A field of the header, by its place in both versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    one: usize,
    /// `None`: version 0 has no such field.
    old: Option<usize>,
}

/// The place of a field that both versions have.
macro_rules! field {
    ($name:ident) => {
        Field { one: offset_of!(HeaderV1, $name), old: Some(offset_of!(HeaderV0, $name)) }
    };
}

/// The place of a field that version 0 does not have.
macro_rules! new_field {
    ($name:ident) => {
        Field { one: offset_of!(HeaderV1, $name), old: None }
    };
}

const TYPE: Field = field!(r#type);
const COMMENT: Field = field!(comment);
pub(crate) const TABLE: Field = new_field!(offBlocks);
pub(crate) const FIRST: Field = new_field!(offData);
const LEGACY_GEOMETRY: Field = field!(legacy_geometry);
pub(crate) const SIZE: Field = field!(cbDisk);
pub(crate) const BLOCKS: Field = field!(cBlocks);
pub(crate) const EXTRA: Field = new_field!(cbBlockExtra);
pub(crate) const ALLOCATED: Field = field!(cBlocksAllocated);
const CREATE: Field = field!(uuidCreate);
const MODIFY: Field = field!(uuidModify);
const LINKAGE: Field = field!(uuidLinkage);
const PARENT_MODIFY: Field = new_field!(uuidParentModify);
const LCHS_GEOMETRY: Field = new_field!(lchs_geometry);

impl Field {
    /// Where the field is in a header of this version.
    pub(crate) fn at(self, version: Version) -> Option<usize> {
        if version == Version::One { Some(self.one) } else { self.old }
    }
}

impl HeaderState {
    /// The header in `bytes`. `is_new`: the image was just made, so nothing can have been made for
    /// its content yet.
    pub(crate) fn new(bytes: Vec<u8>, header: &Header, is_new: bool) -> Self {
        Self {
            version: header.version,
            renewed: AtomicBool::new(is_new),
            now: Mutex::new(Now { bytes, uuids: header.uuids }),
            doubt: Doubt::default(),
        }
    }

    /// The UUIDs now.
    pub(crate) fn uuids(&self) -> Uuids {
        self.lock().uuids
    }

    /// Gives the content a new name before it is changed for the first time: every image that was
    /// made over the old content is thereby told apart. Not flushed here; it is durable no later
    /// than what is written next.
    ///
    /// # Errors
    /// Those of the store; then it is tried again the next time. `ReadOnly` where there is doubt.
    pub(crate) fn renew(&self, store: &dyn Storage) -> Result<()> {
        self.doubt.check()?;
        if self.renewed.load(Acquire) {
            return Ok(());
        }
        let mut now = self.lock();
        if self.renewed.load(Relaxed) {
            return Ok(());
        }
        let mut next = now.clone();
        next.uuids.modify = Uuid::random();
        self.put(&mut next.bytes, MODIFY, &next.uuids.modify.to_mixed_endian());
        Self::write(&mut now, next, store)?;
        self.renewed.store(true, Release);
        Ok(())
    }

    /// Writes the number of blocks in the file, if it changed.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_allocated(&self, count: u64, store: &dyn Storage) -> Result<()> {
        let count = narrow(count);
        let mut now = self.lock();
        let mut next = now.clone();
        self.put(&mut next.bytes, ALLOCATED, &count.to_le_bytes());
        Self::write(&mut now, next, store)
    }

    /// Writes the number of entries that the map has.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_blocks(&self, count: u64, store: &dyn Storage) -> Result<()> {
        let mut now = self.lock();
        let mut next = now.clone();
        self.put(&mut next.bytes, BLOCKS, &narrow(count).to_le_bytes());
        Self::write(&mut now, next, store)
    }

    /// Writes sizes and places, and the number of blocks in the file if it is given.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_shape(
        &self,
        shape: &TableShape,
        count: Option<u64>,
        store: &dyn Storage,
    ) -> Result<()> {
        let mut now = self.lock();
        let mut next = now.clone();
        for (field, value) in
            [(TABLE, shape.table.get()), (FIRST, shape.first.get()), (BLOCKS, shape.entries)]
        {
            self.put(&mut next.bytes, field, &narrow(value).to_le_bytes());
        }
        self.put(&mut next.bytes, SIZE, &shape.size.to_le_bytes());
        if let Some(count) = count {
            self.put(&mut next.bytes, ALLOCATED, &narrow(count).to_le_bytes());
        }
        Self::write(&mut now, next, store)
    }

    /// Writes another parent, or none.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn set_parent(
        &self,
        linkage: Uuid,
        parent_modify: Uuid,
        store: &dyn Storage,
    ) -> Result<()> {
        let mut now = self.lock();
        let mut next = now.clone();
        let kind = if linkage.is_nil() { kind::NORMAL } else { kind::DIFFERENCING };
        next.uuids = Uuids { linkage, parent_modify, ..next.uuids };
        self.put(&mut next.bytes, TYPE, &kind.to_le_bytes());
        self.put(&mut next.bytes, LINKAGE, &linkage.to_mixed_endian());
        self.put(&mut next.bytes, PARENT_MODIFY, &parent_modify.to_mixed_endian());
        Self::write(&mut now, next, store)
    }

    /// Writes other names, comment and geometry.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn amend(&self, changes: &Changes, store: &dyn Storage) -> Result<()> {
        let mut now = self.lock();
        let mut next = now.clone();
        if let Some(comment) = &changes.comment {
            let mut padded = [0; 256];
            padded.iter_mut().zip(comment.bytes()).for_each(|(to, from)| *to = from);
            self.put(&mut next.bytes, COMMENT, &padded);
        }
        if let Some(lchs) = changes.lchs {
            let numbers = [lchs.cylinders, lchs.heads, lchs.sectors];
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let end = LCHS_GEOMETRY.at(self.version).map(|at| at + bytes.len());
            let has_lchs = end.is_some_and(|end| end <= next.bytes.len());
            let field = if has_lchs { LCHS_GEOMETRY } else { LEGACY_GEOMETRY };
            self.put(&mut next.bytes, field, &bytes);
        }
        for (field, uuid) in [(CREATE, changes.create), (MODIFY, changes.modify)] {
            if let Some(uuid) = uuid {
                self.put(&mut next.bytes, field, &uuid.to_mixed_endian());
            }
        }
        Self::write(&mut now, next, store)
    }

    fn write(now: &mut Now, next: Now, store: &dyn Storage) -> Result<()> {
        if *now != next {
            store.write_at(HostOffset::ZERO, &next.bytes)?;
            *now = next;
        }
        Ok(())
    }

    fn put(&self, bytes: &mut [u8], field: Field, value: &[u8]) {
        let place =
            field.at(self.version).and_then(|at| bytes.get_mut(at..)?.get_mut(..value.len()));
        if let Some(place) = place {
            place.copy_from_slice(value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
