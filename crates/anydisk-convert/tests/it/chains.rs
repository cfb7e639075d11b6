//! Committing and rebasing: a chain shows the same before, in between and afterwards.

use std::ops::ControlFlow;
use std::sync::Arc;

use anydisk_convert::{Error, NewImage, Settings, Unwatched, commit, empty, rebase};
use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, HostOffset, Image, Layer, Limits,
    Location, OpenRequest, Options, Reference, Role, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_raw::RawImage;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::contents;
use anydisk_testkit::double::CrashStorage;
use anydisk_testkit::{ByteModel, Random};

const KIB: u64 = 1 << 10;

fn bytes_of(store: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_at(HostOffset(0), &mut bytes).expect("read");
    bytes
}

fn named(name: &str) -> Reference {
    let mut reference = Reference::new(Role::Backing, name);
    reference.format = Some("qcow2".into());
    reference
}

fn open(store: &Arc<dyn Storage>, access: Access) -> (Arc<dyn Image>, Option<Reference>) {
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let mut request = OpenRequest::new(Arc::clone(store), &location, &limits);
    request.access = access;
    let opened = QCOW2.open(request).expect("it opens");
    (opened.image, opened.backing)
}

/// An image of `size` bytes with random writes and zeroes over `below`, and the bytes of the whole.
fn image(name: &str, size: u64, below: Option<&Built>, seed: u64) -> Built {
    image_with(&[("cluster_size", "4k")], name, size, below, seed)
}

/// The same, with these options.
fn image_with(
    given: &[(&str, &str)],
    name: &str,
    size: u64,
    below: Option<&Built>,
    seed: u64,
) -> Built {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let mut options = Options::of(&QCOW2);
    given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other(name.into()), Limits::default());
    let reference = below.map(|below| named(&below.name));
    let mut request = CreateRequest::new(Arc::clone(&store), &location, size, &options, &limits);
    request.backing = reference.as_ref();
    let top = QCOW2.create(request).expect("an image can be made");
    let mut layers = vec![Layer::new(top, name)];
    layers.extend(below.into_iter().flat_map(|below| below.disk().layers().to_vec()));
    let disk = Disk::from_layers(layers, &Limits::default());
    let mut model = ByteModel::of(&below.map_or(Vec::new(), |below| below.model.contents()), size);
    let mut random = Random::new(seed);
    for _ in 0..6 {
        let at = random.below(size);
        let mut data =
            vec![0; usize::try_from(random.below(9 * KIB).min(size - at)).expect("small")];
        if random.chance(2, 3) {
            random.fill(&mut data);
            disk.write(GuestOffset(at), &data).expect("written");
        } else {
            let range = GuestRange::new(GuestOffset(at), data.len() as u64).expect("small");
            disk.zero(range, true).expect("zeroed");
        }
        model.write(at, &data);
    }
    disk.flush().expect("flushed");
    Built { name: name.into(), store, below: below.cloned().map(Box::new), model }
}

#[derive(Clone)]
struct Built {
    name: String,
    store: Arc<dyn Storage>,
    below: Option<Box<Built>>,
    model: ByteModel,
}

impl Built {
    fn layer(&self, access: Access) -> Layer {
        Layer::new(open(&self.store, access).0, &self.name)
    }

    /// The disk, its top image open as `access` says, those below for reading.
    fn disk_as(&self, access: Access) -> Disk {
        let mut layers = vec![self.layer(access)];
        let mut below = self.below.as_deref();
        while let Some(image) = below {
            layers.push(image.layer(Access::Read));
            below = image.below.as_deref();
        }
        Disk::from_layers(layers, &Limits::default())
    }

    fn disk(&self) -> Disk {
        self.disk_as(Access::Read)
    }
}

