//! A volume group in a partition.

use std::sync::Arc;

use anydisk_core::{Limits, Members};
use anydisk_lvm2::VolumeGroups;
use anydisk_partition::Partitions;
use anydisk_storage::{FileStorage, HostOffset, OpenOptions, StorageExt};
use anydisk_testkit::{Unpacked, corpus, digest, unpack_xz};

#[test]
fn a_physical_volume_in_a_partition_reads_as_the_kernel_read_it() {
    let Some(corpus) = corpus::bigger() else { return };
    let folder = Unpacked::empty("disk.raw").unwrap();
    let packed = corpus.join("lvm/partition/partition-disk.raw.xz");
    unpack_xz(&packed, &folder.path).unwrap();
    let disk = FileStorage::open(&folder.path, &OpenOptions::new()).unwrap();
    let limits = Limits::default();
    let table = Partitions::open(Arc::new(disk), &limits).unwrap();
    let second = &table.partitions()[1];
    assert_eq!((second.number, second.start / 512, second.len / 512), (2, 34883, 161_000));
    let partition = Members::open(&table, "2").unwrap();
    let groups = VolumeGroups::open(&[partition], &limits).unwrap();
    for (name, hash) in [
        ("vgpart/root", "99a6841dae15854460ac4804d0c487d4effb117b935b6c8ab98cfdd109705c0d"),
        ("vgpart/swap", "07ac92a8c8e4be5010e8aa3814bcbe829871bddad6d941cfb66d443fb49ac914"),
    ] {
        let volume = Members::open(&groups, name).unwrap();
        let mut bytes = vec![0; usize::try_from(volume.len().unwrap()).unwrap()];
        volume.read_exact_at(HostOffset::ZERO, &mut bytes).unwrap();
        assert_eq!(digest::of_bytes(&bytes), hash, "{name}");
    }
}
