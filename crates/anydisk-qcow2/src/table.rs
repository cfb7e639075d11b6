//! Arithmetic of the L1 and L2 tables: which entry, and for how long its answer holds. Pure.
//!
//! ```text
//!   guest offset  | L1 index | L2 index (l2_bits) | in the cluster (cluster_bits) |
//! ```
//!
//! Tables are looked at in **slices** of 4 KiB, or of a cluster where that is smaller, so a slice
//! never crosses a cluster's border.

#![deny(clippy::indexing_slicing)]

use anydisk_core::{GuestOffset, GuestRange, HostOffset, Slice};

use crate::Header;
use crate::entry::{Cluster, Compressed, Fault, Kind, L1Entry, L2Entry, Rule};
use crate::layout::entry::{COMPRESSED, COPIED, HOST_END, ZERO};

/// Binary logarithm of the largest slice in bytes.
const SLICE_BITS: u32 = 12;
/// Subclusters in a cluster, with extended L2 entries.
pub(crate) const SUBCLUSTERS: u64 = 32;
/// The low half of a bitmap: the "allocated" bits.
pub(crate) const ALLOCATED: u64 = 0xFFFF_FFFF;

/// How guest offsets are spread over the tables of one image. Never changes while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    version: u32,
    cluster_bits: u32,
    /// Guest data lies in another file, each cluster where the guest has it.
    data_file: bool,
    /// Binary logarithm of the entries of an L2 table.
    l2_bits: u32,
    slice_bits: u32,
}

/// A word of a table: the slice it is in, and which one it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where the slice begins in the file.
    pub(crate) slice: HostOffset,
    /// Number of the `u64` in the slice.
    pub(crate) word: usize,
}

/// A run of the guest disk with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bytes, at least 1.
    pub(crate) len: u64,
    /// The answer for its first byte; offsets grow with the bytes.
    pub(crate) cluster: Cluster,
}

/// What an L1 entry says about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L1Run {
    /// No L2 table for so many bytes.
    Absent(u64),
    /// An L2 table.
    Table {
        /// Where it begins.
        at: HostOffset,
        /// Nothing else refers to the table.
        copied: bool,
    },
}

/// The words of a slice.
pub(crate) trait Words {
    /// Word number `index`; 0 past the end.
    fn word(&self, index: usize) -> u64;
    /// Number of words.
    fn count(&self) -> usize;
}

impl Words for Slice<'_> {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.get(index)
    }

    #[inline]
    fn count(&self) -> usize {
        self.len()
    }
}

impl Words for [u64] {
    fn word(&self, index: usize) -> u64 {
        self.get(index).copied().unwrap_or(0)
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Geometry {
    /// The geometry of an image.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        let entry_bits = if header.has_extended_l2() { 4 } else { 3 };
        Self {
            version: header.version,
            cluster_bits: header.cluster_bits,
            data_file: header.has_data_file(),
            l2_bits: header.cluster_bits - entry_bits,
            slice_bits: header.cluster_bits.min(SLICE_BITS),
        }
    }

    /// Binary logarithm of the cluster size.
    #[must_use]
    pub fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    /// Bytes in a cluster.
    #[must_use]
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes in the smallest part of the disk that has an answer of its own.
    #[must_use]
    pub fn subcluster_size(&self) -> u64 {
        if self.is_extended() { self.cluster_size() / SUBCLUSTERS } else { self.cluster_size() }
    }

    /// Whether L2 entries have 128 bits.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.l2_bits + 4 == self.cluster_bits
    }

    /// Whether the image has version 2, without zero entries.
    #[must_use]
    pub fn is_version_2(&self) -> bool {
        self.version < 3
    }

    /// Whether guest data lies in another file.
    #[must_use]
    pub fn has_data_file(&self) -> bool {
        self.data_file
    }

    /// Binary logarithm of the guest bytes that one L2 table maps.
    #[must_use]
    pub fn l2_coverage_bits(&self) -> u32 {
        self.cluster_bits + self.l2_bits
    }

    /// Bytes of a slice.
    #[must_use]
    pub(crate) fn slice_len(&self) -> usize {
        1 << self.slice_bits
    }

    /// Words (`u64`) that one L2 entry takes.
    #[must_use]
    pub(crate) fn entry_words(&self) -> usize {
        if self.is_extended() { 2 } else { 1 }
    }

    /// The entry that maps a guest offset, in the L1 table at `table`.
    #[inline]
    pub(crate) fn l1_slot(&self, table: HostOffset, guest: GuestOffset) -> Slot {
        self.slot(table, (guest.get() >> self.l2_coverage_bits()) << 3)
    }

    /// The first word of the entry that maps a guest offset, in the L2 table at `table`.
    #[inline]
    pub(crate) fn l2_slot(&self, table: HostOffset, guest: GuestOffset) -> Slot {
        let index = (guest.get() >> self.cluster_bits) & ((1 << self.l2_bits) - 1);
        self.slot(table, index << (self.cluster_bits - self.l2_bits))
    }

