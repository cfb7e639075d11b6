//! Images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anydisk_core::{
    Access, CheckRequest, CreateRequest, Disk, Format, GuestOffset, GuestRange, Limits, Location,
    OpenRequest, Options, Result,
};
use anydisk_cow::COW;
use anydisk_cow::layout::{Uml3, Uml3Long};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use zerocopy::{FromZeros, IntoBytes};

const MUTANTS: u32 = 400;
const PATIENCE: Duration = Duration::from_secs(1);

/// A new image with some sectors written, and two of user-mode Linux.
fn originals() -> Vec<Vec<u8>> {
    let store = Arc::new(MemoryStorage::default());
    let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
    let limits = Limits::default();
    let request = CreateRequest::new(store.clone(), &location, 300 << 10, &options, &limits);
    let disk = Disk::new(COW.create(request).expect("an image"));
    disk.write(GuestOffset(20_000), &[7; 30_000]).expect("a write");
    disk.flush().expect("a flush");
    let mut short = Uml3::new_zeroed();
    (short.magic, short.version) = (0x4F4F_4F4D.into(), 3.into());
    (short.size, short.sectorsize, short.alignment) = (65536.into(), 512.into(), 4096.into());
    short.backing_file[0] = b'x';
    let mut long = Uml3Long::new_zeroed();
    (long.magic, long.version) = (0x4F4F_4F4D.into(), 3.into());
    (long.size, long.sectorsize, long.alignment) = (65536.into(), 512.into(), 4096.into());
    long.backing_file[0] = b'x';
    let filled = |header: &[u8]| {
        let mut file = header.to_vec();
        file.resize(80_000, 0xA5);
        file
    };
    vec![store.to_vec(), filled(short.as_bytes()), filled(long.as_bytes())]
}

/// Changes up to three places, most of them in the header.
fn damage(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(3) {
        let area = [(0, 44), (1032, 30), (0, bytes.len())][random.index(3)];
        let at = area.0 + random.index(area.1);
        match random.below(3) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = 0xFF,
            _ => bytes[at] = 0,
        }
    }
}

/// Opens, maps and reads the beginning of the disk and some places on it; writes one.
fn use_image(bytes: Vec<u8>, access: Access, random: &mut Random) -> Result<()> {
    let (location, limits) = (Location::Other("mutant".to_owned()), Limits::strict());
    let store = Arc::new(MemoryStorage::new(bytes));
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    let _ = COW.check(&CheckRequest::new(request.clone()), &mut |_| {});
    let disk = Disk::new(COW.open(request)?.image);
    let mut buffer = vec![0; 70_000];
    let mut at = 0;
    for step in 0..60 {
        if at >= disk.size() {
            break;
        }
        let rest = GuestRange::between(GuestOffset(at), GuestOffset(disk.size()));
        let found = disk.map(rest)?;
        assert!(found.extent.len > 0 && found.extent.len <= rest.len());
        let skip = found.extent.len;
        let len = usize::try_from(rest.len().min(70_000)).expect("small");
        disk.read(rest.start(), &mut buffer[..len])?;
        // Far away in memory, a write would need all the memory before it.
        if access == Access::ReadWrite && step % 8 == 0 && at < 1 << 22 {
            disk.write(rest.start(), &buffer[..len.min(1000)])?;
        }
        at = if step < 30 { at.saturating_add(skip) } else { random.below(disk.size()) };
    }
    disk.flush()
}

#[test]
fn no_damage_makes_a_reader_or_writer_panic_or_wait() {
    let mut random = Random::new(13);
    let (mut good, mut refused) = (0, 0);
    for original in originals() {
        for number in 0..MUTANTS {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut random);
            let access = if number % 2 == 0 { Access::Read } else { Access::ReadWrite };
            let start = Instant::now();
            match use_image(bytes, access, &mut random) {
                Ok(()) => good += 1,
                Err(_) => refused += 1,
            }
            assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
        }
    }
    // Neither all harmless nor all fatal: else the damage shows nothing.
    assert!(good > 200 && refused > 200, "{good} good, {refused} refused");
}
