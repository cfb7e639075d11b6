//! Golden headers with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{Access, Disk, Format, Limits, OpenRequest, Result};
use anydisk_luks::LUKS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};

/// The costs of passphrases are left alone: they are bounded by limits, and would only make the
/// test slow.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[112, 592, 8192],
    nasty: Nasty::Big32(&[0, 1, u32::MAX, 1 << 31, 4000, 0x00AC_71F3]),
    count: 40,
    largest: u64::MAX,
};

fn use_image(bytes: Vec<u8>, access: Access, passphrase: &str, random: &mut Random) -> Result<()> {
    let mut limits = Limits::strict();
    (limits.kdf_iterations, limits.kdf_memory) = (20_000, 1 << 20);
    let (location, secrets) = (crate::common::location(), crate::common::secret(passphrase));
    let request = OpenRequest::new(Arc::new(MemoryStorage::new(bytes)), &location, &limits);
    let opened = LUKS.open(OpenRequest { access, secrets: &secrets, ..request })?;
    let _ = opened.image.info();
    wander(&Disk::new(opened.image), random);
    Ok(())
}

#[test]
fn no_damage_to_a_golden_header_makes_a_reader_or_writer_panic_or_wait() {
    let tally = DAMAGE.on_golden("luks", &mut Random::new(12), |mutant, random| {
        let Some(passphrase) = &mutant.case.secret else { return Ok(()) };
        use_image(mutant.bytes, mutant.access, passphrase, random)
    });
    tally.assert_mixed(100);
}