    /// The word `bytes` bytes into a table.
    #[inline]
    fn slot(&self, table: HostOffset, bytes: u64) -> Slot {
        let inside = bytes & ((1 << self.slice_bits) - 1);
        Slot { slice: table.saturating_add(bytes - inside), word: index(inside >> 3) }
    }

    /// What L1 entry number `word` of a slice says about the start of `range`, which it maps.
    /// Neighbours without an L2 table are counted together.
    #[inline]
    pub(crate) fn l1_run<W: Words + ?Sized>(
        &self,
        l1: &W,
        word: usize,
        range: GuestRange,
    ) -> Result<L1Run, Fault> {
        let entry = L1Entry(l1.word(word));
        let Some(at) = entry.table() else { return Ok(self.absent_run(l1, word, range)) };
        if !at.is_aligned(self.cluster_size()) {
            return Err(Fault { word, value: entry.0, rule: Rule::TableAligned });
        }
        Ok(L1Run::Table { at, copied: entry.is_copied() })
    }

    #[cold]
    fn absent_run<W: Words + ?Sized>(&self, l1: &W, mut word: usize, range: GuestRange) -> L1Run {
        let coverage = 1 << self.l2_coverage_bits();
        let start = range.start().get();
        let mut len = coverage - (start & (coverage - 1));
        while len < range.len() {
            word += 1;
            if word >= l1.count() || L1Entry(l1.word(word)).table().is_some() {
                break;
            }
            len += coverage;
        }
        L1Run::Absent(len.min(range.len()))
    }

    /// Whether `range` lies in one cluster that may be plain data, so that
    /// [`plain_data`](Self::plain_data) is worth asking.
    #[inline]
    pub(crate) fn is_within_cluster(&self, range: GuestRange) -> bool {
        let within = range.start().get() & (self.cluster_size() - 1);
        let is_usual = !self.is_extended() && !self.data_file;
        range.len() <= self.cluster_size() - within && is_usual
    }

    /// The entry at `word` of a slice, if it is that of a standard cluster of data and nothing is
    /// wrong with it. Such an answer fits a register; that of [`run`](Self::run) is moved through
    /// memory, which costs as much as finding it.
    #[inline]
    pub(crate) fn plain_data<W: Words + ?Sized>(&self, l2: &W, word: usize) -> Option<L2Entry> {
        let entry = L2Entry { word: l2.word(word), bitmap: 0 };
        let place = entry.host()?;
        let is_plain = entry.word & (COMPRESSED | ZERO) == 0;
        (is_plain && place.is_aligned(self.cluster_size())).then_some(entry)
    }

    /// The longest run with one answer from the start of `range`, whose L2 entry begins at `word`
    /// of a slice. It ends with the slice at the latest.
    #[inline]
    pub(crate) fn run<W: Words + ?Sized>(
        &self,
        l2: &W,
        mut word: usize,
        range: GuestRange,
    ) -> Result<Run, Fault> {
        let within = range.start().get() & (self.cluster_size() - 1);
        let (cluster, mut len) = self.answer(l2, word, within)?;
        if let Cluster::Data { at, .. } = cluster {
            self.check_place(l2, word, Some(at), range)?;
        }
        while len < range.len() {
            word += self.entry_words();
            let at_border = (within + len) & (self.cluster_size() - 1) == 0;
            if !at_border || word >= l2.count() {
                break;
            }
            // A neighbour that breaks the format has its say when it is asked for itself.
            let Ok((next, more)) = self.answer(l2, word, 0) else { break };
            if !cluster.continues(len, next) {
                break;
            }
            len += more;
        }
        Ok(Run { len: len.min(range.len()), cluster })
    }

    /// In an external data file the start of `range` has just that place, if it has one.
    #[inline]
    pub(crate) fn check_place<W: Words + ?Sized>(
        &self,
        l2: &W,
        word: usize,
        at: Option<HostOffset>,
        range: GuestRange,
    ) -> Result<(), Fault> {
        if self.data_file && at.is_some_and(|at| at.get() != range.start().get()) {
            let value = self.entry(l2, word).word;
            return Err(Fault { word, value, rule: Rule::HostIsGuest });
        }
        Ok(())
    }

    /// What the entry at `word` says about byte `within` of its cluster, and for how many bytes
    /// that holds inside the cluster.
    #[inline]
    pub(crate) fn answer<W: Words + ?Sized>(
        &self,
        l2: &W,
        word: usize,
        within: u64,
    ) -> Result<(Cluster, u64), Fault> {
        let entry = self.entry(l2, word);
        self.decode(entry, within).map_err(|rule| match rule {
            Rule::NotBothBits | Rule::HostForBits => {
                Fault { word: word + 1, value: entry.bitmap, rule }
            }
            _ => Fault { word, value: entry.word, rule },
        })
    }

