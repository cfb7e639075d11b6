//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Format, Limits, Location, OpenRequest, Registry, Result,
};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RAW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, wander};

/// Most changes are in the header and the tables.
const DAMAGE: Damage = Damage {
    places: 6,
    areas: &[112, 600, 1 << 16],
    nasty: Nasty::Big64(&[0, u64::MAX, 1 << 63, 1 << 62, (1 << 62) | 1, (1 << 63) | 0x1_0000]),
    count: 40,
    largest: 1 << 20,
};

/// Checks the image.
fn check_image(bytes: Vec<u8>) -> Result<CheckReport> {
    let (location, limits) = (Location::Other("mutant".into()), Limits::default());
    let store = Arc::new(MemoryStorage::new(bytes));
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    QCOW2.check(&request, &mut |finding| assert!(!finding.text.is_empty()))
}

#[test]
fn no_damage_to_a_golden_image_makes_a_check_panic_or_wait() {
    let (mut clean, mut damaged) = (0, 0);
    let tally = DAMAGE.on_golden("qcow2", &mut Random::new(11), |mutant, _| {
        let report = check_image(mutant.bytes)?;
        *if report.is_clean() { &mut clean } else { &mut damaged } += 1;
        Ok(())
    });
    tally.assert_mixed(500);
    assert!(clean > 500 && damaged > 500, "{clean} clean, {damaged} damaged");
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let registry = Registry::new(&[&QCOW2, &RAW]);
    let tally = DAMAGE.on_golden("qcow2", &mut Random::new(7), |mutant, random| {
        wander(&mutant.open(&registry, "qcow2", Limits::default())?, random);
        Ok(())
    });
    tally.assert_mixed(500);
}
