//! New images.
//!
//! ```text
//!   header | refcount table | refcount blocks | L1 table | data, L2 tables ...
//! ```
//!
//! Everything before the data is in the order qemu writes it. What is zero is not written: a new
//! file reads as zero, so an image of any size costs the same.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Error, GuestRange, HostOffset, Image, ImageWrite, OptionKind, OptionSpec,
    Options, Preallocation, Reference, Result, Role, Secret, SecretRequest, Storage,
};
use anydisk_crypto::luks::Words;

use crate::crypt::{Crypt, NewEncryption};
use crate::extensions::Extension;
use crate::features::{autoclear, compatible, incompatible, name_table};
use crate::header::Compression;
use crate::image::Stores;
use crate::layout::extension;
use crate::measure::Layout;
use crate::preallocate::preallocate;
use crate::{Header, NAME, WritableImage, crypt, limits};

/// The options of creation, in the order in which qemu-img tells them.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "encryption",
        help: "the older way to say encrypt.format=aes",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "encrypt.format",
        help: "luks: encrypt the data; aes: as old images are encrypted, which is not safe",
        kind: OptionKind::Word(&["aes", "luks"]),
        default: None,
    },
    OptionSpec {
        name: crypt::KEY_SECRET,
        help: "name of the secret that is the passphrase",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "encrypt.cipher-alg",
        help: "cipher and bits of its key (aes-256)",
        kind: OptionKind::Word(Words::CIPHERS),
        default: None,
    },
    OptionSpec {
        name: "encrypt.cipher-mode",
        help: "mode of the cipher (xts)",
        kind: OptionKind::Word(Words::MODES),
        default: None,
    },
    OptionSpec {
        name: "encrypt.ivgen-alg",
        help: "how the number of a sector becomes its IV (plain64)",
        kind: OptionKind::Word(Words::IVS),
        default: None,
    },
    OptionSpec {
        name: "encrypt.ivgen-hash-alg",
        help: "hash of essiv (sha256)",
        kind: OptionKind::Word(Words::HASHES),
        default: None,
    },
    OptionSpec {
        name: "encrypt.hash-alg",
        help: "hash of the LUKS header (sha256)",
        kind: OptionKind::Word(Words::HASHES),
        default: None,
    },
    OptionSpec {
        name: "encrypt.iter-time",
        help: "milliseconds that trying a passphrase takes (2000)",
        kind: OptionKind::Number,
        default: None,
    },
    OptionSpec {
        name: "cluster_size",
        help: "unit of allocation, 512 to 2M, a power of two",
        kind: OptionKind::Size,
        default: Some("65536"),
    },
    OptionSpec {
        name: "extended_l2",
        help: "32 subclusters in each cluster, which needs clusters of 16k or more",
        kind: OptionKind::Flag,
        default: Some("off"),
    },
    OptionSpec {
        name: "preallocation",
        help: "off; metadata: map everything; falloc: also reserve space; full: also write zeroes",
        kind: OptionKind::Word(&["off", "metadata", "falloc", "full"]),
        default: None,
    },
    OptionSpec {
        name: "compression_type",
        help: "how compressed clusters are packed",
        kind: OptionKind::Word(&["zlib", "zstd"]),
        default: Some("zlib"),
    },
    OptionSpec {
        name: "size",
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
        name: "backing_file",
        help: "name of the image below, as it will stand in the file",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "backing_fmt",
        help: "format of the image below",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "data_file",
        help: "name of another file, made beside the image, that holds the data of the disk",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "data_file_raw",
        help: "that file alone is the disk too",
        kind: OptionKind::Flag,
        default: None,
    },
    OptionSpec {
        name: "lazy_refcounts",
        help: "let later writers postpone refcounts",
        kind: OptionKind::Flag,
        default: Some("off"),
    },
    OptionSpec {
        name: "refcount_bits",
        help: "width of a refcount, 1 to 64, a power of two",
        kind: OptionKind::Number,
        default: Some("16"),
    },
];

/// Creates an image in an empty store.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let size = request.size.checked_next_multiple_of(512).unwrap_or(u64::MAX);
    let plan = Plan::of(request.options, size)?;
    let passphrase = plan.passphrase(request)?;
    let header = plan.header(size, backing(request))?;
    check_preallocation(request)?;
    let data = plan.data_file.as_deref().map(|name| make_data_file(request, name)).transpose()?;
    let layout = plan.layout(size);
    write_tables(&*request.store, &layout)?;
    let crypt = Some(plan.encrypt(request, passphrase, &layout)?);
    request.store.flush()?;
    request.store.write_at(HostOffset::ZERO, &header.to_bytes()?)?;
    let stores = Stores { image: Arc::clone(&request.store), data, crypt };
    let image = WritableImage::open_in(stores, request.limits)?;
    if plan.data_file.is_some() {
        // After opening: now all of it is known to be zero.
        image.shared.data.set_len(size)?;
    }
    let usual = match plan.data_file_raw {
        true => Preallocation::Metadata,
        false => Preallocation::Off,
    };
    let how = request.options.text("preallocation").and_then(Preallocation::of_word);
    let how = how.filter(|how| *how != Preallocation::Off).unwrap_or(usual);
    preallocate(&image, GuestRange::whole(size), how)?;
    if how != Preallocation::Off {
        image.flush()?;
    }
    Ok(Arc::new(image))
}

