//! How large an image is: where the tables of a new one lie, and what it will take.

use anydisk_core::{BitmapInfo, GuestRange, HostOffset, Measure, MeasureRequest, Result, Storage};

use crate::create::Plan;

/// The metadata of a new, empty image: header, refcount table, refcount blocks, L1 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    cluster_bits: u32,
    refcount_order: u32,
    /// Bytes of an L2 entry.
    entry_bytes: u64,
    size: u64,
    /// Clusters of the refcount table.
    pub(crate) table_clusters: u64,
    /// Refcount blocks, one cluster each.
    blocks: u64,
    /// Entries of the L1 table.
    pub(crate) l1_entries: u64,
    /// Clusters of the LUKS header, behind the L1 table.
    crypto_clusters: u64,
}

impl Layout {
    pub(crate) fn new(cluster_bits: u32, refcount_order: u32, extended: bool, size: u64) -> Self {
        let entry_bytes = if extended { 16 } else { 8 };
        let coverage = (1_u64 << cluster_bits) * ((1 << cluster_bits) / entry_bytes);
        let layout = Self {
            cluster_bits,
            refcount_order,
            entry_bytes,
            size,
            table_clusters: 1,
            blocks: 1,
            l1_entries: size.div_ceil(coverage),
            crypto_clusters: 0,
        };
        layout.settled()
    }

    /// The same with a LUKS header of `len` bytes.
    pub(crate) fn with_crypto_header(self, len: u64) -> Self {
        Self { crypto_clusters: len.div_ceil(self.cluster()), ..self }.settled()
    }

    fn settled(mut self) -> Self {
        // Tables count themselves: both numbers only grow until they fit.
        loop {
            let blocks = self.clusters().div_ceil(self.per_block());
            let table_clusters = (blocks * 8).div_ceil(self.cluster());
            if (blocks, table_clusters) == (self.blocks, self.table_clusters) {
                return self;
            }
            (self.blocks, self.table_clusters) = (blocks, table_clusters);
        }
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Clusters that one refcount block counts.
    fn per_block(&self) -> u64 {
        (self.cluster() * 8) >> self.refcount_order
    }

    /// Clusters in use.
    fn clusters(&self) -> u64 {
        self.clusters_before_crypto() + self.crypto_clusters
    }

    fn clusters_before_crypto(&self) -> u64 {
        1 + self.table_clusters + self.blocks + (self.l1_entries * 8).div_ceil(self.cluster())
    }

    /// Where the LUKS header is.
    pub(crate) fn crypto_header(&self) -> HostOffset {
        HostOffset(self.clusters_before_crypto() << self.cluster_bits)
    }

    pub(crate) fn refcount_table(&self) -> HostOffset {
        HostOffset(self.cluster())
    }

    fn first_block(&self) -> u64 {
        (1 + self.table_clusters) << self.cluster_bits
    }

    /// Where the L1 table is; 0, as in qemu, if a disk of no bytes needs none.
    pub(crate) fn l1_table(&self) -> HostOffset {
        HostOffset(if self.l1_entries == 0 { 0 } else { self.end_of_blocks() })
    }

    fn end_of_blocks(&self) -> u64 {
        self.first_block() + (self.blocks << self.cluster_bits)
    }

    /// Length of the file: the last cluster of the L1 table is not filled up.
    pub(crate) fn end(&self) -> u64 {
        match self.crypto_clusters {
            0 => self.end_of_blocks() + self.l1_entries * 8,
            _ => self.clusters() << self.cluster_bits,
        }
    }

    pub(crate) fn refcount_table_bytes(&self) -> Vec<u8> {
        let block = |index: u64| (self.first_block() + (index << self.cluster_bits)).to_be_bytes();
        (0..self.blocks).flat_map(block).collect()
    }

    /// Writes a count of 1 for every cluster in use.
    pub(crate) fn write_refcounts(&self, store: &dyn Storage) -> Result<()> {
        let bits = 1_u64 << self.refcount_order;
        let used = self.clusters();
        for block in 0..self.blocks {
            let count = (used - block * self.per_block()).min(self.per_block());
            let at = self.first_block() + (block << self.cluster_bits);
            store.write_at(HostOffset(at), &ones(bits, count))?;
        }
        Ok(())
    }
}

/// `count` refcounts of 1, each `bits` wide.
fn ones(bits: u64, count: u64) -> Vec<u8> {
    let len = usize::try_from((bits * count).div_ceil(8)).expect("at most a cluster");
    let mut bytes = vec![0; len];
    for index in 0..count {
        // Widths below a byte begin at the lowest bit; wider ones end with their lowest byte.
        let (at, bit) = if bits < 8 {
            (index * bits / 8, index * bits % 8)
        } else {
            ((index + 1) * bits / 8 - 1, 0)
        };
        bytes[usize::try_from(at).expect("inside")] |= 1 << bit;
    }
    bytes
}

/// Bytes that a new image takes (the formula of `qemu-img measure`).
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let size = request.size.checked_next_multiple_of(512).unwrap_or(u64::MAX);
    let plan = Plan::of(request.options, size)?;
    let layout = plan.layout(size);
    let cluster = layout.cluster();
    let up = |bytes: u64, unit: u64| bytes.div_ceil(unit) * unit;
    let entries = up(size.div_ceil(cluster), cluster / layout.entry_bytes);
    let l2 = entries * layout.entry_bytes;
    let meta = cluster + l2 + up(l2 / cluster, cluster / 8) * 8;
    let data = up(size, cluster);
    let counted = (meta + data) / cluster;
    let (mut blocks, mut table) = (0, 0);
    loop {
        let more = (counted + blocks + table).div_ceil(layout.per_block());
        let larger = more.div_ceil(cluster / 8);
        if (more, larger) == (blocks, table) {
            break;
        }
        (blocks, table) = (more, larger);
    }
    // Not counted among the clusters that refcounts are for, as qemu-img measures it.
    let crypto = up(plan.crypto_header_len(), cluster);
    let fully_allocated = meta + (blocks + table) * cluster + data + crypto;
    let sparse = matches!(request.options.text("preallocation"), None | Some("off" | "metadata"));
    let used = if sparse { clusters_in(request.data, cluster) * cluster } else { data };
    Ok(Measure { required: fully_allocated - data + used, fully_allocated })
}

