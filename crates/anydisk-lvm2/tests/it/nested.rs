//! Physical volumes inside images of another format.

use std::sync::Arc;

use crate::common::{Fixture, Outcome};
use anydisk_core::{
    CreateRequest, Disk, Format, GuestOffset, HostOffset, Limits, Location, Options, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::{MemoryStorage, is_zero};

/// The same bytes in a qcow2.
fn as_qcow2(raw: &dyn Storage) -> Arc<dyn Storage> {
    let size = raw.len().expect("a length");
    let store = Arc::new(MemoryStorage::default());
    let (place, options) = (Location::Other("memory".into()), Options::of(&QCOW2));
    let limits = Limits::default();
    let image = QCOW2.create(CreateRequest::new(store, &place, size, &options, &limits));
    let disk = Disk::new(image.expect("a new image"));
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < size {
        let count = raw.read_at(HostOffset(at), &mut buffer).expect("it reads");
        if !is_zero(&buffer[..count]) {
            disk.write(GuestOffset(at), &buffer[..count]).expect("it writes");
        }
        at += count as u64;
    }
    Arc::new(disk)
}

fn judge(group: &str) {
    let Some(fixture) = Fixture::open(group) else { return };
    let disks: Vec<_> = fixture.disks().iter().map(|disk| as_qcow2(&**disk)).collect();
    for row in fixture.rows() {
        assert_eq!(fixture.read(&disks, row), Outcome::Same, "{}", row.volume);
    }
}

#[test]
fn stripes_over_three_qcow2_images_read_as_the_kernel_read_them() {
    judge("stripe");
}

#[test]
fn mirrors_over_qcow2_images_read_as_the_kernel_read_them() {
    judge("mirror");
}

#[test]
fn thin_volumes_in_a_qcow2_read_as_the_kernel_read_them() {
    judge("thin");
}
