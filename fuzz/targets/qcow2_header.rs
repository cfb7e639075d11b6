//! The qcow2 header: any bytes give a header or an error, and a header is written as it was read.
#![no_main]

use anydisk_qcow2::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The file is longer than what was read, as it usually is; and it is not.
    for file_len in [data.len() as u64, data.len() as u64 + (1 << 30)] {
        let Ok(header) = Header::parse(data, file_len) else { continue };
        // What lies close together in `data` may need more room when it is written in order.
        let Ok(mut bytes) = header.to_bytes() else { continue };
        bytes.resize(usize::try_from(header.cluster_size()).expect("2 MiB at most"), 0);
        let again = Header::parse(&bytes, file_len.max(bytes.len() as u64));
        let mut again = again.expect("our own header");
        // The length of the header is rounded up to 8 bytes.
        let padded = again.unknown_fields.split_off(header.unknown_fields.len());
        assert!(padded.iter().all(|&byte| byte == 0));
        assert_eq!(again, header);
    }
});
