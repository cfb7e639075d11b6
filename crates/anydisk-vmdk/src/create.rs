//! New images: what the options ask for, and the first bytes of the file.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Id, Image, Location, NoReferences, OpenRequest, OptionKind,
    OptionSpec, Options, Reference, Result, Storage,
};
use zerocopy::IntoBytes;

use crate::content_id::derived;
use crate::descriptor::NO_PARENT;
use crate::header::{limit, unsupported};
use crate::layout::{LINE_CHARS, MAGIC, SECTOR, SparseHeader, flags};
use crate::table::ENTRY;
use crate::{NAME, VmdkImage, limits};

/// Sectors of a grain in a new image.
pub(crate) const GRAIN_SECTORS: u64 = 128;
/// Entries in a grain table of a new image.
pub(crate) const TABLE_ENTRIES: u32 = 512;
/// Sectors of a grain table of a new image.
pub(crate) const TABLE_SECTORS: u64 = 4;
/// Sector of the descriptor in a new image.
pub(crate) const DESCRIPTOR_SECTOR: u64 = 1;
/// Sectors kept for the descriptor in a new image. qemu looks for the content ID in just these.
pub(crate) const DESCRIPTOR_SECTORS: u64 = 20;

/// The words of the option `subformat`.
pub(crate) const SPARSE: &str = "monolithicSparse";
pub(crate) const STREAM: &str = "streamOptimized";

/// The options of creation, with qemu-img's names.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "adapter_type",
        help: "controller that the disk is for; decides the geometry",
        kind: OptionKind::Word(&["ide", "buslogic", "lsilogic", "legacyESX"]),
        default: None,
    },
    OptionSpec {
        name: "backing_file",
        help: "name of the image below, as it will stand in the file",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the image below: vmdk",
        kind: OptionKind::Word(&["vmdk"]),
        default: None,
    },
    OptionSpec {
        name: "compat6",
        help: "hardware version 6 instead of 4",
        kind: OptionKind::Flag,
        default: Some("off"),
    },
    OptionSpec {
        name: "hwversion",
        help: "hardware version",
        kind: OptionKind::Text,
        default: Some("undefined"),
    },
    OptionSpec {
        name: "toolsversion",
        help: "version of the guest tools",
        kind: OptionKind::Number,
        default: None,
    },
    OptionSpec {
        name: "subformat",
        help: "monolithicSparse: written in place; streamOptimized: compressed, in one pass",
        kind: OptionKind::Word(&[
            SPARSE,
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            STREAM,
        ]),
        default: None,
    },
    OptionSpec {
        name: "zeroed_grain",
        help: "let a grain of zeroes be an entry of its table (not understood by old readers)",
        kind: OptionKind::Flag,
        default: None,
    },
];

/// The sub-format that the options ask for.
pub(crate) fn subformat(options: &Options) -> &str {
    options.text("subformat").unwrap_or(SPARSE)
}

/// What the options ask for, checked against each other.
pub(crate) struct Plan<'a> {
    pub(crate) subformat: &'a str,
    sectors: u64,
    adapter: &'a str,
    hardware: &'a str,
    tools: &'a str,
    zeroed_grain: bool,
}

impl<'a> Plan<'a> {
    /// What the options ask for, for a disk of `size` bytes, which is rounded up to whole sectors.
    ///
    /// # Errors
    /// `Option` and `Unsupported` for what cannot be, `Limit` for a disk that is too large.
    pub(crate) fn of(options: &'a Options, size: u64) -> Result<Self> {
        let subformat = subformat(options);
        if ![SPARSE, STREAM].contains(&subformat) {
            return Err(unsupported(format!("creating subformat={subformat} (several files)")));
        }
        let plan = Self {
            subformat,
            sectors: size.div_ceil(SECTOR),
            adapter: options.text("adapter_type").unwrap_or("ide"),
            hardware: hardware(options)?,
            tools: options.text("toolsversion").unwrap_or("2147483647"),
            zeroed_grain: options.flag("zeroed_grain"),
        };
        if plan.zeroed_grain && subformat == STREAM {
            return Err(options.refuse("zeroed_grain", "off for streamOptimized"));
        }
        plan.check_size()?;
        Ok(plan)
    }

    fn check_size(&self) -> Result<()> {
        if self.sectors == 0 {
            // Capacity 0 marks a file that only holds a descriptor.
            return Err(unsupported("a disk of 0 bytes"));
        }
        let most = match self.subformat {
            // Where data goes, sector numbers of 32 bits must reach.
            SPARSE => limits::FILE / SECTOR,
            _ => limits::DIRECTORY / ENTRY * u64::from(TABLE_ENTRIES) * GRAIN_SECTORS,
        };
        limit("size of the disk in sectors", self.sectors, most)
    }

    /// Bytes of the disk.
    pub(crate) fn capacity(&self) -> u64 {
        self.sectors * SECTOR
    }