#[test]
fn what_was_committed_is_in_the_base_and_the_emptied_top_shows_it() {
    for (seed, (base, top)) in
        [(64, 64), (40, 64), (64, 40), (33, 61)].into_iter().enumerate().map(|(n, s)| (n as u64, s))
    {
        let base = image("base", base * KIB, None, seed);
        let top = image("top", top * KIB, Some(&base), seed + 10);
        let target = base.disk_as(Access::ReadWrite);
        let before = base.model.contents();
        let layer = top.layer(Access::ReadWrite);
        commit(std::slice::from_ref(&layer), &target, &Settings::default(), &Unwatched)
            .expect("committed");
        let wanted = top.model.contents();
        let now = contents(&base.disk());
        assert!(now[..wanted.len()] == wanted, "{seed}");
        let rest = wanted.len().min(before.len())..before.len();
        assert!(now[rest.clone()] == before[rest], "{seed}: behind the end of the top");
        let layers = [&[layer], target.layers()].concat();
        let chain = Disk::from_layers(layers, &Limits::default());
        empty(&chain).expect("emptied");
        assert!(contents(&chain) == wanted, "{seed}: after it was emptied");
        assert!(contents(&top.disk()) == wanted, "{seed}: opened again");
        let all = GuestRange::whole(top.model.size());
        let found = top.disk().top().map(all).expect("mapped").len;
        assert_eq!(found, all.len(), "{seed}: it holds something still");
    }
}

#[test]
fn a_commit_past_images_between_brings_what_they_hold_along_also_where_one_is_short() {
    for (seed, middle) in [(1, 64), (2, 24)] {
        let base = image("base", 64 * KIB, None, seed);
        let middle = image("middle", middle * KIB, Some(&base), seed + 10);
        let top = image("top", 64 * KIB, Some(&middle), seed + 20);
        let above = [top.layer(Access::Read), middle.layer(Access::Read)];
        let target = base.disk_as(Access::ReadWrite);
        commit(&above, &target, &Settings::default(), &Unwatched).expect("committed");
        assert!(contents(&base.disk()) == top.model.contents(), "{seed}");
    }
}

#[test]
fn a_rebased_image_shows_the_same_over_another_one_and_over_none() {
    for seed in 0..6 {
        let sizes =
            [(64, 64, 64), (40, 64, 48), (64, 32, 61)][usize::try_from(seed % 3).unwrap_or(0)];
        let old = image("old", sizes.0 * KIB, None, seed);
        let new = image("new", sizes.1 * KIB, None, seed + 10);
        for (compress, new) in [(false, Some(&new)), (true, Some(&new)), (false, None)] {
            let top = image("top", sizes.2 * KIB, Some(&old), seed + 20);
            let disk = top.disk_as(Access::ReadWrite);
            let mut settings = Settings::default();
            settings.compress = compress;
            let below = new.map(Built::disk);
            rebase(&disk, below.as_ref(), &settings, &Unwatched).expect("rebased");
            assert!(contents(&disk) == top.model.contents(), "{seed}: over the old one");
            let link = disk.top().backing_link().expect("it can be changed");
            let reference = new.map(|new| named(&new.name));
            link.set_backing(reference.as_ref()).expect("changed");
            drop(disk);
            assert_eq!(open(&top.store, Access::Read).1, reference);
            let moved = Built { below: new.cloned().map(Box::new), ..top };
            assert!(contents(&moved.disk()) == moved.model.contents(), "{seed}: over the new one");
        }
    }
}

/// A raw disk with data in a few places, holes around them, both at any byte.
fn with_holes(size: u64, seed: u64) -> Disk {
    let store = Arc::new(MemoryStorage::default());
    store.set_len(size).expect("memory is sparse");
    let mut random = Random::new(seed);
    for _ in 0..4 {
        let at = random.below(size);
        let len = random.below(9 * KIB).min(size - at);
        let data = vec![0xA5; usize::try_from(len).expect("small")];
        store.write_at(HostOffset(at), &data).expect("memory");
    }
    Disk::new(Arc::new(RawImage::open(store, false).expect("raw opens")))
}

