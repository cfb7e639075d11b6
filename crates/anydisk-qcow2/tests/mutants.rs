//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    CheckReport, CheckRequest, Disk, Format, GuestOffset, GuestRange, Limits, Location,
    OpenRequest, Result,
};
use anydisk_qcow2::{QCOW2, Qcow2Image};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::golden::cases;

/// Larger images only cost time: their tables are no different.
const LARGEST: u64 = 1 << 20;
const MUTANTS: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(1);

/// Numbers that overflow, point nowhere, or set one flag.
const NASTY: [u64; 6] = [0, u64::MAX, 1 << 63, 1 << 62, (1 << 62) | 1, (1 << 63) | 0x1_0000];

/// Changes up to six places, most of them in the header and the tables.
fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let area = [112, 600, 1 << 16, bytes.len()][random.index(4)].min(bytes.len());
        let at = random.index(area.max(1));
        if random.chance(1, 2) {
            bytes[at] ^= 1 << random.below(8);
        } else if let Some(word) = bytes[at & !7..].first_chunk_mut() {
            *word = NASTY[random.index(NASTY.len())].to_be_bytes();
        }
    }
}

/// Maps and reads the beginning of the disk and some places on it.
fn use_image(bytes: Vec<u8>, random: &mut Random) -> Result<()> {
    let image = Qcow2Image::open(Arc::new(MemoryStorage::new(bytes)), &Limits::default())?;
    let cluster = image.header().cluster_size();
    let disk = Disk::new(Arc::new(image));
    let mut buffer = vec![0; 70_000];
    let mut at = 0;
    for step in 0..100 {
        if at >= disk.size() {
            break;
        }
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(disk.size()));
        let skip = match disk.map(rest) {
            Ok(found) => {
                assert!(found.extent.len > 0 && found.extent.len <= rest.len());
                found.extent.len
            }
            Err(_) => cluster,
        };
        let len = usize::try_from(rest.len().min(70_000)).expect("small");
        // Broken entries are expected here; a panic is not.
        let _ = disk.read(rest.start(), &mut buffer[..len]);
        at = if step < 50 { at.saturating_add(skip) } else { random.below(disk.size()) };
    }
    Ok(())
}

/// Checks the image.
fn check_image(bytes: Vec<u8>) -> Result<CheckReport> {
    let (location, limits) = (Location::Other("mutant".into()), Limits::default());
    let store = Arc::new(MemoryStorage::new(bytes));
    let request = CheckRequest::new(OpenRequest::new(store, &location, &limits));
    QCOW2.check(&request, &mut |finding| assert!(!finding.text.is_empty()))
}

#[test]
fn no_damage_to_a_golden_image_makes_a_check_panic_or_wait() {
    let mut random = Random::new(11);
    let (mut clean, mut damaged, mut refused) = (0, 0, 0);
    on_mutants(&mut random, |bytes, _| match check_image(bytes) {
        Ok(report) if report.is_clean() => clean += 1,
        Ok(_) => damaged += 1,
        Err(_) => refused += 1,
    });
    let told = format!("{clean} clean, {damaged} damaged, {refused} refused");
    assert!(clean > 500 && damaged > 500 && refused > 500, "{told}");
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(7);
    let (mut opened, mut refused) = (0, 0);
    on_mutants(&mut random, |bytes, random| match use_image(bytes, random) {
        Ok(()) => opened += 1,
        Err(_) => refused += 1,
    });
    // Neither all harmless nor all fatal: else the damage shows nothing.
    assert!(opened > 1000 && refused > 500, "{opened} opened, {refused} refused");
}

/// Tries mutants of all golden images, each of which must be done with soon.
fn on_mutants(random: &mut Random, mut attempt: impl FnMut(Vec<u8>, &mut Random)) {
    for case in cases("qcow2").iter().filter(|case| case.files.iter().all(|f| f.size <= LARGEST)) {
        let unpacked = case.unpack();
        let original = std::fs::read(&unpacked.path).expect("it was unpacked");
        for _ in 0..MUTANTS.min(u32::try_from(original.len()).unwrap_or(MUTANTS)) {
            let mut bytes = original.clone();
            damage(&mut bytes, random);
            let start = Instant::now();
            attempt(bytes, random);
            assert!(start.elapsed() < PATIENCE, "{case}: took {:?}", start.elapsed());
        }
    }
}