/// Has the file made that will hold the data of the disk.
fn make_data_file(request: &CreateRequest<'_>, name: &str) -> Result<Arc<dyn Storage>> {
    let mut reference = Reference::new(Role::DataFile, name);
    reference.format = Some("raw".into());
    Ok(request.companions.make(&reference)?.store)
}

/// The image below: the request's, else what the options name.
fn backing(request: &CreateRequest<'_>) -> Option<Reference> {
    request.backing.cloned().or_else(|| {
        let name = request.options.text("backing_file").filter(|name| !name.is_empty())?;
        let mut reference = Reference::new(Role::Backing, name.as_bytes());
        reference.format = request.options.text("backing_fmt").map(str::to_owned);
        Some(reference)
    })
}

/// What the options ask for, checked against each other.
pub(crate) struct Plan {
    version: u32,
    cluster_bits: u32,
    refcount_order: u32,
    extended_l2: bool,
    lazy_refcounts: bool,
    compression: Compression,
    data_file: Option<String>,
    data_file_raw: bool,
    encryption: Option<NewEncryption>,
}

impl Plan {
    pub(crate) fn of(options: &Options, size: u64) -> Result<Self> {
        let version = match options.text("compat") {
            Some("v2" | "0.10") => 2,
            _ => 3,
        };
        let plan = Self {
            version,
            cluster_bits: power_of_two(options, "cluster_size", limits::CLUSTER_BITS, "512 to 2M")?,
            refcount_order: power_of_two(
                options,
                "refcount_bits",
                0..=limits::REFCOUNT_ORDER,
                "1 to 64",
            )?,
            extended_l2: options.flag("extended_l2"),
            lazy_refcounts: options.flag("lazy_refcounts"),
            compression: match options.text("compression_type") {
                Some("zstd") => Compression::Zstd,
                _ => Compression::Deflate,
            },
            data_file: options.text("data_file").map(str::to_owned),
            data_file_raw: options.flag("data_file_raw"),
            encryption: NewEncryption::of(options)?,
        };
        plan.check(options, size)?;
        Ok(plan)
    }

    fn check(&self, options: &Options, size: u64) -> Result<()> {
        if self.extended_l2 && self.cluster_bits < limits::EXTENDED_CLUSTER_BITS {
            return Err(options.refuse("extended_l2", "off, or clusters of 16k or more"));
        }
        self.check_data_file(options)?;
        if self.version < 3 {
            let needs = [
                ("refcount_bits", self.refcount_order != 4, "16 with compat=v2"),
                ("extended_l2", self.extended_l2, "off with compat=v2"),
                ("lazy_refcounts", self.lazy_refcounts, "off with compat=v2"),
                ("data_file", self.data_file.is_some(), "none with compat=v2"),
                ("compression_type", self.compression == Compression::Zstd, "zlib with compat=v2"),
            ];
            if let Some((name, _, expected)) = needs.into_iter().find(|(_, wrong, _)| *wrong) {
                return Err(options.refuse(name, expected));
            }
        }
        let (found, limit) = (self.layout(size).l1_entries, u64::from(limits::L1_ENTRIES));
        if found > limit {
            let what = "L1 table of a disk of this size with these clusters, in entries".into();
            return Err(Error::Limit { format: NAME, what, found, limit });
        }
        Ok(())
    }

    fn check_data_file(&self, options: &Options) -> Result<()> {
        if self.data_file.as_ref().is_some_and(String::is_empty) {
            return Err(options.refuse("data_file", "a name"));
        }
        if self.data_file_raw && self.data_file.is_none() {
            return Err(options.refuse("data_file_raw", "off without data_file"));
        }
        Ok(())
    }

    pub(crate) fn layout(&self, size: u64) -> Layout {
        Layout::new(self.cluster_bits, self.refcount_order, self.extended_l2, size)
            .with_crypto_header(self.crypto_header_len())
    }

    /// Bytes of the LUKS header.
    pub(crate) fn crypto_header_len(&self) -> u64 {
        self.encryption.as_ref().map_or(0, NewEncryption::header_len)
    }

