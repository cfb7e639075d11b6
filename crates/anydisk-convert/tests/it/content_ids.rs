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
use anydisk_vhdx::VHDX;
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

/// A base of an extent that can only be read and one that can be written; a grain of a delta covers the end
/// of the one and the start of the other.
#[test]
fn a_commit_beside_an_extent_that_is_read_only_writes_what_can_be_and_refuses_other_data_before() {
    let text = b"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                 createType=\"custom\"\nRDONLY 1000 FLAT \"kept\" 0\nRW 1048 FLAT \"free\" 0\n";
    let end_of_first = 1000 * 512;
    for (at, is_refused) in [(end_of_first, false), (end_of_first - 512, true)] {
        let (folder, limits) = (MemoryFolder::default(), Limits::default());
        let location = Location::Path("base.vmdk".into());
        let file = |name: &str, bytes: &[u8]| {
            let store = folder.make_file(name).expect("a file");
            store.write_at(HostOffset::ZERO, bytes).expect("memory");
            store
        };
        let store = file("base.vmdk", text);
        let kept = file("kept", &vec![1; 1000 * 512]);
        let free = file("free", &vec![2; 1048 * 512]);
        let base = || {
            let request = OpenRequest::new(Arc::clone(&store), &location, &limits);
            let request = OpenRequest { access: Access::ReadWrite, resolver: &folder, ..request };
            Layer::new(VMDK.open(request).expect("it opens").image, "base")
        };
        let mut reference = Reference::new(Role::Backing, "base.vmdk");
        reference.content_id = base().image.info().content_id;
        let top = create(Some(&reference));
        let chain = Disk::from_layers(vec![open(&top), base()], &limits);
        chain.write(GuestOffset(at), &[3; 1024]).expect("written");
        chain.flush().expect("flushed");
        let wanted = whole(&chain);
        drop(chain);
        let all = || [&store, &kept, &free, &top].map(bytes_in);
        let before = all();
        let below = Disk::from_layers(vec![base()], &limits);
        let committed = commit(&[open(&top)], &below, &Settings::default(), &Unwatched);
        if is_refused {
            let why = committed.expect_err("it would write there").to_string();
            assert!(why.contains("an extent is marked read-only"), "{why}");
            assert!(all() == before, "something was written");
        } else {
            committed.expect("committed");
            assert!(whole(&Disk::from_layers(vec![base()], &limits)) == wanted);
            assert!(bytes_in(&kept) == vec![1; 1000 * 512]);
            let named = open(&top).backing.expect("a parent").content_id;
            assert_eq!(named, base().image.info().content_id);
        }
    }
}

fn bytes_in(store: &Arc<dyn Storage>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("memory")).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

/// Bytes that each of the files may have.
const ROOM: u64 = 8 << 20;

/// A base and overlays of a format on each other, each with some data, in files of one store.
fn files(format: &'static dyn Format, count: u64) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let mut options = Options::of(format);
    if format.name() == "vhdx" {
        options.set("block_size", "1M").expect("an option");
    }
    let mut reference = None;
    for number in 0..count {
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

fn bytes_of(store: &Arc<dyn Storage>, count: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(count * ROOM).expect("small")];
    store.read_at(HostOffset::ZERO, &mut bytes).expect("a read");
    bytes
}

/// Of so many images of a format on each other, commits all into the lowest one; power fails at any moment.
fn commit_into_the_lowest(format: &'static dyn Format, count: u64) {
    let crash = CrashStorage::over(bytes_of(&files(format, count), count)).with_media(ROOM);
    let store: Arc<dyn Storage> = Arc::new(crash.clone());
    let open = |store: &Arc<dyn Storage>| -> Vec<Layer> {
        (0..count).rev().map(|number| open_file(format, store, number)).collect()
    };
    let chain = |store: &Arc<dyn Storage>| Disk::from_layers(open(store), &Limits::default());
    let wanted = whole(&chain(&store));
    let redo = |store: &Arc<dyn Storage>| {
        let mut above = open(store);
        let base = Disk::from_layers(above.drain(above.len() - 1..).collect(), &Limits::default());
        commit(&above, &base, &Settings::default(), &Unwatched).expect("committed");
        assert!(whole(&base) == wanted, "{}", format.name());
    };
    redo(&store);
    let mut cut_short = 0;
    for (number, state) in crash.torn_states(40, 1).enumerate() {
        let store: Arc<dyn Storage> = state.storage();
        let layers = open(&store);
        for (above, below) in layers.iter().zip(layers.iter().skip(1)) {
            let expected = above.backing.as_ref().expect("a parent").content_id;
            let is_known = expected.is_none_or(|id| below.image.info().content_id == Some(id));
            assert!(is_known, "{}: {state}", format.name());
            cut_short += usize::from(expected.is_none());
        }
        assert!(whole(&chain(&store)) == wanted, "{}: {state}", format.name());
        if number % 9 == 0 {
            redo(&store);
            let layers = open(&store);
            for (above, below) in layers.iter().zip(layers.iter().skip(1)) {
                let id = above.backing.as_ref().expect("a parent").content_id;
                assert_eq!(id, below.image.info().content_id, "{}", format.name());
            }
        }
    }
    assert!(cut_short > 0, "nothing was cut short");
}

const FORMATS: [&dyn Format; 3] = [&VMDK, &VDI, &VHDX];

/// A base with a new number under an overlay that still names the old one would be refused.
#[test]
fn a_commit_that_power_cut_short_leaves_a_chain_that_opens_and_can_be_committed_again() {
    FORMATS.into_iter().for_each(|format| commit_into_the_lowest(format, 2));
}

/// The image between is not valid any more, but for what the whole chain shows; all of them open.
#[test]
fn a_commit_past_an_image_between_renews_the_link_of_that_image_whenever_power_fails() {
    FORMATS.into_iter().for_each(|format| commit_into_the_lowest(format, 3));
}

/// Nobody would find the base under it afterwards.
#[test]
fn a_commit_past_an_image_that_cannot_be_told_is_refused_before_anything_is_written() {
    for format in FORMATS {
        let store: Arc<dyn Storage> = Arc::new(CrashStorage::over(bytes_of(&files(format, 3), 3)));
        let between = {
            let (location, limits) = (Location::Other("image".into()), Limits::default());
            let request = OpenRequest::new(Drawer::open(&store, ROOM, 1), &location, &limits);
            let opened = format.open(request).expect("it opens");
            let mut layer = Layer::new(opened.image, "image");
            layer.backing = opened.backing;
            layer
        };
        let top = open_file(format, &store, 2);
        let base = Disk::from_layers(vec![open_file(format, &store, 0)], &Limits::default());
        let before = bytes_of(&store, 3);
        let refused = commit(&[top, between], &base, &Settings::default(), &Unwatched);
        let why = refused.expect_err("it is not open for writing").to_string();
        assert!(why.contains("it was opened for reading"), "{why}");
        assert!(bytes_of(&store, 3) == before, "{}", format.name());
    }
}
