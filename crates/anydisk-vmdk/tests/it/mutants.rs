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
        let mut kinds = Vec::new();
        let request = CheckRequest::new(request).repairing(repair);
        let report = VMDK.check(&request, &mut |finding| kinds.push(finding.kind));
        report.map(|_| kinds)
    };
    // What is no space without a name is as it was when that was given back.
    let damages = |kinds: Vec<&'static str>| {
        kinds.into_iter().filter(|kind| !["leak", "unnamed"].contains(kind)).collect::<Vec<_>>()
    };
    let before = check(Repair::Nothing).map(damages);
    let _ = check(Repair::Leaks);
    match (before, check(Repair::Nothing).map(damages)) {
        (Ok(before), Ok(after)) => assert_eq!(before, after, "{case}"),
        (before, after) => assert_eq!(before.is_ok(), after.is_ok(), "{case}"),
    }
    // Tables are appended in a run of their own, once nothing can be taken for them.
    if check(Repair::All).is_ok() && check(Repair::All).is_ok() {
        let Ok(left) = check(Repair::Nothing) else { panic!("{case}: it could be checked before") };
        // Where pieces of metadata lie on each other, nothing is written; nor where the size is in doubt,
        // and entries behind it are kept.
        let mended =
            ["unclean", "directory-lost", "directory-entry", "table-entry", "copies-differ"];
        let is_left = left.iter().any(|kind| mended.contains(kind));
        let is_in_doubt =
            ["metadata-overlap", "extent-size"].iter().any(|kind| left.contains(kind));
        assert!(!is_left || is_in_doubt, "{case}: {left:?}");
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
