//! A whole VDI, opened and read, opened for writing and written, and repaired.
//!
//! The input is header, map and the beginning of the blocks. VirtualBox puts the map at 1 MiB: what lies between
//! is not part of the input, but where the header says.
#![no_main]

use anydisk_fuzz::{check_and_repair, explore, write_and_read};
use anydisk_vdi::VDI;
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 512;
const LONGEST_MAP: usize = 16 << 10;
const FARTHEST: usize = 4 << 20;

fuzz_target!(|data: &[u8]| {
    let file = laid_out(data).unwrap_or_else(|| data.to_vec());
    explore(&VDI, file.clone());
    write_and_read(&VDI, file.clone());
    check_and_repair(&VDI, file);
});

/// The file with its parts where the header has them; `None`: they lie in a row.
fn laid_out(data: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = data.split_at_checked(HEADER)?;
    let number = |at: usize| {
        let bytes = header.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let (version, map_at, blocks_at) = (number(68)?, number(340)?, number(344)?);
    let (block, blocks, count) = (number(376)?, number(384)?, number(388)?);
    if version >> 16 != 1 || map_at < HEADER || map_at > FARTHEST || blocks_at > FARTHEST {
        return None;
    }
    let (map, blocks) = rest.split_at(blocks.saturating_mul(4).min(LONGEST_MAP).min(rest.len()));
    let end = blocks_at + block.saturating_mul(count).min(FARTHEST);
    let mut file = vec![0; end.max(map_at + map.len()).max(blocks_at + blocks.len())];
    file[..HEADER].copy_from_slice(header);
    file[blocks_at..blocks_at + blocks.len()].copy_from_slice(blocks);
    file[map_at..map_at + map.len()].copy_from_slice(map);
    Some(file)
}
