//! New images.

use std::mem::offset_of;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Image, OpenRequest, OptionKind, OptionSpec, Options,
    Reference, Result, Storage, Uuid, narrow,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::footer::{FOOTER_LEN, checksum, limit};
use crate::geometry::Geometry;
use crate::guard::ALIGNMENT;
use crate::header::{HEADER_LEN, bitmap_len};
use crate::image::VhdImage;
use crate::layout::{COOKIE, DYNAMIC_COOKIE, ENTRY, RawFooter, RawHeader, SECTOR, VERSION, kind};
use crate::link::Parent;
use crate::{NAME, limits};

/// Bytes of a block, unless another size is asked for: as everywhere.
const BLOCK: u64 = 2 << 20;

/// Who made it: nobody that any reader has a rule of its own for.
pub(crate) const CREATOR: [u8; 4] = *b"anyd";

/// The features' bit that is always set.
const RESERVED_FEATURE: u32 = 2;

/// Bytes of the table that are written at once.
const AT_ONCE: u64 = 1 << 20;

/// Where the text of a parent's locator is: behind the header.
const LOCATOR: u64 = (FOOTER_LEN + HEADER_LEN) as u64;

/// The options of creation.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "subformat",
        help: "type of the disk (dynamic if not given)",
        kind: OptionKind::Word(&["dynamic", "fixed"]),
        default: None,
    },
    OptionSpec {
        name: "force_size",
        help: "exactly the size that is asked for; else it is rounded up to one that a geometry has",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "backing_file",
        help: "the parent, a VHD of the same size",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the parent: vpc",
        kind: OptionKind::Word(&[NAME]),
        default: None,
    },
    OptionSpec {
        name: "block_size",
        help: "bytes of a block, a power of two from 4k to 64M (2M if not given)",
        kind: OptionKind::Size,
        default: None,
    },
    OptionSpec {
        name: "uuid",
        help: "the image's UUID; a random one if it is not given",
        kind: OptionKind::Text,
        default: None,
    },
];

/// What the options ask for, checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    size: u64,
    geometry: Geometry,
    block: u64,
    is_fixed: bool,
    parent: Option<Parent>,
}

