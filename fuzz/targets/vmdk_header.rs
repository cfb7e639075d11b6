//! The header of a hosted sparse extent: any 512 bytes before a good descriptor, a footer and
//! tables of any numbers.
#![no_main]

use anydisk_vmdk::VMDK;
use libfuzzer_sys::fuzz_target;

const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\nRW 2048 SPARSE \"input\"\nddb.adapterType = \"ide\"\n";

fuzz_target!(|data: &[u8]| {
    let (header, tables) = data.split_at(data.len().min(512));
    let mut file = header.to_vec();
    file.resize(512, 0);
    file.extend_from_slice(DESCRIPTOR);
    file.resize(21 * 512, 0);
    file.extend_from_slice(tables);
    file.resize(file.len().next_multiple_of(512).max(256 << 9), 0);
    anydisk_fuzz::explore(&VMDK, file);
});
