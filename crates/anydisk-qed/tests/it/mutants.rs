//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_core::{Limits, Registry};
use anydisk_qed::QED;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};

/// Most changes are in the header and the tables.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[64, 64, 0x4000],
    nasty: Nasty::Little64(&[0, 1, u64::MAX, 1 << 63, 0x1000, 1 << 56, (1 << 63) - 512]),
    count: 60,
    largest: u64::MAX,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let registry = Registry::new(&[&QED]);
    let tally = DAMAGE.on_golden("qed", &mut Random::new(11), |mutant, random| {
        wander(&mutant.open(&registry, "qed", Limits::strict())?, random);
        Ok(())
    });
    tally.assert_mixed(200);
}
