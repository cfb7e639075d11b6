//! Packages with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{HostOffset, Limits, Members, Result, Storage};
use anydisk_ovf::Package;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty};

/// The header and the descriptor, the headers alone, and anywhere.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[512, 4096],
    nasty: Nasty::Big64(&[
        0,
        u64::MAX,
        1 << 63,
        0x8000_0000_0000_0000,
        // Digits of a size: 77777777.
        0x3737_3737_3737_3737,
        // "<!ENTITY", "../../..", and a quote and a bracket among blanks.
        0x3C21_454E_5449_5459,
        0x2E2E_2F2E_2E2F_2E2E,
        0x2020_223E_2020_2020,
    ]),
    count: 60,
    largest: 1 << 20,
};

/// Puts the checksums right where headers are: else damage to a header is always found out.
fn seal(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn use_all(package: &Package) -> Result<()> {
    for member in package.members() {
        let store = Members::open(package, &member.path)?;
        let len = store.len()?;
        for at in [0, len / 2, len.saturating_sub(5000)] {
            store.read_at(HostOffset(at), &mut [0; 5000])?;
        }
    }
    Ok(())
}

#[test]
fn no_damage_to_a_package_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(4);
    let tally = DAMAGE.on_golden("ova", &mut random, |mut mutant, random| {
        if random.chance(3, 4) {
            seal(&mut mutant.bytes);
        }
        let store = Arc::new(MemoryStorage::new(mutant.bytes));
        use_all(&Package::open_ova(store, &Limits::strict())?)
    });
    assert!(tally.good + tally.refused >= 1000, "{tally:?}");
    tally.assert_mixed(50);
}
