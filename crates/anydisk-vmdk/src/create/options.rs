//! What creation can be asked for.

use anydisk_core::{OptionKind, OptionSpec, Options};

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
        name: "cid",
        help: "content ID, 8 hexadecimal digits; a random one if it is not given",
        kind: OptionKind::Text,
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
        name: "split_size",
        help: "size of each extent of a split disk; programs that expect 2 GiB may refuse others",
        kind: OptionKind::Size,
        default: None,
    },
    OptionSpec {
        name: "subformat",
        help: "one file or several, sparse or flat; vmfs, vmfsSparse: as ESX has them; streamOptimized: \
               compressed, in one pass",
        kind: OptionKind::Word(&Subformat::WORDS),
        default: None,
    },
    OptionSpec {
        name: "zeroed_grain",
        help: "let a grain of zeroes be an entry of its table (not understood by old readers)",
        kind: OptionKind::Flag,
        default: None,
    },
];

/// What the files of a new image are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subformat {
    /// One sparse file, which holds the descriptor.
    MonolithicSparse,
    /// A descriptor and a flat file.
    MonolithicFlat,
    /// A descriptor and sparse files.
    SplitSparse,
    /// A descriptor and flat files.
    SplitFlat,
    /// One file of compressed grains.
    Stream,
    /// A descriptor and a flat file, as on ESX.
    Vmfs,
    /// A descriptor and a redo log of ESX.
    VmfsSparse,
}

impl Subformat {
    /// The words of the option `subformat`, which are those of `createType`.
    const WORDS: [&'static str; 7] = [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
        "vmfs",
        "vmfsSparse",
    ];

    const ALL: [Self; 7] = [
        Self::MonolithicSparse,
        Self::MonolithicFlat,
        Self::SplitSparse,
        Self::SplitFlat,
        Self::Stream,
        Self::Vmfs,
        Self::VmfsSparse,
    ];

    /// The one that the options ask for.
    pub(crate) fn of(options: &Options) -> Self {
        let asked = options.text("subformat");
        let known = Self::ALL.into_iter().find(|subformat| Some(subformat.word()) == asked);
        known.unwrap_or(Self::MonolithicSparse)
    }

    /// As `createType` has it.
    pub(crate) fn word(self) -> &'static str {
        let [sparse, flat, split_sparse, split_flat, stream, vmfs, vmfs_sparse] = Self::WORDS;
        match self {
            Self::MonolithicSparse => sparse,
            Self::MonolithicFlat => flat,
            Self::SplitSparse => split_sparse,
            Self::SplitFlat => split_flat,
            Self::Stream => stream,
            Self::Vmfs => vmfs,
            Self::VmfsSparse => vmfs_sparse,
        }
    }

    /// Whether the data is in flat files.
    pub(crate) fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::SplitFlat | Self::Vmfs)
    }

    /// Whether the disk is cut into extents of one size.
    pub(crate) fn is_split(self) -> bool {
        matches!(self, Self::SplitSparse | Self::SplitFlat)
    }

    /// Whether the descriptor lies in the one extent there is.
    pub(crate) fn is_embedded(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::Stream)
    }
}
