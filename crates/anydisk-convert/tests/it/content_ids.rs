//! Chains whose images know the content of the one below by a number.

use std::sync::Arc;

use anydisk_convert::{Settings, Unwatched, commit, empty};
use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, HostOffset, Layer, Limits, Location,
    OpenRequest, Options, Reference, Role, Storage,
};
use anydisk_storage::MemoryStorage;
use anydisk_testkit::MemoryFolder;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::drawers::Drawer;
use anydisk_vdi::VDI;
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

/// A split disk needs files to grow, and nobody makes them here.
#[test]
fn a_commit_whose_base_cannot_grow_leaves_the_link_as_it_was() {
    let (folder, limits) = (MemoryFolder::default(), Limits::default());
    let location = Location::Path("base.vmdk".into());
    let mut options = Options::of(&VMDK);
    options.set("subformat", "twoGbMaxExtentSparse").expect("an option");
    options.set("split_size", "256k").expect("an option");
    let store = folder.make_file("base.vmdk").expect("a file");
    let request = CreateRequest::new(Arc::clone(&store), &location, 512 << 10, &options, &limits);
    drop(VMDK.create(CreateRequest { companions: &folder, ..request }).expect("an image"));
    let open_base = || {
        let request = OpenRequest::new(Arc::clone(&store), &location, &limits);
        let request = OpenRequest { access: Access::ReadWrite, resolver: &folder, ..request };
        Disk::new(VMDK.open(request).expect("it opens").image)
    };
    let mut reference = Reference::new(Role::Backing, "base.vmdk");
    reference.content_id = open_base().top().info().content_id;
    let top = create(Some(&reference));
    let above = open(&top);
    let committed = commit(&[above], &open_base(), &Settings::default(), &Unwatched);
    committed.expect_err("it cannot grow");
    let named = open(&top).backing.expect("a parent").content_id;
    assert!(named.is_some());
    assert_eq!(named, open_base().top().info().content_id);
}

/// Bytes that each of the files may have.
const ROOM: u64 = 8 << 20;

/// A base and an overlay of a format, each with some data, in two files of one store.
fn two_files(format: &'static dyn Format) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let options = Options::of(format);
    let mut reference = None;
    for number in [0, 1] {
        let file = Drawer::open(&store, ROOM, number);
        let request = CreateRequest::new(file, &location, SIZE, &options, &limits);
        let request = CreateRequest { backing: reference.as_ref(), ..request };
        let disk = Disk::new(format.create(request).expect("an image can be made"));
        let data = vec![u8::try_from(number).expect("small") + 7; 100_000];
        disk.write(GuestOffset(number * 70_000), &data).expect("written");
        disk.flush().expect("flushed");
        let info = disk.top().info();
        let mut named = Reference::new(Role::Backing, if info.id.is_some() { "" } else { "base" });
        named.format = Some(format.name().into());
        (named.id, named.content_id) = (info.id, info.content_id);
        reference = Some(named);
    }
    store
}

fn open_file(format: &dyn Format, store: &Arc<dyn Storage>, number: u64) -> Layer {
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = OpenRequest::new(Drawer::open(store, ROOM, number), &location, &limits);
    let request = OpenRequest { access: Access::ReadWrite, ..request };
    let opened = format.open(request).expect("it opens");
    let mut layer = Layer::new(opened.image, "image");
    layer.backing = opened.backing;
    layer
}

fn whole(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

/// A base with a new number under an overlay that still names the old one would be refused.
#[test]
fn a_commit_that_power_cut_short_leaves_a_chain_that_opens_and_can_be_committed_again() {
    let formats: [&'static dyn Format; 2] = [&VMDK, &VDI];
    for format in formats {
        let made = two_files(format);
        let mut bytes = vec![0; usize::try_from(2 * ROOM).expect("small")];
        made.read_at(HostOffset::ZERO, &mut bytes).expect("a read");
        let crash = CrashStorage::over(bytes).with_media(ROOM);
        let store: Arc<dyn Storage> = Arc::new(crash.clone());
        let open = |store: &Arc<dyn Storage>, number| open_file(format, store, number);
        let chain = |store: &Arc<dyn Storage>| {
            Disk::from_layers(vec![open(store, 1), open(store, 0)], &Limits::default())
        };
        let wanted = whole(&chain(&store));
        let redo = |store: &Arc<dyn Storage>| {
            let base = Disk::from_layers(vec![open(store, 0)], &Limits::default());
            commit(&[open(store, 1)], &base, &Settings::default(), &Unwatched).expect("committed");
            assert!(whole(&base) == wanted, "{}", format.name());
        };
        redo(&store);
        let mut cut_short = 0;
        for (count, state) in crash.torn_states(40, 1).enumerate() {
            let store: Arc<dyn Storage> = state.storage();
            let (top, base) = (open(&store, 1), open(&store, 0));
            let expected = top.backing.as_ref().expect("a parent").content_id;
            let is_known = expected.is_none_or(|id| base.image.info().content_id == Some(id));
            assert!(is_known, "{}: {state}", format.name());
            cut_short += usize::from(expected.is_none());
            assert!(whole(&chain(&store)) == wanted, "{}: {state}", format.name());
            if count % 9 == 0 {
                redo(&store);
                let (top, base) = (open(&store, 1), open(&store, 0));
                let id = top.backing.expect("a parent").content_id;
                assert_eq!(id, base.image.info().content_id, "{}", format.name());
            }
        }
        assert!(cut_short > 0, "nothing was cut short");
    }
}