/// Zeroes for a part of a cluster were left out, because nothing lay below yet and it read as zero:
/// then the new base showed. Parts came from holes of the base, from its end, and, in version 2, all
/// zeroes were left out.
#[test]
fn zeroes_of_an_image_hide_what_comes_to_lie_below_it() {
    let kinds: [&[(&str, &str)]; 3] = [
        &[("cluster_size", "4k")],
        &[("cluster_size", "4k"), ("compat", "0.10")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
    ];
    for (kind, seed) in kinds.into_iter().flat_map(|kind| (0..12).map(move |seed| (kind, seed))) {
        let old = image_with(kind, "old", 64 * KIB, None, seed);
        let old = Some(&old).filter(|_| seed % 3 == 0);
        let top = image_with(kind, "top", 80 * KIB - seed % 2 * 512, old, seed + 20);
        let disk = top.disk_as(Access::ReadWrite);
        let new = with_holes(70 * KIB + seed * 512, seed + 40);
        let mut settings = Settings::default();
        settings.compress = seed % 4 == 1;
        rebase(&disk, Some(&new), &settings, &Unwatched).expect("rebased");
        disk.top().backing_link().expect("it has one").set_backing(Some(&named("new"))).unwrap();
        drop(disk);
        let layers = vec![top.layer(Access::Read), new.layers()[0].clone()];
        let moved = Disk::from_layers(layers, &Limits::default());
        assert!(contents(&moved) == top.model.contents(), "{kind:?} {seed}");
    }
}

#[test]
fn what_both_chains_have_below_them_is_not_copied() {
    let base = image("base", 64 * KIB, None, 1);
    let old = image("old", 64 * KIB, Some(&base), 2);
    let top = image("top", 64 * KIB, Some(&old), 3);
    let disk = top.disk_as(Access::ReadWrite);
    let report =
        rebase(&disk, Some(&base.disk()), &Settings::default(), &Unwatched).expect("rebased");
    let whole = rebase(&disk, None, &Settings::default(), &Unwatched).expect("rebased");
    assert!(report.data + report.zero < report.size, "{report:?}");
    assert!(whole.data > 0, "{whole:?}");
}

/// Qcow2 reads zeroes behind the end of its file: they are not the data that was there.
#[test]
fn what_a_file_that_was_cut_off_has_lost_is_not_copied_as_zeroes() {
    let (base, other) = (image("base", 64 * KIB, None, 5), image("other", 64 * KIB, None, 7));
    let full = || {
        let top = image("top", 64 * KIB, Some(&base), 6);
        let disk = top.disk_as(Access::ReadWrite);
        disk.write(GuestOffset(0), &[7; 64 << 10]).expect("written");
        disk.flush().expect("flushed");
        top.store.set_len(top.store.len().expect("memory") - 20 * KIB).expect("memory");
        top
    };
    let (top, target) = (full(), base.disk_as(Access::ReadWrite));
    let refused = commit(&[top.layer(Access::Read)], &target, &Settings::default(), &Unwatched);
    let text = refused.expect_err("data is missing").to_string();
    assert!(text.contains("before the end of the file"), "{text}");
    let old = base.model.contents();
    assert!(contents(&target).iter().zip(old).all(|(new, old)| *new == 7 || *new == old));
    // What lies below an image that gets another base.
    let over = Built { below: Some(Box::new(full())), ..image("over", 64 * KIB, None, 9) };
    let disk = over.disk_as(Access::ReadWrite);
    let refused = rebase(&disk, Some(&other.disk()), &Settings::default(), &Unwatched);
    let text = refused.expect_err("data is missing").to_string();
    assert!(text.contains("before the end of the file"), "{text}");
}

#[test]
fn a_power_failure_at_any_moment_of_a_commit_leaves_a_chain_that_shows_the_same() {
    let base = image("base", 48 * KIB, None, 5);
    let top = image("top", 64 * KIB, Some(&base), 6);
    let crash = CrashStorage::over(bytes_of(&*base.store));
    let target = Built { store: Arc::new(crash.clone()), ..base };
    let disk = target.disk_as(Access::ReadWrite);
    commit(&[top.layer(Access::Read)], &disk, &Settings::default(), &Unwatched).expect("done");
    let wanted = top.model.contents();
    for state in crash.torn_states(100, 1) {
        let left = Built { store: state.storage(), ..target.clone() };
        let layers = vec![top.layer(Access::Read), left.layer(Access::ReadWrite)];
        let chain = Disk::from_layers(layers, &Limits::default());
        assert!(contents(&chain) == wanted, "{state}");
    }
    // Then the top is emptied, over a base that is safe.
    let crash = CrashStorage::over(bytes_of(&*top.store));
    let top = Built { store: Arc::new(crash.clone()), ..top };
    let layers = vec![top.layer(Access::ReadWrite), target.layer(Access::Read)];
    empty(&Disk::from_layers(layers, &Limits::default())).expect("emptied");
    for state in crash.torn_states(100, 1) {
        let left = Built { store: state.storage(), ..top.clone() };
        let layers = vec![left.layer(Access::ReadWrite), target.layer(Access::Read)];
        let chain = Disk::from_layers(layers, &Limits::default());
        assert!(contents(&chain) == wanted, "{state}");
    }
}

#[test]
fn a_power_failure_at_any_moment_of_a_rebase_leaves_an_image_that_shows_the_same() {
    let (old, new) = (image("old", 64 * KIB, None, 5), image("new", 32 * KIB, None, 6));
    let top = image("top", 64 * KIB, Some(&old), 7);
    let crash = CrashStorage::over(bytes_of(&*top.store));
    let top = Built { store: Arc::new(crash.clone()), ..top };
    let disk = top.disk_as(Access::ReadWrite);
    rebase(&disk, Some(&new.disk()), &Settings::default(), &Unwatched).expect("rebased");
    let link = disk.top().backing_link().expect("it can be changed");
    link.set_backing(Some(&named("new"))).expect("changed");
    let mut seen = [false; 2];
    for state in crash.torn_states(100, 1) {
        let store: Arc<dyn Storage> = state.storage();
        let reference = open(&store, Access::Read).1.expect("it has one");
        let is_new = reference == named("new");
        assert!(is_new || reference == named("old"), "{reference:?}\n{state}");
        seen[usize::from(is_new)] = true;
        let below = if is_new { &new } else { &old };
        let left = Built { store, below: Some(Box::new(below.clone())), ..top.clone() };
        assert!(contents(&left.disk()) == left.model.contents(), "{state}");
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn whoever_watches_can_stop_both() {
    let base = image("base", 64 * KIB, None, 1);
    let top = image("top", 64 * KIB, Some(&base), 2);
    let stop = |_, _| ControlFlow::Break(());
    let target = base.disk_as(Access::ReadWrite);
    let stopped = commit(&[top.layer(Access::Read)], &target, &Settings::default(), &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let stopped = rebase(&top.disk_as(Access::ReadWrite), None, &Settings::default(), &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(contents(&top.disk()) == top.model.contents());
}

#[test]
fn a_new_image_over_one_that_is_not_open_takes_whole_units_and_hides_what_it_zeroes() {
    let base = image("base", 256 * KIB, None, 7);
    let (store, location) = (Arc::new(MemoryStorage::default()), Location::Other("top".into()));
    let (options, below) = (Options::of(&QCOW2), named("base"));
    let mut new = NewImage::new(&QCOW2, &options, 256 * KIB);
    new.backing = Some(&below);
    let disk = new.create(store.clone(), &location).expect("an image can be made");
    let refused = disk.write(GuestOffset(5), b"hello").expect_err("the rest lies below");
    assert!(refused.to_string().contains("base"), "{refused}");
    disk.write(GuestOffset(0), &[1; 64 << 10]).expect("a whole cluster");
    disk.write(GuestOffset(5), b"hello").expect("now it lies here");
    let zeroed = GuestRange::between(GuestOffset(64 * KIB), GuestOffset(128 * KIB));
    disk.zero(zeroed, true).expect("zeroed");
    disk.flush().expect("flushed");
    let whole = disk.layers()[0].clone();
    let whole = base.disk().overlaid(whole);
    let mut expected = contents(&base.disk());
    expected[..64 << 10].fill(1);
    expected[5..10].copy_from_slice(b"hello");
    expected[64 << 10..128 << 10].fill(0);
    assert!(contents(&whole) == expected);
}
