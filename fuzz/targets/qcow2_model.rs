//! Operations on a new qcow2 image against a vector of bytes.
#![no_main]

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, Limits, Location, NoReferences,
    NoSecrets, OpenRequest, Options, Storage,
};
use anydisk_qcow2::QCOW2;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::{ByteModel, Operation};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Story {
    cluster_bits: u8,
    version_2: bool,
    extended: bool,
    lazy: bool,
    refcount_order: u8,
    sectors: u16,
    steps: Vec<Step>,
}

/// Places and lengths are cut to the disk.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Write { at: u32, len: u16, seed: u8 },
    Zero { at: u32, len: u32, unmap: bool },
    Discard { at: u32, len: u32 },
    Read { at: u32, len: u16 },
    Flush,
    Reopen,
}

impl Step {
    fn on_disk(self, size: u64) -> Operation {
        let cut = |at: u32, len: u32| {
            let at = u64::from(at) % (size + 1);
            (at, u64::from(len).min(size - at))
        };
        match self {
            Self::Write { at, len, seed } => {
                let (at, len) = cut(at, len.into());
                Operation::Write { at, len, seed: seed.into() }
            }
            Self::Zero { at, len, unmap } => {
                let (at, len) = cut(at, len);
                Operation::Zero { at, len, unmap }
            }
            Self::Discard { at, len } => {
                let (at, len) = cut(at, len);
                Operation::Discard { at, len }
            }
            Self::Read { at, len } => {
                let (at, len) = cut(at, len.into());
                Operation::Read { at, len }
            }
            Self::Flush => Operation::Flush,
            Self::Reopen => Operation::Reopen,
        }
    }
}

impl Story {
    fn options(&self) -> Options {
        let mut options = Options::of(&QCOW2);
        let mut set = |name: &str, value: String| {
            options.set(name, &value).expect("an option of qcow2");
        };
        let bits = if self.extended { 14 } else { 9 } + u32::from(self.cluster_bits % 4);
        set("cluster_size", (1_u64 << bits).to_string());
        if self.version_2 {
            set("compat", "v2".into());
            return options;
        }
        set("extended_l2", if self.extended { "on" } else { "off" }.into());
        set("lazy_refcounts", if self.lazy { "on" } else { "off" }.into());
        set("refcount_bits", (1_u32 << (self.refcount_order % 7)).to_string());
        options
    }
}

/// An image in memory, open for writing.
struct Subject {
    store: Arc<dyn Storage>,
    disk: Disk,
    model: ByteModel,
}

impl Subject {
    fn create(story: &Story) -> Self {
        let size = u64::from(story.sectors) * 512;
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(Vec::new()));
        let (location, options, limits) = (location(), story.options(), Limits::default());
        let request = CreateRequest::new(Arc::clone(&store), &location, size, &options, &limits);
        let image = QCOW2.create(request).expect("an image can be made");
        Self { store, disk: Disk::new(image), model: ByteModel::new(size) }
    }

    fn run(mut self, step: Step) -> Self {
        let operation = step.on_disk(self.model.size());
        self.model.apply(&operation);
        match operation {
            Operation::Write { at, .. } => self.disk.write(GuestOffset(at), &operation.data()),
            Operation::Zero { at, len, unmap } => self.disk.zero(range(at, len), unmap),
            Operation::Discard { at, len } => {
                self.discard(at, len);
                Ok(())
            }
            Operation::Read { at, len } => {
                assert!(self.read(at, len) == self.model.read(at, len), "{operation:?}");
                Ok(())
            }
            Operation::Flush => self.disk.flush(),
            Operation::Reopen => return self.reopen(),
        }
        .unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        self
    }

    fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).expect("it fits in memory")];
        self.disk.read(GuestOffset(at), &mut bytes).expect("an undamaged image is read");
        bytes
    }

    /// Each byte that was discarded is as before, or zero.
    fn discard(&mut self, at: u64, len: u64) {
        self.disk.discard(range(at, len)).expect("an undamaged image");
        let (before, after) = (self.model.read(at, len), self.read(at, len));
        let allowed = |(old, new): (&u8, &u8)| *new == 0 || new == old;
        assert!(before.iter().zip(&after).all(allowed), "{len} bytes at {at} after a discard");
        self.model.write(at, &after);
    }

    fn reopen(self) -> Self {
        self.disk.flush().expect("memory does not fail");
        let Self { store, disk, model } = self;
        drop(disk);
        let request = OpenRequest {
            store: Arc::clone(&store),
            location: &location(),
            access: Access::ReadWrite,
            resolver: &NoReferences,
            limits: &Limits::default(),
            secrets: &NoSecrets,
        };
        let image = QCOW2.open(request).expect("our own image").image;
        let again = Self { store, disk: Disk::new(image), model };
        let size = again.model.size();
        assert!(again.read(0, size) == again.model.contents(), "the content after opening again");
        again
    }
}

fn location() -> Location {
    Location::Other("memory".into())
}

fn range(at: u64, len: u64) -> GuestRange {
    GuestRange::between(GuestOffset(at), GuestOffset(at + len))
}

fuzz_target!(|story: Story| {
    let mut subject = Subject::create(&story);
    for &step in story.steps.iter().take(64) {
        subject = subject.run(step);
    }
    subject.reopen();
});
