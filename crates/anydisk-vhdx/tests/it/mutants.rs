//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{Limits, Registry, Repair};
use anydisk_raw::RAW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};
use anydisk_vhdx::VHDX;

use crate::common::{check, open_alone};

/// Headers and region tables have checksums: most changes are in what has none.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[320 << 10, 2 << 20, 4 << 20],
    nasty: Nasty::Little64(&[0, 6, 7, u64::MAX, 1 << 63, 5 << 20, (3 << 20) | 6, 1 << 40]),
    count: 20,
    largest: 8 << 20,
};

#[test]
fn no_damage_to_a_golden_image_makes_a_check_or_repair_panic_or_wait() {
    let tally =
        Damage { count: 12, ..DAMAGE }.on_golden("vhdx", &mut Random::new(9), |mutant, _| {
            let store = Arc::new(MemoryStorage::new(mutant.bytes));
            let (report, _) = check(store.clone(), Repair::All)?;
            let (again, found) = check(store.clone(), Repair::Nothing)?;
            assert_eq!(again.corruptions, report.corruptions, "{}: {found:#?}", mutant.case.name);
            if again.corruptions == 0 {
                open_alone(store, mutant.access)?;
            }
            Ok(())
        });
    tally.assert_mixed(100);
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let registry = Registry::new(&[&VHDX, &RAW]);
    let tally = DAMAGE.on_golden("vhdx", &mut Random::new(7), |mutant, random| {
        wander(&mutant.open(&registry, "vhdx", Limits::default())?, random);
        Ok(())
    });
    tally.assert_mixed(100);
}
