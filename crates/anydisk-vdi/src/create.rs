//! New images.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Image, NoReferences, OpenRequest, OptionKind, OptionSpec,
    Options, Reference, Result, Storage, Uuid, narrow,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::header::{Uuids, limit, unsupported};
use crate::image::VdiImage;
use crate::layout::{
    ENTRY, FREE, HeaderV1, PreHeader, RawGeometry, SECTOR, SIGNATURE, VERSION, kind,
};
use crate::{NAME, limits};

/// The text that new images begin with.
const TEXT: &[u8] = b"<<< anydisk VirtualBox Disk Image >>>\n";

/// The map and the first block begin at multiples of so many bytes, as VirtualBox places them, or
/// of a block if that is less.
const ALIGNMENT: u64 = 1 << 20;

/// Bytes of the map that are written at once.
const AT_ONCE: u64 = 1 << 20;

/// The options of creation: `static` is qemu-img's.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "backing_file",
        help: "the parent; the file names it by its UUID only",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the parent: vdi",
        kind: OptionKind::Word(&[NAME]),
        default: None,
    },
    OptionSpec {
        name: "block_size",
        help: "bytes of a block, a power of two from 128k to 64M (1M if not given; qemu reads no \
               other)",
        kind: OptionKind::Size,
        default: None,
    },
    OptionSpec {
        name: "static",
        help: "a fixed image: every block has its place from the start",
        kind: OptionKind::Flag,
        default: Some("off"),
    },
    OptionSpec {
        name: "uuid",
        help: "the image's UUID; a random one if it is not given",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "uuid_modify",
        help: "the UUID of the image's content; made from the other if it is not given",
        kind: OptionKind::Text,
        default: None,
    },
];

/// What the options ask for, checked against each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    size: u64,
    block: u64,
    is_fixed: bool,
}

impl Plan {
    /// For a disk of `size` bytes, which is rounded up to whole sectors.
    ///
    /// # Errors
    /// `Option` for what cannot be, `Limit` for a disk that is too large.
    pub(crate) fn of(options: &Options, size: u64) -> Result<Self> {
        let block = options.number("block_size").unwrap_or(ALIGNMENT);
        if !block.is_power_of_two() || !(128 << 10..=limits::MADE_BLOCK).contains(&block) {
            return Err(options.refuse("block_size", "a power of two from 128k to 64M"));
        }
        limit("size of the disk in bytes", size, limits::DISK)?;
        let size = size.next_multiple_of(SECTOR);
        limit("number of blocks", size.div_ceil(block), limits::BLOCKS)?;
        let plan = Self { size, block, is_fixed: options.flag("static") };
        limit("place of the first block", plan.first().get(), u32::MAX.into())?;
        Ok(plan)
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT.min(self.block)
    }

    fn table(&self) -> HostOffset {
        HostOffset(self.alignment())
    }

    /// Where the first block is.
    pub(crate) fn first(&self) -> HostOffset {
        let end = self.table().get() + self.blocks() * ENTRY;
        HostOffset(end.next_multiple_of(self.alignment()))
    }

    fn header(&self, uuids: &Uuids) -> HeaderV1 {
        let blocks = narrow(self.blocks());
        let mut header = HeaderV1::new_zeroed();
        header.pre =
            PreHeader { text: padded(TEXT), signature: SIGNATURE.into(), version: VERSION.into() };
        header.cbHeader = narrow((size_of::<HeaderV1>() - size_of::<PreHeader>()) as u64).into();
        header.r#type = match (uuids.linkage.is_nil(), self.is_fixed) {
            (false, _) => kind::DIFFERENCING,
            (true, true) => kind::FIXED,
            (true, false) => kind::NORMAL,
        }
        .into();
        header.offBlocks = narrow(self.table().get()).into();
        header.offData = narrow(self.first().get()).into();
        header.legacy_geometry = no_geometry();
        header.cbDisk = self.size.into();
        header.cbBlock = narrow(self.block).into();
        header.cBlocks = blocks.into();
        header.cBlocksAllocated = if self.is_fixed { blocks } else { 0 }.into();
        header.uuidCreate = uuids.create.to_mixed_endian();
        header.uuidModify = uuids.modify.to_mixed_endian();
        header.uuidLinkage = uuids.linkage.to_mixed_endian();
        header.uuidParentModify = uuids.parent_modify.to_mixed_endian();
        header.lchs_geometry = no_geometry();
        header
    }

    /// Writes the entries of a new map: free, or each block's own number.
    fn write_map(&self, store: &dyn Storage) -> Result<()> {
        let mut done = 0;
        while done < self.blocks() {
            let count = (self.blocks() - done).min(AT_ONCE / ENTRY);
            let entry = |number: u64| if self.is_fixed { narrow(number) } else { FREE };
            let entries = (done..done + count).flat_map(|number| entry(number).to_le_bytes());
            let bytes: Vec<u8> = entries.collect();
            store.write_at(self.table().saturating_add(done * ENTRY), &bytes)?;
            done += count;
        }
        Ok(())
    }

    /// Where a new image ends.
    fn end(&self) -> u64 {
        let blocks = if self.is_fixed { self.blocks() } else { 0 };
        self.first().get() + blocks * self.block
    }
}

fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    all.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    all
}

/// No geometry: the machine chooses one. qemu wants the sector's size there all the same.
fn no_geometry() -> RawGeometry {
    RawGeometry { sector_size: narrow(SECTOR).into(), ..RawGeometry::new_zeroed() }
}

/// Creates an image in an empty store.
///
/// # Errors
/// Those of [`Plan::of`] and of the store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size)?;
    let uuids = uuids(request.options, request.backing)?;
    if plan.is_fixed && !uuids.linkage.is_nil() {
        return Err(request.options.refuse("static", "off for an image over another one"));
    }
    if uuids.linkage.is_nil() && request.options.is_set("backing_file") {
        let expected = "an image that was opened, so that its UUIDs are known";
        return Err(request.options.refuse("backing_file", expected));
    }
    // What was never written is zero: the data of a fixed image, and the gaps.
    request.store.set_len(plan.end())?;
    request.store.write_at(HostOffset::ZERO, plan.header(&uuids).as_bytes())?;
    plan.write_map(&*request.store)?;
    let mut open = OpenRequest::new(Arc::clone(&request.store), request.location, request.limits);
    open.access = Access::ReadWrite;
    open.resolver = &NoReferences;
    Ok(Arc::new(VdiImage::open_new(&open)?))
}

fn uuids(options: &Options, backing: Option<&Reference>) -> Result<Uuids> {
    let create = given(options, "uuid")?.unwrap_or_else(Uuid::random);
    let derived = || Uuid::derived(&[b"uuidModify", &create.to_bytes()]);
    let modify = given(options, "uuid_modify")?.unwrap_or_else(derived);
    let (linkage, parent_modify) = match backing {
        Some(parent) => match parent_uuids(parent)? {
            (create, Some(modify)) => (create, modify),
            (_, None) => return Err(unsupported("a parent whose UUIDs are not known")),
        },
        None => (Uuid::NIL, Uuid::NIL),
    };
    Ok(Uuids { create, modify, linkage, parent_modify })
}

/// A UUID that was given as an option.
pub(crate) fn given(options: &Options, name: &str) -> Result<Option<Uuid>> {
    let Some(text) = options.text(name) else { return Ok(None) };
    match text.parse::<Uuid>() {
        Ok(uuid) if !uuid.is_nil() => Ok(Some(uuid)),
        _ => Err(options.refuse(name, "a UUID that is not nil")),
    }
}

/// What a child says of its parent.
///
/// # Errors
/// `Unsupported` for a parent of another format, or one that was not looked at.
pub(crate) fn parent_uuids(parent: &Reference) -> Result<(Uuid, Option<Uuid>)> {
    if parent.format.as_deref().is_some_and(|format| format != NAME) {
        return Err(unsupported("a parent of another format"));
    }
    let uuid = |id: Option<anydisk_core::Id>| id.and_then(anydisk_core::Id::uuid);
    match (uuid(parent.id), uuid(parent.content_id)) {
        (Some(create), modify) if !create.is_nil() => Ok((create, modify)),
        _ => Err(unsupported("a parent whose UUIDs are not known")),
    }
}

/// A header as it is made, for tests.
#[cfg(test)]
pub(crate) fn new_header(size: u64, block: u64, create: [u8; 16], modify: [u8; 16]) -> HeaderV1 {
    let plan = Plan { size, block, is_fixed: false };
    plan.header(&Uuids {
        create: Uuid::from_bytes(create),
        modify: Uuid::from_bytes(modify),
        linkage: Uuid::NIL,
        parent_modify: Uuid::NIL,
    })
}
