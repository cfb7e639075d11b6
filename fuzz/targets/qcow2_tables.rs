//! L1 and L2 tables of any entries below a good header of any geometry.
#![no_main]

use anydisk_core::HostOffset;
use anydisk_qcow2::{Compression, Header, QCOW2};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// "Extended L2 entries" and "compression type" in the incompatible features.
const EXTENDED_L2: u64 = 1 << 4;
const COMPRESSION_TYPE: u64 = 1 << 3;

#[derive(Arbitrary, Debug)]
struct Tables {
    cluster_bits: u8,
    version_2: bool,
    extended: bool,
    zstd: bool,
    size: u32,
    /// Entries behind the first, which names the L2 table.
    l1: Vec<u64>,
    l2: Vec<u64>,
    payload: Vec<u8>,
}

impl Tables {
    /// header | refcount table | L1 table | L2 table | payload, a cluster each.
    fn file(&self) -> Option<Vec<u8>> {
        let header = self.header();
        let cluster = usize::try_from(header.cluster_size()).ok()?;
        let mut file = header.to_bytes().ok()?;
        file.resize(2 * cluster, 0);
        push_words(&mut file, std::iter::once(&(3 << header.cluster_bits)).chain(&self.l1));
        file.resize(3 * cluster, 0);
        push_words(&mut file, &self.l2);
        file.resize(4 * cluster, 0);
        file.extend(self.payload.iter().take(2 * cluster));
        file.resize(file.len().next_multiple_of(cluster).max(5 * cluster), 0);
        Some(file)
    }

    fn header(&self) -> Header {
        let version = if self.version_2 { 2 } else { 3 };
        let extended = self.extended && version == 3;
        let zstd = self.zstd && version == 3;
        let cluster_bits = 9 + u32::from(self.cluster_bits % 8) + if extended { 5 } else { 0 };
        let entry_bits = if extended { 4 } else { 3 };
        let coverage = 1_u64 << (2 * cluster_bits - entry_bits);
        let l1_most = 1 << (cluster_bits - 3);
        let size = u64::from(self.size) % (coverage * l1_most) / 512 * 512;
        let mut incompatible = 0;
        incompatible |= if extended { EXTENDED_L2 } else { 0 };
        incompatible |= if zstd { COMPRESSION_TYPE } else { 0 };
        Header {
            version,
            cluster_bits,
            size,
            crypt_method: 0,
            l1_size: u32::try_from(size.div_ceil(coverage)).expect("a cluster of entries"),
            l1_table_offset: HostOffset(2 << cluster_bits),
            refcount_table_offset: HostOffset(1 << cluster_bits),
            refcount_table_clusters: 1,
            nb_snapshots: 0,
            snapshots_offset: HostOffset::ZERO,
            incompatible_features: incompatible,
            compatible_features: 0,
            autoclear_features: 0,
            refcount_order: 4,
            compression: if zstd { Compression::Zstd } else { Compression::Deflate },
            unknown_fields: Vec::new(),
            extensions: Vec::new(),
            backing_file: None,
        }
    }
}

fn push_words<'a>(file: &mut Vec<u8>, words: impl IntoIterator<Item = &'a u64>) {
    file.extend(words.into_iter().flat_map(|word| word.to_be_bytes()));
}

fuzz_target!(|tables: Tables| {
    if let Some(file) = tables.file() {
        anydisk_fuzz::explore(&QCOW2, file);
    }
});
