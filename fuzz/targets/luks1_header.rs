//! Any bytes as a LUKS container, and as a detached header, with a passphrase that is tried.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| anydisk_fuzz::explore_luks(data.to_vec()));
