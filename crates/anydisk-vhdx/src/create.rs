//! New images.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Image, Measure, MeasureRequest, OpenRequest, OptionKind,
    OptionSpec, Options, Reference, Result, Storage, Uuid, narrow,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::NAME;
use crate::header::{limit, unsupported};
use crate::image::VhdxImage;
use crate::layout::{
    FILE_SIGNATURE, HAS_PARENT, HEADER_SIGNATURE, HEADERS, IS_REQUIRED, LEAVE_BLOCKS,
    METADATA_SIGNATURE, MIB, REGION_SIGNATURE, REGION_TABLES, RawHeader, RawItem, RawMetadataTable,
    RawRegion, RawRegionTable, TABLE_LEN, guid,
};
use crate::limits;
use crate::locator::locator;
use crate::state::{bytes_of, seal};
use crate::table::{ENTRY, FULL, ZERO, chunk_entries, entries_for};

/// Bytes of a block of a child, unless another size is asked for: as Hyper-V's.
const BLOCK_OF_CHILD: u64 = 2 * MIB;

/// Entries that are written at once.
const AT_ONCE: u64 = 64 << 10;

/// The item's bit: of the disk, not of the file.
const IS_DISK: u32 = 2;

/// The options of creation: qemu-img's, and one more.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "log_size",
        help: "bytes of the log, whole MiB",
        kind: OptionKind::Size,
        default: Some("1048576"),
    },
    OptionSpec {
        name: "block_size",
        help: "bytes of a block, a power of two from 1M to 64M; 0: by the size of the disk",
        kind: OptionKind::Size,
        default: Some("0"),
    },
    OptionSpec {
        name: "subformat",
        help: "type of the disk (dynamic if not given)",
        kind: OptionKind::Word(&["dynamic", "fixed"]),
        default: None,
    },
    OptionSpec {
        name: "block_state_zero",
        help: "what is not there is said to be zero (on if not given)",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "backing_file",
        help: "the parent, a VHDX with sectors of the same size",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the parent: vhdx",
        kind: OptionKind::Word(&[NAME]),
        default: None,
    },
    OptionSpec {
        name: "logical_sector_size",
        help: "what the disk is read and written by: 512 or 4096 bytes (512 if not given)",
        kind: OptionKind::Word(&["512", "4096"]),
        default: None,
    },
    OptionSpec {
        name: "physical_sector_size",
        help: "512 or 4096 bytes (as the logical ones if not given)",
        kind: OptionKind::Word(&["512", "4096"]),
        default: None,
    },
    OptionSpec {
        name: "uuid",
        help: "the disk's UUID, of which the others are made; a random one if it is not given",
        kind: OptionKind::Text,
        default: None,
    },
];

/// What the options ask for, checked against each other.
#[derive(Clone, Debug)]
struct Plan {
    size: u64,
    block: u64,
    sector: u64,
    physical: u64,
    log: u64,
    is_fixed: bool,
    says_zero: bool,
    /// What names the parent.
    locator: Option<Vec<u8>>,
}

impl Plan {
    fn of(options: &Options, size: u64, parent: Option<&Reference>) -> Result<Self> {
        limit("size of the disk in bytes", size, limits::DISK)?;
        if size == 0 {
            return Err(unsupported("a disk of 0 bytes"));
        }
        let block = match options.number("block_size").unwrap_or(0) {
            0 if parent.is_some() => BLOCK_OF_CHILD,
            0 => usual_block(size),
            block => block,
        };
        if !block.is_power_of_two() || !(MIB..=64 * MIB).contains(&block) {
            return Err(options.refuse("block_size", "0, or a power of two from 1M to 64M"));
        }
        let log = options.number("log_size").unwrap_or(MIB).max(MIB).next_multiple_of(MIB);
        if log > 1 << 30 {
            return Err(options.refuse("log_size", "1G at most"));
        }
        let is_fixed = options.text("subformat") == Some("fixed");
        if is_fixed && parent.is_some() {
            return Err(options.refuse("subformat", "dynamic for a disk over another one"));
        }
        let says_zero = !options.is_set("block_state_zero") || options.flag("block_state_zero");
        let bytes = |name| options.text(name).and_then(|text| text.parse().ok());
        let sector = bytes("logical_sector_size").unwrap_or(512);
        let physical = bytes("physical_sector_size").unwrap_or(sector);
        let locator = parent.map(locator).transpose()?;
        let size = size.next_multiple_of(sector);
        let plan = Self { size, block, sector, physical, log, is_fixed, says_zero, locator };
        limit("number of blocks", plan.entries(), limits::ENTRIES)?;
        Ok(plan)
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(self.block)
    }

