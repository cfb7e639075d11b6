//! Another name for the image below, and forgetting what is here.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Image, Limits, Location,
    OpenRequest, Options, Reference, Role, Source, Storage,
};
use anydisk_cow::{COW, CowImage};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::double::CrashStorage;

fn named(len: usize, letter: char) -> Reference {
    Reference::new(Role::Backing, letter.to_string().repeat(len))
}

/// An image over one called `a`, with some sectors.
fn image() -> Vec<u8> {
    let store = Arc::new(MemoryStorage::default());
    let (location, options) = (Location::Other("image".to_owned()), Options::of(&COW));
    let limits = Limits::default();
    let request = CreateRequest::new(store.clone(), &location, 300 << 10, &options, &limits);
    let backing = named(1, 'a');
    let created = COW.create(CreateRequest { backing: Some(&backing), ..request });
    let disk = Disk::new(created.expect("an image"));
    disk.write(GuestOffset(20_000), &[7; 30_000]).expect("a write");
    disk.flush().expect("a flush");
    store.to_vec()
}

fn open(store: Arc<dyn Storage>, access: Access) -> Arc<dyn Image> {
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest { access, ..OpenRequest::new(store, &location, &limits) };
    COW.open(request).expect("it opens").image
}

/// Where a new image ends.
fn end_of_bitmap(store: Arc<dyn Storage>) -> u64 {
    let image = CowImage::open(store, &Limits::default()).expect("it opens");
    image.header().bitmap.get() + image.header().bitmap_len
}

fn name_of(store: Arc<dyn Storage>) -> Option<Vec<u8>> {
    let image = CowImage::open(store, &Limits::default()).expect("it opens");
    image.backing().map(|reference| reference.name)
}

#[test]
fn power_may_fail_while_the_name_changes_and_one_of_the_two_is_there() {
    let steps = [named(503, 'b'), named(1023, 'c'), named(3, 'd'), named(504, 'e'), named(9, 'f')];
    let crash = CrashStorage::over(image());
    let top = open(Arc::new(crash.clone()), Access::ReadWrite);
    let link = top.backing_link().expect("it can be changed");
    let mut names = vec![Some(b"a".to_vec())];
    for step in &steps {
        link.set_backing(Some(step)).expect("another name");
        crash.mark();
        names.push(Some(step.name.clone()));
    }
    link.set_backing(None).expect("no name");
    names.push(None);
    for state in crash.torn_states(100, 1) {
        let found = name_of(state.storage());
        let (before, after) = (&names[state.marks()], &names[state.marks() + 1]);
        assert!(found == *before || found == *after, "{found:?}\n{state}");
    }
}

#[test]
fn a_name_that_the_header_cannot_hold_or_could_be_torn_is_refused() {
    let store = Arc::new(MemoryStorage::new(image()));
    let top = open(store.clone(), Access::ReadWrite);
    let link = top.backing_link().expect("it can be changed");
    link.set_backing(Some(&named(600, 'b'))).expect("it has room");
    let nul = Reference::new(Role::Backing, *b"a\0b");
    for wrong in [named(0, 'x'), named(1024, 'x'), named(504, 'x'), nul] {
        let error = link.set_backing(Some(&wrong)).expect_err("refused").to_string();
        assert!(error.contains("1 to 1023 bytes"), "{error}");
    }
    assert_eq!(name_of(store), Some(vec![b'b'; 600]));
}

#[test]
fn an_emptied_image_shows_the_image_below_everywhere() {
    let store = Arc::new(MemoryStorage::new(image()));
    let top = open(store.clone(), Access::ReadWrite);
    top.backing_link().expect("it can be emptied").make_empty().expect("emptied");
    assert_eq!(store.len().expect("memory"), end_of_bitmap(store.clone()));
    for image in [top, open(store.clone(), Access::Read)] {
        let whole = GuestRange::whole(image.size());
        let extent = image.map(whole).expect("a map");
        assert!(matches!(extent.source, Source::Absent { .. }) && extent.len == image.size());
    }
    // What it writes from now on is here again, with what lies below around it.
    let disk = Disk::new(open(store.clone(), Access::ReadWrite));
    disk.write(GuestOffset(20_001), &[9]).expect("a write");
    disk.flush().expect("a flush");
    let mut bytes = [1; 512];
    disk.read(GuestOffset(20_000 / 512 * 512), &mut bytes).expect("a read");
    assert_eq!(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 9);
}
