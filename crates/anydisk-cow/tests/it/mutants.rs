//! Images with damage at random: whatever comes out, it comes without a panic and soon.

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Disk, Format, GuestOffset, Limits, Location, OpenRequest, Options,
};
use anydisk_cow::COW;
use anydisk_cow::layout::{Uml3, Uml3Long};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::Random;
use anydisk_testkit::mutant::{Damage, Nasty, Tally, wander};
use zerocopy::{FromZeros, IntoBytes};

/// Most changes are in the header, some in the part behind the name.
const DAMAGE: Damage = Damage {
    places: 3,
    areas: &[44, 1062],
    nasty: Nasty::Big32(&[0, 1, u32::MAX, 1 << 31, 513, 4095]),
    count: 400,
    largest: u64::MAX,
};

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

#[test]
fn no_damage_makes_a_reader_or_writer_panic_or_wait() {
    let mut random = Random::new(13);
    let (location, limits) = (Location::Other("mutant".to_owned()), Limits::strict());
    let mut try_all = |original: Vec<u8>| -> Tally {
        DAMAGE.on(&original, "cow", &mut random, |bytes, access, random| {
            let store = Arc::new(MemoryStorage::new(bytes));
            let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
            wander(&Disk::new(COW.open(request)?.image), random);
            Ok(())
        })
    };
    originals().into_iter().for_each(|original| try_all(original).assert_mixed(30));
}
