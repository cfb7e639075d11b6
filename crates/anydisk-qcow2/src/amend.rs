//! Changing what an image is, without copying it (`qemu-img amend`).
//!
//! ```text
//!   everything is looked at, and everything that must be refused is refused
//!   name of the data file: the header
//!   version 2 -> 3:    snapshot entries made longer; then the header
//!   refcount width:    a second structure behind the end of the file; then the header
//!   flags:             the header
//!   size:              as resizing does it
//!   version 3 -> 2:    zero entries replaced, under the dirty mark; then the header
//! ```
//!
//! Passphrases are a matter of the LUKS header alone, and come first.
//!
//! The header is the last thing that each step writes, so power loss leaves the old image or the new
//! one, or one in between that is marked dirty and holds the same.

use std::sync::Arc;

use anydisk_core::{
    AmendRequest, Disk, Error, Format, Limits, OptionKind, OptionSpec, Options, Preallocation,
    Result, Storage,
};

use crate::features::{autoclear, compatible, incompatible, name_table};
use crate::layout::extension;
use crate::live::LiveHeader;
use crate::passphrases::{PASSPHRASES, change_passphrases, refuse_without_slots};
use crate::refcount::Width;
use crate::resize::check_size;
use crate::{Compression, Extension, Header, NAME, Qcow2Format, check};

const KEY_SLOTS: [OptionSpec; 5] = PASSPHRASES.specs();

/// What can be changed of an image that exists.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    KEY_SLOTS[0],
    KEY_SLOTS[1],
    KEY_SLOTS[2],
    KEY_SLOTS[3],
    KEY_SLOTS[4],
    OptionSpec {
        name: SIZE,
        help: "virtual size of the disk",
        kind: OptionKind::Size,
        default: None,
    },
    OptionSpec {
        name: "compat",
        help: "version of the format: v3 (1.1), or v2 (0.10) for readers of before 2011",
        kind: OptionKind::Word(&["v2", "0.10", "v3", "1.1"]),
        default: None,
    },
    OptionSpec {
        name: "lazy_refcounts",
        help: "let later writers postpone refcounts",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "refcount_bits",
        help: "width of a refcount, 1 to 64, a power of two",
        kind: OptionKind::Number,
        default: None,
    },
    OptionSpec {
        name: "data_file",
        help: "another name for the file that holds the data of the disk",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "data_file_raw",
        help: "off: that file alone is no longer the disk",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "backing_file",
        help: "cannot be changed here: rebase does it",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "cannot be changed here: rebase does it",
        kind: OptionKind::Text,
        default: None,
    },
];

/// Names of feature bits are written where clusters are larger than this, as qemu does.
const NAMES_FROM: u64 = 4096;

const SIZE: &str = "size";

/// Changes an image.
pub(crate) fn amend(request: &AmendRequest<'_>) -> Result<()> {
    if !request.open.is_writable()? {
        return Err(Error::ReadOnly { why: "it was opened for reading".into() });
    }
    let of_slots = PASSPHRASES.are_set(request.options);
    let is_of_tables = |name| !KEY_SLOTS.iter().any(|option| option.name == name);
    let mut set =
        OPTIONS.iter().map(|option| option.name).filter(|name| request.options.is_set(name));
    let of_tables = !of_slots || set.any(is_of_tables);
    let wanted = if of_tables { Some(wanted(request)?) } else { None };
    if of_slots {
        amend_passphrases(request)?;
    }
    wanted.map_or(Ok(()), |wanted| amend_tables(request, &wanted))
}

fn amend_passphrases(request: &AmendRequest<'_>) -> Result<()> {
    let open = &request.open;
    refuse_without_slots(&Header::read(&*open.store, open.limits)?)?;
    let change = PASSPHRASES.change(request.options, open.secrets, open.location)?;
    change_passphrases(open, &change, request.force)
}

/// What the image is to be, if it can be.
fn wanted(request: &AmendRequest<'_>) -> Result<Wanted> {
    let image = Amend { store: &request.open.store, limits: request.open.limits };
    let header = image.header()?;
    let wanted = Wanted::of(request.options, &header)?;
    wanted.check(request.options, &header)?;
    // This may repair an image that was not closed cleanly, and so comes late.
    let header = image.sound_header()?;
    image.check_downgrade(&header, &wanted, request.options)?;
    image.check_width(&header, &wanted, request.options)?;
    Ok(wanted)
}

