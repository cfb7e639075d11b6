//! Operations on an image in memory against a vector of bytes.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Error, Format, GuestOffset, GuestRange, Limits, Location,
    OpenRequest, Options, Preallocation,
};
use anydisk_testkit::{ByteModel, MemoryFolder, Operation};
use arbitrary::Arbitrary;

/// The image's own file.
const NAME: &str = "image";

/// Operations of one story at most.
const STEPS: usize = 64;

/// Places and lengths are cut to the disk.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Bytes made of `seed`.
    Write {
        /// First byte.
        at: u32,
        /// Bytes.
        len: u16,
        /// Tells the bytes from others.
        seed: u8,
    },
    /// Zeroes.
    Zero {
        /// First byte.
        at: u32,
        /// Bytes.
        len: u32,
        /// Whether space may be given back.
        unmap: bool,
    },
    /// The old bytes or zeroes.
    Discard {
        /// First byte.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// Reads and compares.
    Read {
        /// First byte.
        at: u32,
        /// Bytes.
        len: u16,
    },
    /// Makes all of it durable.
    Flush,
    /// Closes the image and opens it.
    Reopen,
    /// Another size.
    Resize {
        /// In sectors.
        sectors: u16,
    },
}

/// An image in memory, open for writing, and what it should hold.
#[derive(Debug)]
pub struct Subject {
    format: &'static dyn Format,
    folder: MemoryFolder,
    disk: Disk,
    model: ByteModel,
    /// Sectors that the disk may grow to.
    most: u64,
}

impl Subject {
    /// A new image, which grows to no more than `most` sectors.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn create(format: &'static dyn Format, options: &Options, size: u64, most: u64) -> Self {
        let folder = MemoryFolder::default();
        let store = folder.make_file(NAME).expect("the folder is empty");
        let (location, limits) = (location(), Limits::default());
        let request = CreateRequest::new(store, &location, size, options, &limits);
        let request = CreateRequest { companions: &folder, ..request };
        let image = format.create(request).expect("an image can be made");
        Self { format, folder, disk: Disk::new(image), model: ByteModel::new(size), most }
    }

    /// An image of `size` bytes that was made by hand and holds zeroes.
    ///
    /// # Panics
    /// If it does not open.
    #[must_use]
    pub fn of(format: &'static dyn Format, bytes: Vec<u8>, size: u64, most: u64) -> Self {
        let folder = MemoryFolder::default();
        folder.put(NAME, bytes);
        let disk = open(format, &folder);
        Self { format, folder, disk, model: ByteModel::new(size), most }
    }

    /// Runs the steps, the first ones if there are many, and opens the image once more.
    ///
    /// # Panics
    /// If the image says anything else than the vector of bytes.
    pub fn play(self, steps: &[Step]) {
        let played = steps.iter().take(STEPS).fold(self, |subject, &step| subject.run(step));
        drop(played.reopen());
    }

    fn run(mut self, step: Step) -> Self {
        let size = self.model.size();
        let cut = |at: u32, len: u32| {
            let at = u64::from(at) % (size + 1);
            (at, u64::from(len).min(size - at))
        };
        match step {
            Step::Write { at, len, seed } => {
                let (at, len) = cut(at, len.into());
                let data = Operation::Write { at, len, seed: seed.into() }.data();
                self.disk.write(GuestOffset(at), &data).expect("a write");
                self.model.write(at, &data);
            }
            Step::Zero { at, len, unmap } => {
                let (at, len) = cut(at, len);
                self.disk.zero(range(at, len), unmap).expect("zeroes");
                self.model.zero(at, len);
            }
            Step::Discard { at, len } => {
                let (at, len) = cut(at, len);
                self.discard(at, len);
            }
            Step::Read { at, len } => {
                let (at, len) = cut(at, len.into());
                assert!(self.read(at, len) == self.model.read(at, len), "{step:?}");
            }
            Step::Flush => self.disk.flush().expect("memory does not fail"),
            Step::Reopen => return self.reopen(),
            Step::Resize { sectors } => self.resize(u64::from(sectors) % (self.most + 1) * 512),
        }
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

    /// The new size and content, or, where the image cannot have that size, the old ones.
    fn resize(&mut self, size: u64) {
        match self.disk.resize_with(size, Preallocation::Off, &self.folder) {
            Ok(()) => self.model.resize(size),
            Err(Error::Unsupported { .. } | Error::Limit { .. }) => {}
            Err(error) => panic!("from {} to {size} bytes: {error}", self.model.size()),
        }
        assert_eq!(self.disk.size(), self.model.size());
        // What is new, and what lies before it.
        let from = self.model.size().saturating_sub(64 << 10);
        let len = self.model.size() - from;
        assert!(self.read(from, len) == self.model.read(from, len), "the end after a resize");
    }

    fn reopen(self) -> Self {
        self.disk.flush().expect("memory does not fail");
        let Self { format, folder, disk, model, most } = self;
        drop(disk);
        let again = Self { disk: open(format, &folder), format, folder, model, most };
        let size = again.model.size();
        assert_eq!(again.disk.size(), size);
        assert!(again.read(0, size) == again.model.contents(), "the content after opening again");
        again
    }
}

fn open(format: &dyn Format, folder: &MemoryFolder) -> Disk {
    let (location, limits) = (location(), Limits::default());
    let store = folder.file(NAME).expect("it was made");
    let request = OpenRequest::new(Arc::clone(&store) as _, &location, &limits);
    let request = OpenRequest { access: Access::ReadWrite, resolver: folder, ..request };
    Disk::new(format.open(request).expect("our own image").image)
}

fn location() -> Location {
    Location::Path(NAME.into())
}

fn range(at: u64, len: u64) -> GuestRange {
    GuestRange::between(GuestOffset(at), GuestOffset(at + len))
}