    /// Number of grain tables.
    pub(crate) fn tables(&self) -> u64 {
        self.sectors.div_ceil(u64::from(TABLE_ENTRIES) * GRAIN_SECTORS)
    }

    /// The header, without the places of the directories.
    pub(crate) fn header(&self) -> SparseHeader {
        let stream = self.subformat == STREAM;
        let (version, own_flags) = match (stream, self.zeroed_grain) {
            (true, _) => (3, flags::COMPRESSED | flags::MARKERS),
            (false, true) => (2, flags::REDUNDANT | flags::ZEROED_GRAIN),
            (false, false) => (1, flags::REDUNDANT),
        };
        SparseHeader {
            magic: MAGIC,
            version: version.into(),
            flags: (flags::NEWLINE_DETECTOR | own_flags).into(),
            capacity: self.sectors.into(),
            grainSize: GRAIN_SECTORS.into(),
            descriptorOffset: DESCRIPTOR_SECTOR.into(),
            descriptorSize: DESCRIPTOR_SECTORS.into(),
            numGTEsPerGT: TABLE_ENTRIES.into(),
            rgdOffset: 0.into(),
            gdOffset: 0.into(),
            overHead: GRAIN_SECTORS.into(),
            uncleanShutdown: 0,
            lineChars: LINE_CHARS,
            compressAlgorithm: u16::from(stream).into(),
            pad: [0; 433],
        }
    }

    /// The text of the descriptor, padded to the room it has.
    ///
    /// # Errors
    /// `Unsupported` for a parent without a content ID or with a name that the text cannot
    /// hold, `Limit` for one that is too long.
    pub(crate) fn descriptor(
        &self,
        location: &Location,
        parent: Option<&Reference>,
    ) -> Result<Vec<u8>> {
        let (parent_id, hint) = match parent {
            Some(parent) => parent_lines(parent)?,
            None => (NO_PARENT, Vec::new()),
        };
        let id = self.content_id(parent_id, &hint);
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nCID={id:08x}\nparentCID={parent_id:08x}\n\
             createType=\"{}\"\n",
            self.subformat
        )
        .into_bytes();
        text.extend(hint);
        text.extend(format!("\n# Extent description\nRW {} SPARSE \"", self.sectors).bytes());
        text.extend(own_name(location));
        text.extend(self.disk_database().bytes());
        let room = DESCRIPTOR_SECTORS * SECTOR;
        limit("size of the descriptor in bytes", text.len() as u64, room)?;
        text.resize(usize::try_from(room).expect("a small constant"), 0);
        Ok(text)
    }

    /// A number that the same request always gives; the first write of another session replaces it.
    fn content_id(&self, parent: u32, hint: &[u8]) -> u32 {
        let words = [self.subformat, self.adapter, self.hardware, self.tools];
        let mut parts: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let (sectors, parent) = (self.sectors.to_le_bytes(), parent.to_le_bytes());
        let zeroed = [u8::from(self.zeroed_grain)];
        parts.extend([&sectors[..], &parent, hint, &zeroed]);
        derived(&parts)
    }

    fn disk_database(&self) -> String {
        let (heads, sectors) = if self.adapter == "ide" { (16, 63) } else { (255, 63) };
        format!(
            "\"\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"{sectors}\"\nddb.adapterType = \"{}\"\n\
             ddb.toolsVersion = \"{}\"\n",
            self.hardware,
            self.sectors / (heads * sectors),
            self.adapter,
            self.tools
        )
    }
}

fn hardware(options: &Options) -> Result<&str> {
    let given = options.text("hwversion").filter(|text| *text != "undefined");
    match (given, options.flag("compat6")) {
        (None, false) => Ok("4"),
        (None, true) => Ok("6"),
        (Some(_), true) => Err(options.refuse("hwversion", "no hwversion beside compat6")),
        (Some(text), false) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(text),
        (Some(_), false) => Err(options.refuse("hwversion", "a number")),
    }
}

fn parent_lines(parent: &Reference) -> Result<(u32, Vec<u8>)> {
    if parent.format.as_deref().is_some_and(|format| format != NAME) {
        return Err(unsupported("a backing file of another format"));
    }
    let id = parent.content_id.and_then(Id::number);
    let Some(id) = id.filter(|id| *id != NO_PARENT) else {
        return Err(unsupported("a backing file whose content ID is not known"));
    };
    if !fits_in_quotes(&parent.name) {
        let name = parent.display_name();
        return Err(unsupported(format!("the name {name:?} for a backing file")));
    }
    let mut hint = b"parentFileNameHint=\"".to_vec();
    hint.extend(&parent.name);
    hint.extend(b"\"\n");
    Ok((id, hint))
}

/// The text has no way to write these in a name.
fn fits_in_quotes(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r' | 0))
}