fn amend_tables(request: &AmendRequest<'_>, wanted: &Wanted) -> Result<()> {
    let image = Amend { store: &request.open.store, limits: request.open.limits };
    // The only one that may not fit into the header.
    image.rename_data_file(wanted)?;
    let header = image.header()?;
    if header.version < 3 && wanted.version >= 3 {
        image.upgrade()?;
    }
    let header = image.header()?;
    if wanted.refcount_order != header.refcount_order {
        image.change_width(header, wanted)?;
    }
    image.change_flags(wanted)?;
    if let Some(size) = wanted.size {
        resize(request, size)?;
    }
    let header = image.header()?;
    if header.version >= 3 && wanted.version < 3 {
        image.downgrade(header)?;
    }
    Ok(())
}

/// What the image is to be.
struct Wanted {
    version: u32,
    refcount_order: u32,
    lazy: Option<bool>,
    data_file: Option<Vec<u8>>,
    raw: Option<bool>,
    size: Option<u64>,
}

/// Changes the virtual size of an image with nothing below it.
fn resize(request: &AmendRequest<'_>, size: u64) -> Result<()> {
    let disk = Disk::new(Qcow2Format.open(request.open.clone())?.image);
    disk.resize(size, Preallocation::Off)?;
    disk.flush()
}

impl Wanted {
    fn of(options: &Options, header: &Header) -> Result<Self> {
        let flag = |name: &str| options.is_set(name).then(|| options.flag(name));
        let version = match options.text("compat") {
            Some("v2" | "0.10") => 2,
            Some(_) => 3,
            None => header.version,
        };
        let refcount_order = match options.number("refcount_bits") {
            None => header.refcount_order,
            Some(bits) if bits.is_power_of_two() && bits <= 64 => bits.trailing_zeros(),
            Some(_) => return Err(options.refuse("refcount_bits", "a power of two, 1 to 64")),
        };
        Ok(Self {
            version,
            refcount_order,
            lazy: flag("lazy_refcounts"),
            data_file: options.text("data_file").map(|name| name.as_bytes().to_vec()),
            raw: flag("data_file_raw"),
            size: options.number(SIZE),
        })
    }

    /// Refuses what no image can be, and what this one cannot become.
    fn check(&self, options: &Options, header: &Header) -> Result<()> {
        if let Some(name) = ["backing_file", "backing_fmt"].iter().find(|name| options.is_set(name))
        {
            return Err(options.refuse(name, "nothing here: rebase changes the backing file"));
        }
        if self.size.is_some_and(|size| size != header.size) && header.backing_file.is_some() {
            // What lies below may show in what is new.
            return Err(
                options.refuse(SIZE, "an image without a backing file: resize changes others")
            );
        }
        if let Some(size) = self.size.filter(|size| *size != header.size) {
            // Without an image below, and with the version of before.
            check_size(header, size, 0)?;
        }
        if self.version < 3 && self.lazy == Some(true) {
            return Err(options.refuse("lazy_refcounts", "off in an image of version 2"));
        }
        if self.version < 3 && self.refcount_order != 4 {
            let name = if options.is_set("refcount_bits") { "refcount_bits" } else { "compat" };
            return Err(options.refuse(name, "16 bits for a refcount in an image of version 2"));
        }
        if self.data_file.is_some() && !header.has_data_file() {
            return Err(options.refuse("data_file", "an image that has an external data file"));
        }
        if self.raw == Some(true) && !header.has_raw_data_file() {
            return Err(options.refuse("data_file_raw", "off: it cannot be switched on later"));
        }
        Ok(())
    }
}

struct Amend<'a> {
    store: &'a Arc<dyn Storage>,
    limits: &'a Limits,
}

