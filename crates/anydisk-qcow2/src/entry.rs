//! Entries of the tables: what they can say, and what is wrong with those that say something else.
//! Pure.

use std::borrow::Cow;

use anydisk_core::{HostOffset, Invalid, Value};

use crate::NAME;
use crate::layout::entry::{COMPRESSED, COPIED, OFFSET};

/// An L1 entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L1Entry(pub u64);

/// An L2 entry: one word, or with extended L2 entries two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2Entry {
    /// The descriptor.
    pub word: u64,
    /// The subcluster bitmap; 0 with standard entries.
    pub bitmap: u64,
}

/// What an L2 entry says about one byte of its cluster, with the host offsets of that byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Nothing here: look below.
    Absent {
        /// Host space kept for it.
        reserved: Option<HostOffset>,
    },
    /// Zeroes.
    Zero {
        /// Host space kept for it.
        reserved: Option<HostOffset>,
    },
    /// Plain bytes.
    Data {
        /// Where.
        at: HostOffset,
        /// Nothing else refers to the cluster.
        copied: bool,
    },
    /// A stream for the whole cluster.
    Compressed(Compressed),
}

/// The extent of a compressed cluster, as its entry declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// First byte of the stream.
    pub at: HostOffset,
    /// Bytes that may belong to the stream: up to the end of its last 512-byte sector.
    pub len: u64,
}

/// A word of a table that breaks the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Number of the word in its slice.
    pub(crate) word: usize,
    /// What it holds.
    pub(crate) value: u64,
    /// What is wrong with it.
    pub(crate) rule: Rule,
}

/// A rule for words of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The offset of an L2 table is a multiple of the cluster size.
    TableAligned,
    /// The offset of a cluster is a multiple of the cluster size.
    ClusterAligned,
    /// Version 2 has no zero flag.
    NoZeroFlag,
    /// A compressed stream begins below 2^56.
    StreamInReach,
    /// No subcluster is allocated and zero at once.
    NotBothBits,
    /// Subclusters are allocated only in a host cluster.
    HostForBits,
    /// With an external data file nothing is compressed.
    NoStream,
    /// In an external data file each cluster lies where the guest has it.
    HostIsGuest,
}

/// What is said about a part of a cluster, without where.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Absent,
    Zero,
    Data,
}

impl L1Entry {
    /// The entry for an L2 table that nothing else refers to.
    #[must_use]
    pub fn own(table: HostOffset) -> Self {
        Self(table.get() | COPIED)
    }

    /// Where the L2 table is; `None`: there is none, all it would map is absent.
    #[must_use]
    pub fn table(self) -> Option<HostOffset> {
        offset_in(self.0)
    }

    /// Nothing else refers to the L2 table. Only to be trusted in the active L1 table.
    #[must_use]
    pub fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }
}

impl L2Entry {
    /// The standard entry for a cluster of data that nothing else refers to.
    #[must_use]
    pub fn data(at: HostOffset) -> Self {
        Self { word: at.get() | COPIED, bitmap: 0 }
    }

    /// Whether the cluster is compressed.
    #[must_use]
    pub fn is_compressed(self) -> bool {
        self.word & COMPRESSED != 0
    }

    /// Nothing else refers to the cluster. Only to be trusted below the active L1 table.
    #[must_use]
    pub fn is_copied(self) -> bool {
        self.word & COPIED != 0
    }

    /// The host cluster of an entry that is not compressed.
    #[must_use]
    pub fn host(self) -> Option<HostOffset> {
        offset_in(self.word)
    }

    pub(crate) fn cluster(self, kind: Kind, at: Option<HostOffset>) -> Cluster {
        match (kind, at) {
            (Kind::Data, Some(at)) => Cluster::Data { at, copied: self.is_copied() },
            (Kind::Zero, reserved) => Cluster::Zero { reserved },
            (Kind::Absent | Kind::Data, reserved) => Cluster::Absent { reserved },
        }
    }
}

fn offset_in(word: u64) -> Option<HostOffset> {
    Some(HostOffset(word & OFFSET)).filter(|at| at.get() != 0)
}

impl Cluster {
    /// Where the byte is, or would be.
    pub(crate) fn host(self) -> Option<HostOffset> {
        match self {
            Self::Data { at, .. } => Some(at),
            Self::Absent { reserved } | Self::Zero { reserved } => reserved,
            Self::Compressed(_) => None,
        }
    }

    /// Whether `next`, `len` bytes further, belongs to the same run.
    #[inline]
    pub(crate) fn continues(self, len: u64, next: Self) -> bool {
        let moved = |at: HostOffset| at.saturating_add(len);
        let expected = match self {
            Self::Absent { reserved } => Self::Absent { reserved: reserved.map(moved) },
            Self::Zero { reserved } => Self::Zero { reserved: reserved.map(moved) },
            Self::Data { at, copied } => Self::Data { at: moved(at), copied },
            Self::Compressed(_) => return false,
        };
        expected == next
    }
}

impl Fault {
    /// The error, for a word of the slice at `slice`.
    #[cold]
    pub(crate) fn at(self, slice: HostOffset) -> Invalid {
        let (field, expected) = self.rule.words();
        Invalid {
            format: NAME,
            field: field.into(),
            at: slice.saturating_add(self.word as u64 * 8),
            found: Value::Hex(self.value),
            expected: Cow::Borrowed(expected),
        }
    }
}

impl Rule {
    /// The field it is about, and what it expects there.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::TableAligned => ("L1 entry", "an L2 table at a multiple of the cluster size"),
            Self::ClusterAligned => {
                ("L2 entry", "a host offset that is a multiple of the cluster size")
            }
            Self::NoZeroFlag => ("L2 entry", "no zero flag (bit 0) in a version 2 image"),
            Self::StreamInReach => ("L2 entry", "compressed data at a host offset below 2^56"),
            Self::NotBothBits => ("L2 subcluster bitmap", "no subcluster both allocated and zero"),
            Self::HostForBits => (
                "L2 subcluster bitmap",
                "no allocated subcluster in an entry without a host cluster",
            ),
            Self::NoStream => ("L2 entry", "no compressed cluster with an external data file"),
            Self::HostIsGuest => {
                ("L2 entry", "the guest's own offset, as the data is in an external file")
            }
        }
    }
}