    /// The passphrase that an encrypted image is to have.
    fn passphrase(&self, request: &CreateRequest<'_>) -> Result<Option<Secret>> {
        if self.encryption.is_none() {
            return Ok(None);
        }
        let wanted = SecretRequest::new(crypt::KEY_SECRET, request.location);
        request.secrets.secret(&wanted)?.map(Some).ok_or_else(crypt::locked)
    }

    /// Makes the LUKS header; what opens the data.
    fn encrypt(
        &self,
        request: &CreateRequest<'_>,
        passphrase: Option<Secret>,
        layout: &Layout,
    ) -> Result<Crypt> {
        let (Some(encryption), Some(passphrase)) = (&self.encryption, passphrase) else {
            return Ok(Crypt::None);
        };
        let at = layout.crypto_header();
        encryption.make(&request.store, at, passphrase.as_bytes())
    }

    fn header(&self, size: u64, backing: Option<Reference>) -> Result<Header> {
        let layout = self.layout(size);
        let to_u32 = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut incompatible_features = 0;
        if self.compression == Compression::Zstd {
            incompatible_features |= incompatible::COMPRESSION;
        }
        if self.extended_l2 {
            incompatible_features |= incompatible::EXTENDED_L2;
        }
        if self.data_file.is_some() {
            incompatible_features |= incompatible::DATA_FILE;
        }
        let format = backing.as_ref().and_then(|backing| backing.format.clone());
        Ok(Header {
            version: self.version,
            cluster_bits: self.cluster_bits,
            size,
            crypt_method: self.encryption.as_ref().map_or(0, NewEncryption::method),
            l1_size: to_u32(layout.l1_entries),
            l1_table_offset: layout.l1_table(),
            refcount_table_offset: layout.refcount_table(),
            refcount_table_clusters: to_u32(layout.table_clusters),
            nb_snapshots: 0,
            snapshots_offset: HostOffset::ZERO,
            incompatible_features,
            compatible_features: if self.lazy_refcounts { compatible::LAZY_REFCOUNTS } else { 0 },
            autoclear_features: if self.data_file_raw { autoclear::RAW_DATA_FILE } else { 0 },
            refcount_order: self.refcount_order,
            compression: self.compression,
            unknown_fields: Vec::new(),
            extensions: self.extensions(format, &layout),
            backing_file: backing.map(|backing| backing.name),
        })
    }

    /// As qemu: feature names only where there is room for them.
    fn extensions(&self, backing_format: Option<String>, layout: &Layout) -> Vec<Extension> {
        let mut extensions = Vec::new();
        if self.crypto_header_len() > 0 {
            let words = [layout.crypto_header().get(), self.crypto_header_len()];
            let data = words.map(u64::to_be_bytes).concat();
            extensions.push(Extension { kind: extension::CRYPTO_HEADER, data });
        }
        if let Some(format) = backing_format {
            extensions.push(Extension { kind: extension::BACKING_FORMAT, data: format.into() });
        }
        if let Some(name) = &self.data_file {
            let data = name.clone().into_bytes();
            extensions.push(Extension { kind: extension::DATA_FILE, data });
        }
        if self.version >= 3 && self.cluster_bits > 12 {
            extensions.push(Extension { kind: extension::FEATURE_NAMES, data: name_table() });
        }
        extensions
    }
}

/// The binary logarithm of an option that must be a power of two in a range.
fn power_of_two(
    options: &Options,
    name: &str,
    bits: std::ops::RangeInclusive<u32>,
    range: &str,
) -> Result<u32> {
    let value = options.number(name).filter(|value| value.is_power_of_two());
    let found = value.map(u64::trailing_zeros).filter(|found| bits.contains(found));
    found.ok_or_else(|| options.refuse(name, format!("a power of two, {range}")))
}

fn check_preallocation(request: &CreateRequest<'_>) -> Result<()> {
    if request.options.flag("data_file_raw") && backing(request).is_some() {
        return Err(request.options.refuse("data_file_raw", "off with a backing file"));
    }
    let off = matches!(request.options.text("preallocation"), None | Some("off"));
    if off || backing(request).is_none() || request.options.flag("extended_l2") {
        return Ok(());
    }
    Err(request.options.refuse("preallocation", "off with a backing file and without extended_l2"))
}

/// Writes refcounts; the L1 table is the zeroes behind them.
fn write_tables(store: &dyn Storage, layout: &Layout) -> Result<()> {
    store.set_len(layout.end())?;
    store.write_at(layout.refcount_table(), &layout.refcount_table_bytes())?;
    layout.write_refcounts(store)
}
