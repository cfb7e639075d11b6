//! Golden images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, Disk, GuestOffset, GuestRange, Limits, Located, Location, NoReferences, Opener,
    Registry, Result,
};
use anydisk_qed::QED;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::golden::cases;

const MUTANTS: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(1);

/// Numbers that overflow, point nowhere, or set one flag.
const NASTY: [u64; 7] = [0, 1, u64::MAX, 1 << 63, 0x1000, 1 << 56, (1 << 63) - 512];

/// Changes up to three places, most of them in the header and the tables.
fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let area = [64, 64, 0x4000, bytes.len()][random.index(4)].min(bytes.len());
        let at = random.index(area.max(1));
        if random.chance(1, 2) {
            bytes[at] ^= 1 << random.below(8);
        } else if let Some(word) = bytes[at & !7..].first_chunk_mut() {
            *word = NASTY[random.index(NASTY.len())].to_le_bytes();
        }
    }
}

/// Opens, maps and reads the beginning of the disk and some places on it.
fn use_image(bytes: Vec<u8>, random: &mut Random) -> Result<()> {
    let registry = Registry::new(&[&QED]);
    let opener = Opener::new(&registry, &NoReferences).with_limits(Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes));
    let file = Located { store, location: Location::Other("mutant".to_owned()) };
    let disk = Disk::new(opener.open_one(file, Some("qed"), Access::Read)?.image);
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
            Err(_) => 4096,
        };
        let len = usize::try_from(rest.len().min(70_000)).expect("small");
        // Broken entries are expected here; a panic is not.
        let _ = disk.read(rest.start(), &mut buffer[..len]);
        at = if step < 30 { at.saturating_add(skip) } else { random.below(disk.size()) };
    }
    Ok(())
}

#[test]
fn no_damage_to_a_golden_image_makes_a_reader_panic_or_wait() {
    let mut random = Random::new(11);
    let (mut opened, mut refused) = (0, 0);
    for case in cases("qed") {
        let original = std::fs::read(&case.unpack().path).expect("it was unpacked");
        for _ in 0..MUTANTS {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut random);
            let start = Instant::now();
            match use_image(bytes, &mut random) {
                Ok(()) => opened += 1,
                Err(_) => refused += 1,
            }
            assert!(start.elapsed() < PATIENCE, "{case}: took {:?}", start.elapsed());
        }
    }
    // Neither all harmless nor all fatal: else the damage shows nothing.
    assert!(opened > 200 && refused > 200, "{opened} opened, {refused} refused");
}