    fn ratio(&self) -> u64 {
        chunk_entries(self.block, self.sector) - 1
    }

    fn entries(&self) -> u64 {
        match self.locator {
            Some(_) => self.blocks().div_ceil(self.ratio()) * (self.ratio() + 1),
            None => entries_for(self.size, self.block, self.sector),
        }
    }

    fn table(&self) -> u64 {
        MIB + self.log
    }

    fn table_len(&self) -> u64 {
        (self.entries() * ENTRY).next_multiple_of(MIB).max(MIB)
    }

    fn metadata(&self) -> u64 {
        self.table() + self.table_len()
    }

    /// Where the blocks begin.
    fn first(&self) -> u64 {
        self.metadata() + MIB
    }

    fn end(&self) -> u64 {
        self.first() + if self.is_fixed { self.blocks() * self.block } else { 0 }
    }

    /// The entry of this number.
    fn entry(&self, number: u64) -> u64 {
        let chunk = self.ratio() + 1;
        if number % chunk == self.ratio() || self.locator.is_some() {
            return 0;
        }
        match (self.is_fixed, self.says_zero) {
            (true, _) => (self.first() + (number - number / chunk) * self.block) | FULL,
            (false, true) => ZERO,
            (false, false) => 0,
        }
    }

    fn write(&self, store: &dyn Storage, disk: Uuid) -> Result<()> {
        // What was never written is zero: the log, the data of a fixed disk, and the gaps.
        store.set_len(self.end())?;
        let mut done = 0;
        while done < self.entries() {
            let count = (self.entries() - done).min(AT_ONCE);
            let entries = (done..done + count).flat_map(|number| self.entry(number).to_le_bytes());
            let bytes: Vec<u8> = entries.collect();
            store.write_at(HostOffset(self.table() + done * ENTRY), &bytes)?;
            done += count;
        }
        self.write_metadata(store, disk)?;
        for at in REGION_TABLES {
            store.write_at(HostOffset(at), &self.regions())?;
        }
        for (at, number) in HEADERS.into_iter().zip(1_u64..) {
            store.write_at(HostOffset(at), &bytes_of(&self.header(disk, number)))?;
        }
        let creator = "anydisk".encode_utf16().flat_map(u16::to_le_bytes);
        let id: Vec<u8> = FILE_SIGNATURE.into_iter().chain(creator).collect();
        Ok(store.write_at(HostOffset::ZERO, &id)?)
    }

    fn header(&self, disk: Uuid, number: u64) -> RawHeader {
        let derived = |what: &[u8]| Uuid::derived(&[what, &disk.to_bytes()]).to_mixed_endian();
        let mut raw = RawHeader::new_zeroed();
        raw.Signature = HEADER_SIGNATURE;
        raw.SequenceNumber = number.into();
        raw.FileWriteGuid = derived(b"FileWriteGuid");
        raw.DataWriteGuid = derived(b"DataWriteGuid");
        raw.Version = 1.into();
        raw.LogLength = narrow(self.log).into();
        raw.LogOffset = MIB.into();
        raw
    }

    fn regions(&self) -> Vec<u8> {
        let region = |guid, at: u64, len| RawRegion {
            Guid: guid,
            FileOffset: at.into(),
            Length: narrow(len).into(),
            Required: 1.into(),
        };
        let table = RawRegionTable {
            Signature: REGION_SIGNATURE,
            Checksum: 0.into(),
            EntryCount: 2.into(),
            Reserved: 0.into(),
        };
        let mut bytes = table.as_bytes().to_vec();
        bytes.extend(region(guid::BAT, self.table(), self.table_len()).as_bytes());
        bytes.extend(region(guid::METADATA, self.metadata(), MIB).as_bytes());
        bytes.resize(TABLE_LEN, 0);
        seal(&mut bytes, std::mem::offset_of!(RawRegionTable, Checksum));
        bytes
    }

