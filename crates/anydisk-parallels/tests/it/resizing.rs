//! Growing and shrinking, with the block table where it has room and where it has not.

use anydisk_core::{Access, Disk, GuestOffset, Preallocation, Storage};
use anydisk_parallels::PARALLELS;
use anydisk_testkit::oracle::{Checked, Qemu};
use anydisk_testkit::{ByteModel, ImageFolder, contents, play};

use crate::common::{ByHand, damage, number_at, open};

fn write(disk: &Disk, model: &mut ByteModel, at: u64, byte: u8, len: usize) {
    disk.write(GuestOffset(at), &vec![byte; len]).expect("a write");
    model.write(at, &vec![byte; len]);
}

#[test]
fn a_table_that_outgrows_its_room_takes_that_of_the_first_clusters() {
    for by_hand in [ByHand::OLD, ByHand::NEW] {
        let (store, cluster) = (by_hand.store(&[], 0), u64::from(by_hand.tracks) * 512);
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        let mut model = ByteModel::new(disk.size());
        for number in 0..14_u8 {
            write(&disk, &mut model, u64::from(number) * 3 * cluster, number + 1, 700);
        }
        disk.flush().expect("a flush");
        for size in [300 * cluster, 2000 * cluster + 512, 90 * cluster, 5000 * cluster] {
            disk.resize(size, Preallocation::Off).expect("a resize");
            model.resize(size);
            write(&disk, &mut model, size - 5, 7, 5);
            disk.flush().expect("a flush");
            damage(&*store).expect("undamaged");
            let again = open(&store, Access::Read).expect("it opens");
            assert!(contents(&again) == model.contents(), "{size}");
            assert!(contents(&disk) == model.contents(), "{size}");
        }
    }
}

#[test]
fn what_a_shrunk_disk_had_is_given_back() {
    let store = ByHand::NEW.store(&[], 0);
    let disk = open(&store, Access::ReadWrite).expect("it opens");
    disk.write(GuestOffset(0), &[1; 10 * 1024]).expect("a write");
    disk.resize(1536, Preallocation::Off).expect("a resize");
    assert_eq!(store.len().expect("a length"), 3 * 1024);
    assert_eq!(number_at(&*store, 36), 3);
    disk.resize(10 * 1024, Preallocation::Off).expect("a resize");
    assert!(contents(&disk)[1536..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_grown_disk_has_space_where_that_is_asked_for() {
    for how in [Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full] {
        let store = ByHand::NEW.store(&[], 0);
        let disk = open(&store, Access::ReadWrite).expect("it opens");
        disk.resize(80 * 1024, how).expect("it can grow");
        let named = (0..80).filter(|number| number_at(&*store, 64 + 4 * number) != 0).count();
        assert_eq!(named, 16, "{how:?}");
        assert!(contents(&disk).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn sizes_that_the_kind_cannot_tell_are_refused() {
    let disk = open(&ByHand::OLD.store(&[], 0), Access::ReadWrite).expect("it opens");
    let error = disk.resize(1 << 41, Preallocation::Off).expect_err("it is refused").to_string();
    assert!(error.contains("number of clusters") || error.contains("sectors of a disk"), "{error}");
    assert_eq!(disk.size(), 64 << 10);
}

#[test]
fn qemu_reads_what_was_grown_and_shrunk() {
    let Some(qemu) = Qemu::find() else { return };
    let folder = ImageFolder::new(&PARALLELS);
    let path = folder.path("disk.hds");
    qemu.create("parallels", &["cluster_size=4k"], &path, "3M");
    qemu.io(&path, "parallels", &["write -P 7 1M 1M", "write -P 8 0 64k"]);
    let mut model = ByteModel::of(&contents(&folder.open("disk.hds", Access::Read)), 3 << 20);
    for (seed, size) in [(9 << 20) + 512, 30 << 20, 5 << 20].into_iter().enumerate() {
        let disk = folder.open("disk.hds", Access::ReadWrite);
        disk.resize(size, Preallocation::Off).expect("a resize");
        model.resize(size);
        play(&disk, &mut model, 4096, seed as u64, 30);
        disk.flush().expect("a flush");
        drop(disk);
        let raw = folder.path("model.raw");
        std::fs::write(&raw, model.contents()).expect("a file");
        assert_eq!(qemu.check(&path, "parallels"), Ok(Checked { leaks: 0, corruptions: 0 }));
        qemu.assert_same((&path, "parallels"), (&raw, "raw"));
    }
}