impl Amend<'_> {
    fn header(&self) -> Result<Header> {
        Header::read(&**self.store, self.limits)
    }

    fn live(&self, header: Header) -> LiveHeader {
        LiveHeader::to_repair(self.store, header)
    }

    /// The header of an image in which everything is in order; one that was not closed cleanly is
    /// repaired.
    fn sound_header(&self) -> Result<Header> {
        let header = self.header()?;
        if header.is_corrupt() {
            let why = "it is marked corrupt (incompatible feature bit 1)".into();
            return Err(Error::NeedsRepair { format: NAME, why });
        }
        if header.is_dirty() {
            check::repair_dirty(self.store, self.limits)?;
        }
        check::refuse_damage(self.store, self.limits)?;
        self.header()
    }

    /// Version 2 to 3.
    fn upgrade(&self) -> Result<()> {
        check::lengthen_snapshot_entries(self.store, self.limits)?;
        let header = self.header()?;
        let named = header.cluster_size() > NAMES_FROM;
        self.live(header).rewrite(|header| {
            header.version = 3;
            if named && header.extension(extension::FEATURE_NAMES).is_none() {
                let (kind, data) = (extension::FEATURE_NAMES, name_table());
                header.extensions.push(Extension { kind, data });
            }
            Ok(())
        })
    }

    /// Refuses refcounts that are too narrow for what is named.
    fn check_width(&self, header: &Header, wanted: &Wanted, options: &Options) -> Result<()> {
        if wanted.refcount_order >= header.refcount_order {
            return Ok(());
        }
        let found = check::most_references(self.store, self.limits)?;
        let limit = Width::of_order(wanted.refcount_order).max();
        if found <= limit {
            return Ok(());
        }
        let expected = format!("more: a cluster is named {found} times, {limit} at most");
        Err(options.refuse("refcount_bits", expected))
    }

    /// Another width of refcounts.
    fn change_width(&self, header: Header, wanted: &Wanted) -> Result<()> {
        let order = wanted.refcount_order;
        let table = check::refcounts_of_width(self.store, self.limits, order)?;
        self.live(header).rewrite(|header| {
            header.refcount_order = order;
            (header.refcount_table_offset, header.refcount_table_clusters) = table;
            Ok(())
        })
    }

    fn rename_data_file(&self, wanted: &Wanted) -> Result<()> {
        let Some(name) = wanted.data_file.clone() else { return Ok(()) };
        self.live(self.header()?).rewrite(|header| {
            let is_name = |one: &&mut Extension| one.kind == extension::DATA_FILE;
            match header.extensions.iter_mut().rev().find(is_name) {
                Some(extension) => extension.data = name,
                None => {
                    header.extensions.push(Extension { kind: extension::DATA_FILE, data: name });
                }
            }
            Ok(())
        })
    }

    fn change_flags(&self, wanted: &Wanted) -> Result<()> {
        self.live(self.header()?).set_features(|bits| {
            if wanted.version >= 3 {
                match wanted.lazy {
                    Some(true) => bits.compatible |= compatible::LAZY_REFCOUNTS,
                    Some(false) => bits.compatible &= !compatible::LAZY_REFCOUNTS,
                    None => {}
                }
            }
            if wanted.raw == Some(false) {
                bits.autoclear &= !autoclear::RAW_DATA_FILE;
            }
        })
    }

    /// What version 2 cannot say.
    fn check_downgrade(&self, header: &Header, wanted: &Wanted, options: &Options) -> Result<()> {
        if header.version < 3 || wanted.version >= 3 {
            return Ok(());
        }
        let refuse = |expected: &'static str| Err(options.refuse("compat", expected));
        let other = header.incompatible_features & !incompatible::COMPRESSION;
        if header.has_data_file() {
            return refuse("v3 for an image with an external data file");
        }
        if header.has_extended_l2() || other != 0 {
            return refuse("v3 for an image with features that version 2 does not have");
        }
        let size = wanted.size.unwrap_or(header.disk_size());
        let census = check::census(self.store, self.limits, size)?;
        if header.compression != Compression::Deflate && census.compressed > 0 {
            return refuse("v3 for an image with clusters that are packed with zstd");
        }
        if header.crypt_method != 0 && header.backing_file.is_some() && census.zero > 0 {
            return refuse("v3 for an encrypted image with zero clusters over a backing file");
        }
        if census.snapshots_of_other_size > 0 {
            return refuse("v3 for an image with snapshots of another size");
        }
        if census.large_vm_states > 0 {
            return refuse("v3 for an image with machine states of 4 GiB and more");
        }
        Ok(())
    }

    /// Version 3 to 2.
    fn downgrade(&self, header: Header) -> Result<()> {
        let census = check::census(self.store, self.limits, header.disk_size())?;
        if census.zero > 0 {
            let live = self.live(header.clone());
            live.set_features(|bits| bits.incompatible |= incompatible::DIRTY)?;
            check::replace_zeroes(self.store, self.limits)?;
            check::repair_dirty(self.store, self.limits)?;
        }
        let had_bitmaps = header.extension(extension::BITMAPS).is_some();
        self.live(self.header()?).rewrite(|header| {
            header.version = 2;
            header.incompatible_features = 0;
            header.compatible_features = 0;
            header.autoclear_features = 0;
            header.compression = Compression::Deflate;
            header.unknown_fields.clear();
            let gone = [extension::FEATURE_NAMES, extension::BITMAPS];
            header.extensions.retain(|one| !gone.contains(&one.kind));
            Ok(())
        })?;
        // What the bitmaps named is lost space now.
        if had_bitmaps { check::give_back_leaks(self.store, self.limits) } else { Ok(()) }
    }
}