    /// The L2 entry at `word` of a slice.
    #[inline]
    pub(crate) fn entry<W: Words + ?Sized>(&self, l2: &W, word: usize) -> L2Entry {
        let bitmap = if self.is_extended() { l2.word(word + 1) } else { 0 };
        L2Entry { word: l2.word(word), bitmap }
    }

    /// What an entry says about byte `within` of its cluster, and for how many bytes that holds
    /// inside the cluster (qcow2, "Cluster mapping", "Extended L2 Entries"). Reserved bits are not
    /// looked at, as in qemu.
    #[inline]
    pub(crate) fn decode(&self, entry: L2Entry, within: u64) -> Result<(Cluster, u64), Rule> {
        let rest = self.cluster_size() - within;
        if entry.is_compressed() {
            return Ok((Cluster::Compressed(self.compressed(entry)?), rest));
        }
        let host = self.host(entry);
        if host.is_some_and(|at| !at.is_aligned(self.cluster_size())) {
            return Err(Rule::ClusterAligned);
        }
        let at = host.map(|at| at.saturating_add(within));
        if self.is_extended() {
            let (kind, len) = self.subclusters(entry, within)?;
            return Ok((entry.cluster(kind, at), len));
        }
        let kind = match entry.word & ZERO != 0 {
            true if self.version < 3 => return Err(Rule::NoZeroFlag),
            true => Kind::Zero,
            false if at.is_some() => Kind::Data,
            false => Kind::Absent,
        };
        Ok((entry.cluster(kind, at), rest))
    }

    /// The kind of the subcluster that holds byte `within`, and the bytes from there to the end of
    /// its run of subclusters of the same kind. Any invalid pair of bits poisons the whole entry.
    fn subclusters(&self, entry: L2Entry, within: u64) -> Result<(Kind, u64), Rule> {
        let (allocated, zero) = (entry.bitmap & ALLOCATED, entry.bitmap >> 32);
        if allocated & zero != 0 {
            return Err(Rule::NotBothBits);
        }
        if allocated != 0 && self.host(entry).is_none() {
            return Err(Rule::HostForBits);
        }
        let bits = self.cluster_bits - 5;
        let first = within >> bits;
        let (kind, others) = match (allocated >> first & 1, zero >> first & 1) {
            (1, _) => (Kind::Data, !allocated),
            (_, 1) => (Kind::Zero, !zero),
            _ => (Kind::Absent, allocated | zero),
        };
        let end = first + u64::from(((others | 1 << 32) >> first).trailing_zeros());
        Ok((kind, (end << bits) - within))
    }

    /// The host cluster of an entry that is not compressed. The first cluster of an external data
    /// file is named by the COPIED flag alone (qcow2, "Standard Cluster Descriptor").
    #[inline]
    pub(crate) fn host(&self, entry: L2Entry) -> Option<HostOffset> {
        let is_first = self.data_file && entry.word & (COPIED | ZERO) == COPIED;
        entry.host().or(is_first.then_some(HostOffset::ZERO))
    }

    /// The extent that a compressed entry declares (qcow2, "Compressed Clusters Descriptor").
    pub(crate) fn compressed(&self, entry: L2Entry) -> Result<Compressed, Rule> {
        if self.data_file {
            return Err(Rule::NoStream);
        }
        let bits = self.stream_offset_bits();
        let at = entry.word & ((1 << bits) - 1);
        if at >= HOST_END {
            return Err(Rule::StreamInReach);
        }
        let sectors = ((entry.word & !(COPIED | COMPRESSED)) >> bits) + 1;
        Ok(Compressed { at: HostOffset(at), len: sectors * 512 - (at & 511) })
    }

    /// Bits of a compressed entry that hold the host offset; the number of additional sectors
    /// follows, up to bit 61.
    #[must_use]
    pub(crate) fn stream_offset_bits(&self) -> u32 {
        70 - self.cluster_bits
    }

    /// The entry of a stream of `len` bytes at `at`, or `None` if no entry can say that.
    #[must_use]
    pub(crate) fn compressed_entry(&self, at: HostOffset, len: u64) -> Option<L2Entry> {
        let bits = self.stream_offset_bits();
        let last = at.get().checked_add(len.checked_sub(1)?)?;
        let additional = last / 512 - at.get() / 512;
        let fits = at.get() < HOST_END.min(1 << bits) && additional < 1 << (62 - bits);
        fits.then(|| L2Entry { word: COMPRESSED | additional << bits | at.get(), bitmap: 0 })
    }

    /// The guest range of the whole cluster that holds `guest`; it may reach past the disk's end.
    #[must_use]
    pub(crate) fn cluster_range(&self, guest: GuestOffset) -> GuestRange {
        let start = GuestOffset(guest.get() & !(self.cluster_size() - 1));
        GuestRange::between(start, GuestOffset(start.get() + self.cluster_size()))
    }
}

/// A number below the length of a slice.
#[inline]
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails")]
mod tests;