/// The name of the file itself, by which readers do not look for it.
fn own_name(location: &Location) -> Vec<u8> {
    let name = match location {
        Location::Path(path) => path.file_name().map(|name| name.as_encoded_bytes().to_vec()),
        _ => None,
    };
    name.filter(|name| fits_in_quotes(name)).unwrap_or_else(|| b"disk.vmdk".to_vec())
}

/// Where things are in a new sparse image, in sectors.
pub(crate) struct Layout {
    tables: u64,
    second_directory: u64,
    directory: u64,
    /// The first sector behind the tables.
    pub(crate) overhead: u64,
}

impl Layout {
    /// The places where qemu puts them: second directory and tables, then the first.
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        let tables = plan.tables();
        let set = (tables * ENTRY).div_ceil(SECTOR) + tables * TABLE_SECTORS;
        let second_directory = DESCRIPTOR_SECTOR + DESCRIPTOR_SECTORS;
        let directory = second_directory + set;
        let overhead = (directory + set).next_multiple_of(GRAIN_SECTORS);
        Self { tables, second_directory, directory, overhead }
    }

    /// The directory at `start`, whose tables follow it.
    fn entries(&self, start: u64) -> Vec<u8> {
        let first = start + (self.tables * ENTRY).div_ceil(SECTOR);
        let sectors = (0..self.tables).map(|table| first + table * TABLE_SECTORS);
        let entry = |sector: u64| u32::try_from(sector).unwrap_or_default().to_le_bytes();
        sectors.flat_map(entry).collect()
    }
}

/// Creates an image in an empty store.
///
/// # Errors
/// Those of [`Plan::of`] and of the store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size)?;
    if plan.subformat == STREAM {
        return Err(unsupported("streamOptimized in place (it is written in one pass)"));
    }
    if request.backing.is_none() && request.options.is_set("backing_file") {
        let expected = "an image that was opened, so that its content ID is known";
        return Err(request.options.refuse("backing_file", expected));
    }
    write_empty(&*request.store, request, &plan)?;
    let request = OpenRequest {
        store: Arc::clone(&request.store),
        location: request.location,
        access: Access::ReadWrite,
        resolver: &NoReferences,
        limits: request.limits,
        secrets: request.secrets,
    };
    Ok(Arc::new(VmdkImage::open_new(&request)?))
}

fn write_empty(store: &dyn Storage, request: &CreateRequest<'_>, plan: &Plan<'_>) -> Result<()> {
    let layout = Layout::of(plan);
    let mut header = plan.header();
    header.rgdOffset = layout.second_directory.into();
    header.gdOffset = layout.directory.into();
    header.overHead = layout.overhead.into();
    let descriptor = plan.descriptor(request.location, request.backing)?;
    // The tables are zeroes, and so is what was never written.
    store.set_len(layout.overhead * SECTOR)?;
    store.write_at(HostOffset::ZERO, header.as_bytes())?;
    store.write_at(HostOffset(DESCRIPTOR_SECTOR * SECTOR), &descriptor)?;
    for start in [layout.second_directory, layout.directory] {
        store.write_at(HostOffset(start * SECTOR), &layout.entries(start))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VMDK;

    fn options(given: &[(&str, &str)]) -> Options {
        let mut options = Options::of(&VMDK);
        given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
        options
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_option() {
        for (given, size, expected) in [
            (&[("hwversion", "x\"y")][..], 512, "vmdk: option hwversion=x\"y: expected a number"),
            (
                &[("hwversion", "7"), ("compat6", "on")],
                512,
                "vmdk: option hwversion=7: expected no hwversion beside compat6",
            ),
            (
                &[("subformat", STREAM), ("zeroed_grain", "on")],
                512,
                "vmdk: option zeroed_grain=on: expected off for streamOptimized",
            ),
            (
                &[("subformat", "monolithicFlat")],
                512,
                "vmdk: creating subformat=monolithicFlat (several files) is not supported",
            ),
            (&[], 0, "vmdk: a disk of 0 bytes is not supported"),
            (
                &[],
                (2 << 40) + 1,
                "vmdk: size of the disk in sectors is 4294967297, more than the limit of 4294967296",
            ),
        ] {
            let options = options(given);
            let error = Plan::of(&options, size).err().expect("refused").to_string();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn the_same_request_gives_the_same_content_id_and_another_one_another() {
        let id = |given: &[(&str, &str)], size| {
            let options = options(given);
            let plan = Plan::of(&options, size).expect("a plan");
            plan.content_id(NO_PARENT, b"")
        };
        assert_eq!(id(&[], 1 << 20), id(&[], 1 << 20));
        assert_ne!(id(&[], 1 << 20), id(&[], 1 << 21));
        assert_ne!(id(&[], 1 << 20), id(&[("adapter_type", "lsilogic")], 1 << 20));
    }
}
