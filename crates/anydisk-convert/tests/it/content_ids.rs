//! Chains whose images know the content of the one below by a number.

use std::sync::Arc;

use anydisk_convert::{Settings, Unwatched, commit, empty};
use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, Layer, Limits, Location, OpenRequest,
    Options, Reference, Role, Storage,
};
use anydisk_storage::MemoryStorage;
use anydisk_vmdk::VMDK;

const SIZE: u64 = 1 << 20;

fn create(backing: Option<&Reference>) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let options = Options::of(&VMDK);
    let request = CreateRequest::new(Arc::clone(&store), &location, SIZE, &options, &limits);
    let image = VMDK.create(CreateRequest { backing, ..request }).expect("an image can be made");
    image.writer().expect("it is new").flush().expect("flushed");
    store
}

fn open(store: &Arc<dyn Storage>) -> Layer {
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = OpenRequest::new(Arc::clone(store), &location, &limits);
    let request = OpenRequest { access: Access::ReadWrite, ..request };
    let opened = VMDK.open(request).expect("it opens");
    let mut layer = Layer::new(opened.image, "image");
    layer.backing = opened.backing;
    layer
}

/// A parent that was written has another content ID; a delta made for the old one is refused.
#[test]
fn after_a_commit_the_delta_knows_the_new_content_of_its_parent_and_can_be_emptied() {
    let base = create(None);
    let mut reference = Reference::new(Role::Backing, "base.vmdk");
    reference.format = Some("vmdk".into());
    reference.content_id = open(&base).image.info().content_id;
    let before = reference.content_id;
    let top = create(Some(&reference));
    let chain = || Disk::from_layers(vec![open(&top), open(&base)], &Limits::default());
    chain().write(GuestOffset(70_000), &[7; 300_000]).expect("written");
    let disk = chain();
    disk.write(GuestOffset(500_000), &[9; 1000]).expect("written");
    disk.flush().expect("flushed");
    drop(disk);
    let below = Disk::from_layers(vec![open(&base)], &Limits::default());
    commit(&[open(&top)], &below, &Settings::default(), &Unwatched).expect("committed");
    let now = open(&base).image.info().content_id;
    assert_ne!(now, before);
    assert_eq!(open(&top).backing.expect("a parent").content_id, now);
    empty(&chain()).expect("emptied");
    assert_eq!(open(&top).backing.expect("a parent").content_id, now);
    for (at, expected) in [(500_000, 9), (500_999, 9), (501_000, 0)] {
        let mut byte = [1];
        chain().read(GuestOffset(at), &mut byte).expect("a read");
        assert_eq!(byte, [expected]);
    }
    let (top, whole) = (open(&top), anydisk_core::GuestRange::whole(SIZE));
    let extent = top.image.map(whole).expect("a map");
    assert!(matches!(extent.source, anydisk_core::Source::Absent { .. }));
}