/// Bytes that bitmaps take in a new image; version 2 holds none.
pub(crate) fn bitmaps(request: &MeasureRequest<'_>, bitmaps: &[BitmapInfo]) -> Option<u64> {
    if matches!(request.options.text("compat"), Some("0.10" | "v2")) {
        return None;
    }
    let cluster = request.options.number("cluster_size").filter(|size| *size > 0)?;
    Some(bitmaps_len(bitmaps, request.size, cluster))
}

/// Bytes that bitmaps of a disk of `size` bytes take in an image whose clusters have `cluster`
/// bytes (the formula of `qemu-img measure`): bits, their tables, and the directory. Those that
/// cannot be trusted do not go along with a copy, and are not counted.
fn bitmaps_len(bitmaps: &[BitmapInfo], size: u64, cluster: u64) -> u64 {
    let up = |bytes: u64| bytes.div_ceil(cluster).saturating_mul(cluster);
    let (mut bytes, mut directory) = (0_u64, 0_u64);
    for bitmap in bitmaps.iter().filter(|bitmap| !bitmap.inconsistent) {
        let bits = up(size.div_ceil(bitmap.granularity).div_ceil(8));
        bytes = bytes.saturating_add(bits).saturating_add(up(bits / cluster * 8));
        directory += (24 + bitmap.name.len() as u64).next_multiple_of(8);
    }
    bytes.saturating_add(up(directory))
}

/// Clusters that the ranges, which rise, touch.
fn clusters_in(ranges: &[GuestRange], cluster: u64) -> u64 {
    let (mut sum, mut end) = (0, 0);
    for range in ranges {
        let whole = range.grown_to(cluster);
        let start = whole.start().get().max(end);
        end = whole.end().get().max(end);
        sum += (end - start) / cluster;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_image_is_laid_out_as_qemu_does() {
        let layout = Layout::new(16, 4, false, 64 << 20);
        assert_eq!(layout.refcount_table(), HostOffset(0x10000));
        assert_eq!(layout.l1_table(), HostOffset(0x30000));
        assert_eq!(layout.end(), 3 * 65536 + 8);
        assert_eq!(Layout::new(16, 4, false, 0).end(), 3 * 65536);
    }

    #[test]
    fn a_bitmap_takes_its_bits_a_table_and_a_directory() {
        let bitmap = |name: &str, inconsistent| BitmapInfo {
            name: name.into(),
            granularity: 65536,
            enabled: true,
            inconsistent,
        };
        assert_eq!(bitmaps_len(&[bitmap("x", false)], 1 << 20, 65536), 3 * 65536);
        assert_eq!(bitmaps_len(&[bitmap("x", false), bitmap("y", true)], 1 << 20, 65536), 3 << 16);
        assert_eq!(bitmaps_len(&[], 1 << 20, 65536), 0);
    }

    #[test]
    fn refcounts_of_one_are_packed_as_their_width_asks() {
        assert_eq!(ones(1, 10), [0xff, 3]);
        assert_eq!(ones(4, 3), [0x11, 1]);
        assert_eq!(ones(16, 2), [0, 1, 0, 1]);
        assert_eq!(ones(64, 1), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
