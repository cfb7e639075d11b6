//! Golden headers with damage at random: whatever comes out, it comes without a panic and soon.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{Access, Disk, Format, GuestOffset, Limits, OpenRequest, Result};
use anydisk_luks::LUKS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::golden::cases;

const MUTANTS: u32 = 40;
const PATIENCE: Duration = Duration::from_secs(1);

/// Numbers that overflow, or point nowhere.
const NASTY: [u32; 6] = [0, 1, u32::MAX, 1 << 31, 4000, 0x00AC_71F3];

/// Changes up to three places of the header, and leaves the costs of passphrases alone: those are
/// bounded by limits, and would only make the test slow.
fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let area = [112, 592, 8192, bytes.len()][random.index(4)].min(bytes.len());
        let at = random.index(area.max(1));
        if random.chance(1, 2) {
            bytes[at] ^= 1 << random.below(8);
        } else if let Some(word) = bytes[at & !3..].first_chunk_mut() {
            *word = NASTY[random.index(NASTY.len())].to_be_bytes();
        }
    }
}

fn use_image(bytes: Vec<u8>, access: Access, passphrase: &str) -> Result<()> {
    let mut limits = Limits::strict();
    (limits.kdf_iterations, limits.kdf_memory) = (20_000, 1 << 20);
    let (location, secrets) = (common::location(), common::secret(passphrase));
    let request = OpenRequest::new(Arc::new(MemoryStorage::new(bytes)), &location, &limits);
    let opened = LUKS.open(OpenRequest { access, secrets: &secrets, ..request })?;
    let _ = opened.image.info();
    let disk = Disk::new(opened.image);
    let len = usize::try_from(disk.size().min(9000)).expect("small");
    let mut buffer = vec![0; len];
    let _ = disk.read(GuestOffset(disk.size() - len as u64), &mut buffer);
    if access == Access::ReadWrite {
        let _ = disk.write(GuestOffset(0), &buffer[..len.min(1000)]);
        let _ = disk.flush();
    }
    Ok(())
}

#[test]
fn no_damage_to_a_golden_header_makes_a_reader_or_writer_panic_or_wait() {
    let mut random = Random::new(12);
    let (mut opened, mut refused) = (0, 0);
    for case in cases("luks") {
        let Some(passphrase) = &case.secret else { continue };
        let original = std::fs::read(&case.unpack().path).expect("it was unpacked");
        for number in 0..MUTANTS {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut random);
            let access = if number % 2 == 0 { Access::Read } else { Access::ReadWrite };
            let start = Instant::now();
            match use_image(bytes, access, passphrase) {
                Ok(()) => opened += 1,
                Err(_) => refused += 1,
            }
            assert!(start.elapsed() < PATIENCE, "{}: took {:?}", case.name, start.elapsed());
        }
    }
    // Neither all harmless nor all fatal: else the damage shows nothing.
    assert!(opened > 100 && refused > 100, "{opened} opened, {refused} refused");
}