    fn write_metadata(&self, store: &dyn Storage, disk: Uuid) -> Result<()> {
        let parent = if self.locator.is_some() { HAS_PARENT } else { 0 };
        let flags = parent | if self.is_fixed { LEAVE_BLOCKS } else { 0 };
        let parameters = [narrow(self.block).to_le_bytes(), flags.to_le_bytes()].concat();
        let bytes = |sector: u64| narrow(sector).to_le_bytes().to_vec();
        let mut items = vec![
            (guid::FILE_PARAMETERS, IS_REQUIRED, parameters),
            (guid::DISK_SIZE, IS_REQUIRED | IS_DISK, self.size.to_le_bytes().to_vec()),
            (guid::DISK_ID, IS_REQUIRED | IS_DISK, disk.to_mixed_endian().to_vec()),
            (guid::LOGICAL_SECTOR, IS_REQUIRED | IS_DISK, bytes(self.sector)),
            (guid::PHYSICAL_SECTOR, IS_REQUIRED | IS_DISK, bytes(self.physical)),
        ];
        items.extend(self.locator.clone().map(|bytes| (guid::PARENT_LOCATOR, IS_REQUIRED, bytes)));
        let table = RawMetadataTable {
            Signature: METADATA_SIGNATURE,
            Reserved: 0.into(),
            EntryCount: u16::try_from(items.len()).unwrap_or_default().into(),
            Reserved2: [0; 20],
        };
        let (mut bytes, mut content) = (table.as_bytes().to_vec(), Vec::new());
        for (guid, flags, item) in items {
            let offset = TABLE_LEN + content.len();
            let raw = RawItem {
                ItemId: guid,
                Offset: narrow(offset as u64).into(),
                Length: narrow(item.len() as u64).into(),
                Flags: flags.into(),
                Reserved: 0.into(),
            };
            bytes.extend(raw.as_bytes());
            content.extend(item);
        }
        bytes.resize(TABLE_LEN, 0);
        bytes.extend(content);
        Ok(store.write_at(HostOffset(self.metadata()), &bytes)?)
    }
}

/// As qemu chooses.
fn usual_block(size: u64) -> u64 {
    match size {
        size if size > 32 << 40 => 64 * MIB,
        size if size > 100 << 30 => 32 * MIB,
        size if size > 1 << 30 => 16 * MIB,
        _ => 8 * MIB,
    }
}

/// Creates an image in an empty store.
///
/// # Errors
/// `Option` and `Limit` for what cannot be, and those of the store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size, request.below().as_ref())?;
    let disk = match request.options.text("uuid") {
        None => Uuid::random(),
        Some(text) => match text.parse::<Uuid>() {
            Ok(uuid) if !uuid.is_nil() => uuid,
            _ => return Err(request.options.refuse("uuid", "a UUID that is not nil")),
        },
    };
    plan.write(&*request.store, disk)?;
    let mut open = OpenRequest::new(Arc::clone(&request.store), request.location, request.limits);
    open.access = Access::ReadWrite;
    Ok(Arc::new(VhdxImage::open_new(&open)?))
}

/// How large an image for the given data gets.
///
/// # Errors
/// Those of a plan.
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let plan = Plan::of(request.options, request.size, None)?;
    let size = |blocks: u64| plan.first() + blocks * plan.block;
    let fully_allocated = size(plan.blocks());
    if plan.is_fixed {
        return Ok(Measure { required: fully_allocated, fully_allocated });
    }
    let (mut next, mut blocks) = (0, 0);
    for range in request.data.iter().filter(|range| !range.is_empty()) {
        let first = (range.start().get() / plan.block).max(next);
        next = range.end().get().div_ceil(plan.block).max(next);
        blocks += next - first.min(next);
    }
    Ok(Measure { required: size(blocks), fully_allocated })
}
