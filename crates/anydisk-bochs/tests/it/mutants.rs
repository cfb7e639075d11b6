//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_bochs::BOCHS;
use anydisk_core::{Access, Limits, Registry};
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Mutant, Nasty, wander};

/// Most changes are in the header and the tables.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[96, 0x2000],
    nasty: Nasty::Little32(&[0, 1, u32::MAX, 1 << 31, 0x1000, 1 << 24]),
    count: 60,
    largest: u64::MAX,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let registry = Registry::new(&[&BOCHS]);
    let tally = DAMAGE.on_golden("bochs", &mut Random::new(11), |mutant, random| {
        let mutant = Mutant { access: Access::Read, ..mutant };
        wander(&mutant.open(&registry, "bochs", Limits::strict())?, random);
        Ok(())
    });
    tally.assert_mixed(100);
}
