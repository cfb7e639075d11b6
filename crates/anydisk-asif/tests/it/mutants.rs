//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_asif::ASIF;
use anydisk_core::{Access, Limits, Registry};
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Mutant, Nasty, wander};

/// Most changes are in the header and the tables.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[108, 0x500, 0x200_000],
    nasty: Nasty::Big64(&[0, 1, u64::MAX, 1 << 62 | 3, 3 << 62 | 2, 1 << 55, 2]),
    count: 60,
    largest: u64::MAX,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let registry = Registry::new(&[&ASIF]);
    let tally = DAMAGE.on_golden("asif", &mut Random::new(11), |mutant, random| {
        let mutant = Mutant { access: Access::Read, ..mutant };
        wander(&mutant.open(&registry, "asif", Limits::strict())?, random);
        Ok(())
    });
    tally.assert_mixed(20);
}