impl Plan {
    /// For a disk of `size` bytes.
    ///
    /// # Errors
    /// `Option` for what cannot be, `Limit` for a disk that is too large.
    pub(crate) fn of(options: &Options, size: u64, parent: Option<&Reference>) -> Result<Self> {
        let block = options.number("block_size").unwrap_or(BLOCK);
        if !block.is_power_of_two() || !(limits::SMALLEST_BLOCK..=64 << 20).contains(&block) {
            return Err(options.refuse("block_size", "a power of two from 4k to 64M"));
        }
        limit("size of the disk in bytes", size, limits::DISK)?;
        let sectors = size.div_ceil(SECTOR);
        let geometry = Geometry::holding(sectors).filter(|found| !found.is_largest());
        let is_fixed = options.text("subformat") == Some("fixed");
        if is_fixed && parent.is_some() {
            return Err(options.refuse("subformat", "dynamic for a disk over another one"));
        }
        // A child is as large as its parent.
        let is_exact = options.flag("force_size") || parent.is_some();
        let (size, geometry) = match geometry.filter(|_| !is_exact) {
            Some(geometry) => (geometry.sectors() * SECTOR, geometry),
            None => (sectors * SECTOR, Geometry::for_sectors(sectors)),
        };
        limit("number of blocks", size.div_ceil(block), limits::ENTRIES)?;
        let parent = parent.map(Parent::of).transpose()?;
        Ok(Self { size, geometry, block, is_fixed, parent })
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// Entries of the table: a disk of no bytes has one too, as qemu expects.
    pub(crate) fn entries(&self) -> u64 {
        self.size.div_ceil(self.block).max(1)
    }

    /// Bytes of the file for each block.
    pub(crate) fn run(&self) -> u64 {
        bitmap_len(self.block).next_multiple_of(ALIGNMENT) + self.block
    }

    /// Where the table is. The text of a parent's locator is before it, with room for another one:
    /// behind it qemu puts blocks.
    fn table(&self) -> u64 {
        let room = self.parent.as_ref().map(Parent::room);
        room.map_or(LOCATOR, |room| (LOCATOR + room).next_multiple_of(ALIGNMENT))
    }

    /// Where the blocks begin.
    pub(crate) fn first(&self) -> u64 {
        self.end().next_multiple_of(ALIGNMENT)
    }

    /// Where the footer of a new image is: nothing may lie between it and the table, as qemu's first
    /// block begins there.
    pub(crate) fn end(&self) -> u64 {
        match self.is_fixed {
            true => self.size,
            false => (self.table() + self.entries() * ENTRY).next_multiple_of(SECTOR),
        }
    }

    fn footer(&self, uuid: Uuid) -> RawFooter {
        let mut raw = RawFooter::new_zeroed();
        raw.cookie = COOKIE;
        raw.features = RESERVED_FEATURE.into();
        raw.version = VERSION.into();
        raw.data_offset = if self.is_fixed { u64::MAX } else { FOOTER_LEN as u64 }.into();
        raw.creator_application = CREATOR;
        raw.creator_version = VERSION.into();
        raw.creator_host_os = *b"Wi2k";
        raw.original_size = self.size.into();
        raw.current_size = self.size.into();
        raw.cylinders = self.geometry.cylinders.into();
        raw.heads = self.geometry.heads;
        raw.sectors = self.geometry.sectors_per_track;
        raw.disk_type = match (self.is_fixed, &self.parent) {
            (true, _) => kind::FIXED,
            (false, None) => kind::DYNAMIC,
            (false, Some(_)) => kind::DIFFERENCING,
        }
        .into();
        raw.unique_id = uuid.to_bytes();
        raw.checksum = checksum(raw.as_bytes(), offset_of!(RawFooter, checksum)).into();
        raw
    }

    fn header(&self) -> RawHeader {
        let mut raw = RawHeader::new_zeroed();
        raw.cookie = DYNAMIC_COOKIE;
        raw.data_offset = u64::MAX.into();
        raw.table_offset = self.table().into();
        raw.header_version = VERSION.into();
        raw.max_table_entries = narrow(self.entries()).into();
        raw.block_size = narrow(self.block).into();
        if let Some(parent) = &self.parent {
            parent.put(&mut raw, LOCATOR);
        }
        raw.checksum = checksum(raw.as_bytes(), offset_of!(RawHeader, checksum)).into();
        raw
    }

    fn write(&self, store: &dyn Storage, uuid: Uuid) -> Result<()> {
        let footer = self.footer(uuid);
        // What was never written is zero: the data of a fixed disk, and the gaps.
        store.set_len(self.end() + FOOTER_LEN as u64)?;
        store.write_at(HostOffset(self.end()), footer.as_bytes())?;
        if self.is_fixed {
            return Ok(());
        }
        store.write_at(HostOffset(FOOTER_LEN as u64), self.header().as_bytes())?;
        // To the end of its last sector.
        let mut at = self.table();
        while at < self.end() {
            let len = (self.end() - at).min(AT_ONCE);
            let bytes = vec![0xFF; usize::try_from(len).expect("1 MiB at most")];
            store.write_at(HostOffset(at), &bytes)?;
            at += len;
        }
        if let Some(parent) = &self.parent {
            store.write_at(HostOffset(LOCATOR), &parent.text)?;
        }
        Ok(store.write_at(HostOffset::ZERO, footer.as_bytes())?)
    }
}

/// Creates an image in an empty store.
///
/// # Errors
/// Those of [`Plan::of`] and of the store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size, request.below().as_ref())?;
    let uuid = given_uuid(request.options)?.unwrap_or_else(Uuid::random);
    plan.write(&*request.store, uuid)?;
    let mut open = OpenRequest::new(Arc::clone(&request.store), request.location, request.limits);
    open.access = Access::ReadWrite;
    Ok(Arc::new(VhdImage::open_new(&open)?))
}

fn given_uuid(options: &Options) -> Result<Option<Uuid>> {
    let Some(text) = options.text("uuid") else { return Ok(None) };
    match text.parse::<Uuid>() {
        Ok(uuid) if !uuid.is_nil() => Ok(Some(uuid)),
        _ => Err(options.refuse("uuid", "a UUID that is not nil")),
    }
}
