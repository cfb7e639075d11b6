//! The snapshot table of an image whose other structures are sound: any bytes can be listed, each
//! snapshot opened and read, or there is an error; and whoever changes them leaves an image that
//! opens.
#![no_main]

use std::sync::Arc;

use anydisk_core::{
    CreateRequest, Disk, Format, GuestOffset, HostOffset, Image, Limits, Location, NewSnapshot,
    Options, SnapshotRef, Snapshots, Storage,
};
use anydisk_qcow2::{QCOW2, Qcow2Image, WritableImage};
use anydisk_storage::MemoryStorage;
use libfuzzer_sys::fuzz_target;

/// Where the table is put: behind all that a small image has.
const TABLE: u64 = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let Some((count, table)) = data.split_first() else { return };
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let mut options = Options::of(&QCOW2);
    options.set("cluster_size", "512").expect("an option");
    let (location, limits) = (Location::Other("fuzz".into()), Limits::default());
    let request = CreateRequest::new(Arc::clone(&store), &location, 32 << 10, &options, &limits);
    let disk = Disk::new(QCOW2.create(request).expect("an image can be made in memory"));
    disk.write(GuestOffset(700), &[7; 3000]).expect("written");
    disk.flush().expect("flushed");
    drop(disk);
    store.write_at(HostOffset(TABLE), table).expect("memory");
    let place = [&u32::from(*count).to_be_bytes()[..], &TABLE.to_be_bytes()].concat();
    store.write_at(HostOffset(60), &place).expect("memory");
    read(&store, &limits);
    if let Ok(image) = WritableImage::open(Arc::clone(&store), &limits) {
        change(&image);
        let _ = Disk::new(Arc::new(image) as Arc<dyn Image>).flush();
        Qcow2Image::open(store, &limits).expect("it opened before");
    }
});

fn read(store: &Arc<dyn Storage>, limits: &Limits) {
    let Ok(image) = Qcow2Image::open(Arc::clone(store), limits) else { return };
    let Ok(list) = Snapshots::list(&image) else { return };
    for info in list.into_iter().take(4) {
        let which = SnapshotRef::Id(info.id);
        let mut bytes = vec![0; 4096];
        if let Ok(view) = Snapshots::open(&image, &which) {
            let len = bytes.len().min(usize::try_from(view.size()).unwrap_or(0));
            let _ = Disk::new(view).read(GuestOffset(0), &mut bytes[..len]);
        }
        if let Ok(Some(state)) = image.vm_state(&which) {
            let len = bytes.len().min(usize::try_from(state.size()).unwrap_or(0));
            let _ = Disk::new(state).read(GuestOffset(0), &mut bytes[..len]);
        }
    }
}

fn change(image: &WritableImage) {
    let Ok(list) = Snapshots::list(image) else { return };
    let _ = image.create(&NewSnapshot { name: "new".into(), date: (1, 2) });
    for info in list.into_iter().take(2) {
        let which = SnapshotRef::Id(info.id);
        let _ = image.apply(&which);
        let _ = image.rename(&which, "other");
        let _ = Snapshots::delete(image, &which);
    }
}
