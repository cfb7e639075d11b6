//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, CheckRequest, Disk, Format, GuestOffset, GuestRange, Limits, Located, Location,
    OpenRequest, Opener, Registry, Repair, Result,
};
use anydisk_raw::RAW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::cases;
use anydisk_testkit::{FolderResolver, Random};
use anydisk_vmdk::VMDK;

/// Larger images only cost time: their tables are no different.
const LARGEST: u64 = 1 << 20;
const MUTANTS: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(1);

/// Numbers that overflow, point nowhere, or set one flag.
const NASTY: [u32; 7] = [0, 1, u32::MAX, 1 << 31, 1 << 24, 0x8000, 128];

/// Changes up to three places, most of them in the header, the descriptor and the tables.
fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let area = [80, 1 << 12, 1 << 14, bytes.len()][random.index(4)].min(bytes.len());
        let at = random.index(area.max(1));
        if random.chance(1, 2) {
            bytes[at] ^= 1 << random.below(8);
        } else if let Some(word) = bytes[at & !3..].first_chunk_mut() {
            *word = NASTY[random.index(NASTY.len())].to_le_bytes();
        }
    }
}

/// Opens, maps and reads the beginning of the disk and some places on it; writes one.
fn use_image(
    bytes: Vec<u8>,
    files: &FolderResolver,
    access: Access,
    random: &mut Random,
) -> Result<()> {
    let registry = Registry::new(&[&VMDK, &RAW]);
    let limits = Limits::default();
    let opener = Opener::new(&registry, files).with_limits(limits);
    let store = Arc::new(MemoryStorage::new(bytes));
    let file = Located { store, location: Location::Other("mutant".to_owned()) };
    let layer = opener.open_one(file, Some("vmdk"), access)?;
    let disk = Disk::new(layer.image);
    let mut buffer = vec![0; 70_000];
    let mut at = 0;
    for step in 0..60 {
        if at >= disk.size() {
            break;
        }
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(disk.size()));
        let skip = match disk.map(rest) {
            Ok(found) => {
                assert!(found.extent.len > 0 && found.extent.len <= rest.len());
                found.extent.len
            }
            Err(_) => 65536,
        };
        let len = usize::try_from(rest.len().min(70_000)).expect("small");
        // Broken entries are expected here; a panic is not.
        let _ = disk.read(rest.start(), &mut buffer[..len]);
        if access == Access::ReadWrite && step % 8 == 0 && len < 1 << 20 {
            let _ = disk.write(rest.start(), &buffer[..len.min(1000)]);
        }
        at = if step < 30 { at.saturating_add(skip) } else { random.below(disk.size()) };
    }
    let _ = disk.flush();
    Ok(())
}

/// Checks the image, repairs it and checks it again: no panic, and what could be mended is.
fn check_image(case: &str, bytes: Vec<u8>, files: &FolderResolver) {
    let (location, limits) = (Location::Other("mutant".to_owned()), Limits::default());
    let store = Arc::new(MemoryStorage::new(bytes));
    let check = |repair: Repair| {
        let access = if repair == Repair::Nothing { Access::Read } else { Access::ReadWrite };
        let request = OpenRequest::new(store.clone(), &location, &limits);
        let request = OpenRequest { access, resolver: files, ..request };
        let mut kinds = Vec::new();
        let request = CheckRequest::new(request).repairing(repair);
        let report = VMDK.check(&request, &mut |finding| kinds.push(finding.kind));
        report.map(|_| kinds)
    };
    let _ = check(Repair::Nothing);
    let _ = check(Repair::Leaks);
    if check(Repair::All).is_ok() {
        let Ok(left) = check(Repair::Nothing) else { panic!("{case}: it could be checked before") };
        // Where pieces of metadata lie on each other, nothing is written.
        let mended =
            ["unclean", "directory-lost", "directory-entry", "table-entry", "copies-differ"];
        let is_left = left.iter().any(|kind| mended.contains(kind));
        assert!(!is_left || left.contains(&"metadata-overlap"), "{case}: {left:?}");
    }
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_or_writer_panic_or_wait() {
    let mut random = Random::new(7);
    let (mut opened, mut refused) = (0, 0);
    for case in cases("vmdk").iter().filter(|case| case.files.iter().all(|f| f.size <= LARGEST)) {
        let unpacked = case.unpack();
        let files = FolderResolver::new(unpacked.folder.path());
        let original = std::fs::read(&unpacked.path).expect("it was unpacked");
        for number in 0..MUTANTS {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut random);
            let access = if number % 2 == 0 { Access::Read } else { Access::ReadWrite };
            let start = Instant::now();
            if number % 4 == 0 && case.files.len() == 1 {
                check_image(&case.name, bytes.clone(), &files);
            }
            match use_image(bytes, &files, access, &mut random) {
                Ok(()) => opened += 1,
                Err(_) => refused += 1,
            }
            assert!(start.elapsed() < PATIENCE, "{case}: took {:?}", start.elapsed());
        }
    }
    // Neither all harmless nor all fatal: else the damage shows nothing.
    assert!(opened > 300 && refused > 300, "{opened} opened, {refused} refused");
}
