//! An image with all that should be in it, and what can be done to it.

use std::fmt::Debug;
use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, Bitmaps, CheckRequest, Companions, CreateRequest, Disk, Error, Format,
    GuestOffset, Image, Layer, Limits, Located, Location, NewBitmap, NewSnapshot, OpenRequest,
    Options, Preallocation, Reference, Resolver, Result, SnapshotRef, Snapshots, Source, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::{Aim, ByteModel, Operation, PlainImage, Random, secrets};

use super::kinds::Kind;
use super::record::Record;
use crate::common::{memory, range, write_packed};

const SECTOR: u64 = 512;

/// An open image, what its disk should hold, each of its snapshots, and its bitmaps.
pub(super) struct World {
    pub(super) kind: &'static Kind,
    pub(super) store: Arc<dyn Storage>,
    /// The external data file; empty where there is none.
    pub(super) data: Arc<dyn Storage>,
    /// What lies below.
    pub(super) below: Option<Vec<u8>>,
    image: Arc<dyn Image>,
    disk: Disk,
    pub(super) model: ByteModel,
    /// By their IDs.
    pub(super) kept: Vec<(String, ByteModel)>,
    records: Vec<Record>,
    random: Random,
    named: u64,
}

/// How often it is done, of all, what it is, and how.
type Step = (u64, &'static str, fn(&mut World));

/// The data file, whoever asks for it.
#[derive(Clone, Debug)]
struct Beside(Arc<dyn Storage>);

impl Beside {
    fn located(&self) -> Located {
        Located { store: Arc::clone(&self.0), location: Location::Other("data".into()) }
    }
}

impl Resolver for Beside {
    fn resolve(&self, _: &Reference, _: &Location, _: Access) -> Result<Located> {
        Ok(self.located())
    }
}

impl Companions for Beside {
    fn make(&self, _: &Reference) -> Result<Located> {
        Ok(self.located())
    }
}

impl World {
    pub(super) fn new(kind: &'static Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (store, data) = (memory(), memory());
        let size = kind.most() / 2 / SECTOR * SECTOR;
        let below = kind.overlay.then(|| {
            let len = size / 2 + random.below(size);
            let mut bytes = vec![0; usize::try_from(len).expect("small")];
            random.fill(&mut bytes);
            bytes
        });
        let image = create(kind, &store, &data, size);
        let disk = layered(&image, below.as_deref());
        let model = ByteModel::of(below.as_deref().unwrap_or_default(), size);
        let (kept, records, named) = (Vec::new(), Vec::new(), 0);
        Self { kind, store, data, below, image, disk, model, kept, records, random, named }
    }

    /// Does something; what it was.
    pub(super) fn step(&mut self) -> &'static str {
        let steps: &[Step] = &[
            (60, "an operation of the guest", Self::guest),
            (4, "a packed write", Self::pack),
            (5, "a snapshot", Self::keep),
            (4, "a snapshot applied", Self::go_back),
            (4, "a snapshot deleted", Self::forget),
            (1, "a snapshot renamed", Self::rename),
            (5, "another size", Self::resize),
            (3, "a bitmap", Self::begin_bitmap),
            (2, "a bitmap removed", Self::remove_bitmap),
            (2, "a bitmap enabled or disabled", Self::switch_bitmap),
            (1, "a bitmap cleared", Self::clear_bitmap),
            (2, "bitmaps merged", Self::merge_bitmaps),
            (2, "an overlay committed", Self::commit),
            (1, "lazy refcounts switched", Self::amend),
            (2, "compacted", Self::compact),
            (1, "opened again", Self::reopen),
            (3, "a flush", |world| world.disk.flush().expect("a flush in memory")),
        ];
        let all = steps.iter().map(|(often, ..)| often).sum();
        let mut which = self.random.below(all);
        for (often, what, step) in steps {
            if which < *often {
                step(self);
                return what;
            }
            which -= often;
        }
        unreachable!("one of them is chosen")
    }

    /// Changes a range of disk and model, and what the bitmaps must and may tell.
    fn change(&mut self, at: u64, len: u64, change: impl FnOnce(&Disk, &mut ByteModel)) {
        let from = at / SECTOR * SECTOR;
        let sectors = (at + len).next_multiple_of(SECTOR) - from;
        let old = self.model.read(from, sectors);
        change(&self.disk, &mut self.model);
        let new = self.model.read(from, sectors);
        for record in &mut self.records {
            record.touched(at, len, self.kind.cluster);
            record.changed(from, &old, &new);
        }
    }

    fn guest(&mut self) {
        if self.model.size() == 0 {
            return;
        }
        let aim = Aim::at(self.model.size(), self.kind.cluster);
        let operation = aim.random_operation(&mut self.random);
        let (at, len) = operation.range().unwrap_or((0, 0));
        self.change(at, len, |disk, model| apply(disk, model, &operation));
    }

    fn pack(&mut self) {
        let cluster = self.kind.cluster;
        if !self.kind.packs() || self.model.size() < cluster {
            return;
        }
        let at = self.random.below(self.model.size() / cluster) * cluster;
        let mut data = vec![1; usize::try_from(cluster).expect("small")];
        let half = data.len() / 2;
        self.random.fill(&mut data[..half]);
        let image = Arc::clone(&self.image);
        self.change(at, cluster, |_, model| {
            if write_packed(&*image, at, &data) {
                model.write(at, &data);
            }
        });
    }

    fn keep(&mut self) {
        let new = NewSnapshot { name: self.name(), date: (1_700_000_000, 5) };
        let made = snapshots(&self.image).create(&new);
        match made {
            Ok(info) => self.kept.push((info.id, self.model.clone())),
            Err(Error::Limit { .. } | Error::Unsupported { .. }) => assert!(!self.kind.shares()),
            Err(error) => panic!("{error}"),
        }
    }

    fn name(&mut self) -> String {
        self.named += 1;
        format!("name {}", self.named)
    }

    fn some_snapshot(&mut self) -> Option<usize> {
        (!self.kept.is_empty()).then(|| self.random.index(self.kept.len()))
    }

    fn go_back(&mut self) {
        let Some(index) = self.some_snapshot() else { return };
        let (id, kept) = self.kept[index].clone();
        match snapshots(&self.image).apply(&SnapshotRef::Id(id)) {
            Ok(()) => self.become_state(kept),
            Err(Error::Limit { .. }) => assert!(!self.kind.shares()),
            Err(Error::Unsupported { .. }) => assert!(self.refuses_to_be(kept.size())),
            Err(error) => panic!("{error}"),
        }
    }

    fn become_state(&mut self, kept: ByteModel) {
        let size = self.model.size().max(kept.size());
        let filled = |model: &ByteModel| {
            let mut bytes = model.contents();
            bytes.resize(usize::try_from(size).expect("small"), 0);
            bytes
        };
        let (old, new) = (filled(&self.model), filled(&kept));
        for record in &mut self.records {
            record.resize(size);
            record.touched(0, size, SECTOR);
            record.changed(0, &old, &new);
            record.resize(kept.size());
        }
        self.model = kept;
    }

    fn forget(&mut self) {
        let Some(index) = self.some_snapshot() else { return };
        let (id, _) = self.kept.remove(index);
        snapshots(&self.image).delete(&SnapshotRef::Id(id)).expect("it is there");
    }

    fn rename(&mut self) {
        let Some(index) = self.some_snapshot() else { return };
        let (id, name) = (self.kept[index].0.clone(), self.name());
        snapshots(&self.image).rename(&SnapshotRef::Id(id), &name).expect("it is there");
    }

    fn resize(&mut self) {
        let size = self.random.below(self.kind.most() / SECTOR + 1) * SECTOR;
        self.resize_to(size);
    }

    /// Whether it can be so long.
    fn resize_to(&mut self, size: u64) -> bool {
        let old = self.model.size();
        match self.disk.resize(size, Preallocation::Off) {
            Ok(()) => {
                self.model.resize(size);
                // The rest of the cluster in which the disk ends, or did, was made zero.
                let end = old.min(size);
                let rest = end.next_multiple_of(self.kind.cluster).min(old.max(size)) - end;
                for record in &mut self.records {
                    record.resize(old.max(size));
                    record.touched(end, rest, SECTOR);
                    record.resize(size);
                }
                true
            }
            Err(Error::Unsupported { .. }) => {
                assert!(self.kind.is_version_2() || self.refuses_to_be(size));
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Nobody could read an empty disk with bitmaps.
    fn refuses_to_be(&self, size: u64) -> bool {
        size == 0 && !self.records.is_empty()
    }

    fn bitmaps(&self) -> &dyn Bitmaps {
        self.image.bitmaps().expect("qcow2 has bitmaps")
    }

    fn some_bitmap(&mut self) -> Option<usize> {
        (!self.records.is_empty()).then(|| self.random.index(self.records.len()))
    }

    fn begin_bitmap(&mut self) {
        let granularity = SECTOR << self.random.below(9);
        let (name, enabled) = (self.name(), self.random.chance(2, 3));
        let new = NewBitmap { name: name.clone(), granularity: Some(granularity), enabled };
        match self.bitmaps().add(&new) {
            Ok(()) => {
                let record = Record::new(name, granularity, enabled, self.model.size());
                self.records.push(record);
            }
            Err(Error::Unsupported { .. }) => {
                assert!(self.kind.is_version_2() || self.model.size() == 0);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn remove_bitmap(&mut self) {
        let Some(index) = self.some_bitmap() else { return };
        let gone = self.records.remove(index);
        self.bitmaps().remove(&gone.name).expect("it is there");
    }

    fn switch_bitmap(&mut self) {
        let Some(index) = self.some_bitmap() else { return };
        let enabled = !self.records[index].enabled;
        let name = self.records[index].name.clone();
        self.bitmaps().set_enabled(&name, enabled).expect("it is there");
        self.records[index].enabled = enabled;
    }

    fn clear_bitmap(&mut self) {
        let Some(index) = self.some_bitmap() else { return };
        let name = self.records[index].name.clone();
        self.bitmaps().clear(&name).expect("it is there");
        self.records[index].clear();
    }

    fn merge_bitmaps(&mut self) {
        let (Some(from), Some(to)) = (self.some_bitmap(), self.some_bitmap()) else { return };
        let (source, name) = (self.records[from].clone(), self.records[to].name.clone());
        {
            let mut changes = self.bitmaps().changes(&source.name).expect("it is there");
            self.bitmaps().merge(&name, &mut *changes).expect("it is there");
        }
        self.records[to].merge(&source);
    }

    /// The file gets no longer by it, and nothing else changes.
    fn compact(&mut self) {
        self.disk.flush().expect("a flush in memory");
        let before = self.store.len().expect("a length");
        let compactor = self.image.compactor().expect("it is open for writing");
        let gained = compactor.compact(&|_, _| true).expect("it is in order");
        assert_eq!(self.store.len().expect("a length"), before - gained);
    }

    /// Makes an overlay, which may be longer, writes to it, and commits it.
    fn commit(&mut self) {
        let more = self.random.below(3) * self.random.below(3) * self.kind.cluster;
        let size = self.model.size() + more;
        if size == 0 {
            return;
        }
        let mut options = Options::of(&QCOW2);
        for (name, value) in
            [("cluster_size", "4k"), ("backing_file", "disk"), ("backing_fmt", "qcow2")]
        {
            options.set(name, value).expect("an option");
        }
        let (location, limits) = (Location::Other("overlay".into()), Limits::default());
        let request = CreateRequest::new(memory(), &location, size, &options, &limits);
        let overlay = QCOW2.create(request).expect("an overlay in memory");
        let layer = Layer::new(Arc::clone(&overlay), "overlay");
        let layers = [layer].into_iter().chain(self.disk.layers().iter().cloned()).collect();
        let chain = Disk::from_layers(layers, &limits);
        let mut model = ByteModel::of(&self.model.contents(), size);
        let aim = Aim::at(size, 4096);
        for _ in 0..self.random.below(6) {
            apply(&chain, &mut model, &aim.random_operation(&mut self.random));
        }
        if more > 0 && !self.resize_to(size) {
            return;
        }
        self.write_down(&*overlay, &chain, &model);
        overlay.backing_link().expect("it has one").make_empty().expect("emptied");
        let found = contents(&chain);
        assert!(found == model.contents(), "the overlay shows what was committed");
    }

    /// Writes what the overlay holds.
    fn write_down(&mut self, overlay: &dyn Image, chain: &Disk, model: &ByteModel) {
        let mut at = 0;
        while at < model.size() {
            let extent = overlay.map(range(at, model.size() - at)).expect("it maps");
            let len = extent.len;
            match extent.source {
                Source::Absent { .. } => {}
                Source::Zero { .. } => self.change(at, len, |disk, model| {
                    disk.zero(range(at, len), true).expect("zeroed");
                    model.zero(at, len);
                }),
                _ => {
                    let mut data = vec![0; usize::try_from(len).expect("small")];
                    chain.read(GuestOffset(at), &mut data).expect("it reads");
                    self.change(at, len, |disk, model| {
                        disk.write(GuestOffset(at), &data).expect("written");
                        model.write(at, &data);
                    });
                }
            }
            at += len;
        }
    }

    fn amend(&mut self) {
        if self.kind.is_version_2() {
            return;
        }
        let mut options = Options::to_amend(&QCOW2);
        let value = if self.random.chance(1, 2) { "on" } else { "off" };
        options.set("lazy_refcounts", value).expect("an option");
        self.close();
        let (data, passphrase) = (Beside(Arc::clone(&self.data)), self.kind.passphrase());
        with_request(&self.store, &data, passphrase, |open| {
            QCOW2.amend(AmendRequest { open, options: &options, force: false })
        })
        .expect("it is amended");
        self.open();
    }

    /// Flushes, closes, checks and opens again.
    pub(super) fn reopen(&mut self) {
        self.close();
        let (data, passphrase) = (Beside(Arc::clone(&self.data)), self.kind.passphrase());
        let mut told = String::new();
        let report = with_request(&self.store, &data, passphrase, |open| {
            QCOW2.check(&CheckRequest::new(open), &mut |found| {
                told += &format!("{} at {}: {}\n", found.kind, found.at, found.text);
            })
        });
        assert!(report.expect("it can be checked").is_clean(), "{}: {told}", self.kind.name);
        self.open();
    }

    fn close(&mut self) {
        self.disk.flush().expect("a flush in memory");
        // Something else to hold while the image is closed.
        let nothing = PlainImage::new(memory()).expect("memory has a length");
        self.image = Arc::new(nothing);
        self.disk = Disk::new(Arc::clone(&self.image));
    }

    fn open(&mut self) {
        let (data, passphrase) = (Beside(Arc::clone(&self.data)), self.kind.passphrase());
        let opened = with_request(&self.store, &data, passphrase, |open| QCOW2.open(open));
        self.image = opened.expect("it opens").image;
        self.disk = layered(&self.image, self.below.as_deref());
    }

    /// Compares everything.
    pub(super) fn assert_holds(&self, when: &dyn Debug) {
        assert_eq!(self.disk.size(), self.model.size(), "{when:?}");
        assert_same(&contents(&self.disk), &self.model.contents(), when);
        let listed = snapshots(&self.image).list().expect("a list");
        let ids: Vec<_> = listed.iter().map(|info| info.id.as_str()).collect();
        assert_eq!(ids, self.kept.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
        for (id, model) in &self.kept {
            let view = snapshots(&self.image).open(&SnapshotRef::Id(id.clone())).expect("it opens");
            let view = layered(&view, self.below.as_deref());
            assert_same(&contents(&view), &model.contents(), &(when, "snapshot", id));
        }
        assert_eq!(self.bitmaps().list().expect("a list").len(), self.records.len());
        self.records.iter().for_each(|record| record.assert_told(self.bitmaps(), when));
    }
}

/// What a guest does. A discard leaves old bytes or zeroes: the model takes what there is.
fn apply(disk: &Disk, model: &mut ByteModel, operation: &Operation) {
    let done = match *operation {
        Operation::Write { at, .. } => disk.write(GuestOffset(at), &operation.data()),
        Operation::Zero { at, len, unmap } => disk.zero(range(at, len), unmap),
        Operation::Discard { at, len } => disk.discard(range(at, len)),
        Operation::Read { at, len } => {
            assert_same(&read(disk, at, len), &model.read(at, len), operation);
            Ok(())
        }
        Operation::Flush | Operation::Reopen => disk.flush(),
    };
    done.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
    if let Operation::Discard { at, len } = *operation {
        let (before, after) = (model.read(at, len), read(disk, at, len));
        let fits = before.iter().zip(&after).all(|(old, new)| new == old || *new == 0);
        assert!(fits, "{operation:?} leaves other bytes");
        model.write(at, &after);
    }
    model.apply(operation);
}

fn read(disk: &Disk, at: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; usize::try_from(len).expect("small")];
    disk.read(GuestOffset(at), &mut bytes).expect("it reads");
    bytes
}

fn contents(disk: &Disk) -> Vec<u8> {
    read(disk, 0, disk.size())
}

fn assert_same(found: &[u8], expected: &[u8], when: &dyn Debug) {
    let wrong = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(at) = wrong {
        let (found, expected) = (found[at], expected[at]);
        panic!("{when:?}: the byte at {at:#x} is {found:#x}, expected {expected:#x}");
    }
    assert_eq!(found.len(), expected.len(), "{when:?}");
}

fn snapshots(image: &Arc<dyn Image>) -> &dyn Snapshots {
    image.snapshots().expect("qcow2 has snapshots")
}

fn create(
    kind: &Kind,
    store: &Arc<dyn Storage>,
    data: &Arc<dyn Storage>,
    size: u64,
) -> Arc<dyn Image> {
    let mut options = Options::of(&QCOW2);
    kind.given.iter().for_each(|(name, value)| options.set(name, value).expect("an option"));
    let (location, limits) = (Location::Other("image".into()), Limits::default());
    let request = CreateRequest::new(Arc::clone(store), &location, size, &options, &limits);
    let secrets = secrets(kind.passphrase());
    let companions = Beside(Arc::clone(data));
    let request = CreateRequest { secrets: &*secrets, companions: &companions, ..request };
    QCOW2.create(request).expect("an image in memory")
}

fn with_request<R>(
    store: &Arc<dyn Storage>,
    data: &Beside,
    passphrase: Option<&str>,
    run: impl FnOnce(OpenRequest<'_>) -> R,
) -> R {
    run(OpenRequest {
        store: Arc::clone(store),
        location: &Location::Other("image".into()),
        access: Access::ReadWrite,
        resolver: data,
        limits: &Limits::default(),
        secrets: &*secrets(passphrase),
    })
}

fn layered(image: &Arc<dyn Image>, below: Option<&[u8]>) -> Disk {
    let mut layers = vec![Layer::new(Arc::clone(image), "top")];
    layers.extend(below.map(|bytes| {
        let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
        let image = PlainImage::new(store).expect("memory has a length");
        Layer::new(Arc::new(image), "below")
    }));
    Disk::from_layers(layers, &Limits::default())
}
