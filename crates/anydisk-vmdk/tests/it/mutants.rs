//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{Access, CheckRequest, Format, Limits, Location, OpenRequest, Registry, Repair};
use anydisk_raw::RAW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Mutant, Nasty, wander};
use anydisk_vmdk::VMDK;

/// Most changes are in the header, the descriptor and the tables.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[80, 1 << 12, 1 << 14],
    nasty: Nasty::Little32(&[0, 1, u32::MAX, 1 << 31, 1 << 24, 0x8000, 128]),
    count: 40,
    largest: 6 << 20,
};

/// Checks the image, repairs it and checks it again: no panic, and what could be mended is.
fn check_image(mutant: &Mutant<'_>) {
    let (case, files) = (mutant.case, mutant.files);
    let (location, limits) = (Location::Other("mutant".to_owned()), Limits::default());
    let store = Arc::new(MemoryStorage::new(mutant.bytes.clone()));
    let check = |repair: Repair| {
        let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
        let request = OpenRequest::new(store.clone(), &location, &limits);
        let request = OpenRequest { access, resolver: files, ..request };
        let mut found = Vec::new();
        let request = CheckRequest::new(request).repairing(repair);
        let report = VMDK.check(&request, &mut |it| found.push((it.kind, it.remedy.is_some())));
        report.map(|_| found)
    };
    // What is no space without a name is as it was when that was given back.
    let damages = |mut found: Vec<(&'static str, bool)>| {
        found.retain(|(kind, _)| !["leak", "unnamed"].contains(kind));
        found
    };
    let before = check(Repair::Nothing).map(damages);
    let _ = check(Repair::Leaks);
    match (before, check(Repair::Nothing).map(damages)) {
        (Ok(before), Ok(after)) => assert_eq!(before, after, "{case}"),
        (before, after) => assert_eq!(before.is_ok(), after.is_ok(), "{case}"),
    }
    // Entries are emptied, a cut grain is filled up, copies are appended: each in a run of its own.
    if (0..3).all(|_| check(Repair::All).is_ok()) {
        let Ok(left) = check(Repair::Nothing) else { panic!("{case}: it could be checked before") };
        let left = damages(left);
        assert!(left.iter().all(|(_, has_remedy)| !has_remedy), "{case}: {left:?}");
    }
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let registry = Registry::new(&[&VMDK, &RAW]);
    let tally = DAMAGE.on_golden("vmdk", &mut Random::new(7), |mutant, random| {
        wander(&mutant.open(&registry, "vmdk", Limits::default())?, random);
        Ok(())
    });
    tally.assert_mixed(300);
}

#[test]
fn no_damage_to_a_golden_image_makes_a_check_or_repair_panic_or_wait() {
    let damage = Damage { count: DAMAGE.count / 4, ..DAMAGE };
    damage.on_golden("vmdk", &mut Random::new(8), |mutant, _| {
        check_image(&mutant);
        Ok(())
    });
}
