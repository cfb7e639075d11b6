//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use anydisk_core::{Limits, Registry};
use anydisk_parallels::PARALLELS;
use anydisk_raw::RAW;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};

/// Most changes are in the header and the block table.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[64, 128, 1 << 10],
    nasty: Nasty::Little32(&[0, 1, u32::MAX, 1 << 31, 0x800, 63, 0x746F_6E59, 4096]),
    count: 40,
    largest: 8 << 20,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let registry = Registry::new(&[&PARALLELS, &RAW]);
    let tally = DAMAGE.on_golden("parallels", &mut Random::new(7), |mutant, random| {
        wander(&mutant.open(&registry, "parallels", Limits::default())?, random);
        Ok(())
    });
    tally.assert_mixed(150);
}
