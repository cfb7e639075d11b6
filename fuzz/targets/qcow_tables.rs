//! Tables of any entries below a good header of any geometry; read, written and repaired.
#![no_main]

use anydisk_core::HostOffset;
use anydisk_qcow::{Header, QCOW};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Tables {
    cluster_bits: u8,
    l2_bits: u8,
    size: u32,
    /// Entries behind the first, which names the L2 table.
    l1: Vec<u64>,
    l2: Vec<u64>,
    payload: Vec<u8>,
}

impl Tables {
    /// header | L1 table | at 64 KiB the L2 table | payload.
    fn file(&self) -> Vec<u8> {
        let header = Header {
            backing_file: None,
            mtime: 0,
            size: u64::from(self.size).max(2),
            cluster_bits: 9 + u32::from(self.cluster_bits % 8),
            l2_bits: 6 + u32::from(self.l2_bits % 8),
            encrypted: false,
            l1_table_offset: HostOffset(48),
        };
        let mut file = header.to_bytes().to_vec();
        push_words(&mut file, std::iter::once(&0x10000).chain(&self.l1));
        file.resize(0x10000, 0);
        push_words(&mut file, &self.l2);
        file.resize(file.len().max(0x10000 + (8 << header.l2_bits)), 0);
        file.extend(&self.payload);
        file
    }
}

fn push_words<'a>(file: &mut Vec<u8>, words: impl IntoIterator<Item = &'a u64>) {
    file.extend(words.into_iter().take(8000).flat_map(|word| word.to_be_bytes()));
}

fuzz_target!(|tables: Tables| {
    let file = tables.file();
    anydisk_fuzz::explore(&QCOW, file.clone());
    anydisk_fuzz::write_and_read(&QCOW, file.clone());
    anydisk_fuzz::check_and_repair(&QCOW, file);
});
