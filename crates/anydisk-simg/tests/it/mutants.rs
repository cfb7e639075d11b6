//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_core::{Access, Limits, Registry};
use anydisk_simg::SIMG;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Mutant, Nasty, wander};

/// Most changes are in the header and the tables.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[64, 64],
    nasty: Nasty::Little32(&[0, 1, u32::MAX, 1 << 31, 0xCAC2, 0xCAC3, 12]),
    count: 60,
    largest: u64::MAX,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let registry = Registry::new(&[&SIMG]);
    let tally = DAMAGE.on_golden("simg", &mut Random::new(11), |mutant, random| {
        let mutant = Mutant { access: Access::Read, ..mutant };
        wander(&mutant.open(&registry, "simg", Limits::strict())?, random);
        Ok(())
    });
    tally.assert_mixed(100);
}
