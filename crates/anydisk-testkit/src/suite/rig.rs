//! An image in its store, over another image or not, as the tests handle it.

use std::sync::Arc;

use anydisk_core::{Access, Below, Disk, GuestOffset, GuestRange, Layer, Limits, Result, Storage};
use anydisk_storage::MemoryStorage;

use super::Fixture;
use crate::{ByteModel, Operation, PlainImage, Random};

/// An open image with all that is needed to open it again.
#[derive(Debug)]
pub(super) struct Rig<'f> {
    pub(super) fixture: &'f dyn Fixture,
    pub(super) store: Arc<dyn Storage>,
    /// What lies below, if anything does.
    pub(super) base: Option<Vec<u8>>,
    pub(super) disk: Disk,
}

impl<'f> Rig<'f> {
    /// A new image of `size` bytes in memory.
    pub(super) fn new(fixture: &'f dyn Fixture, size: u64) -> Self {
        Self::over(fixture, size, None)
    }

    /// A new image of `size` bytes in memory, over `base` if there is one.
    pub(super) fn over(fixture: &'f dyn Fixture, size: u64, base: Option<Vec<u8>>) -> Self {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        Self::create(fixture, store, size, base).expect("an image can be made in memory")
    }

    /// A new image in `store`.
    pub(super) fn create(
        fixture: &'f dyn Fixture,
        store: Arc<dyn Storage>,
        size: u64,
        base: Option<Vec<u8>>,
    ) -> Result<Self> {
        let below = if base.is_some() { Below::Image } else { Below::Nothing };
        let image = fixture.create(Arc::clone(&store), size, below)?;
        let disk = layered(Layer::new(image, "top"), base.as_deref());
        Ok(Self { fixture, store, base, disk })
    }

    /// The image that is in `store` already.
    pub(super) fn open(
        fixture: &'f dyn Fixture,
        store: Arc<dyn Storage>,
        access: Access,
        base: Option<Vec<u8>>,
    ) -> Result<Self> {
        let image = fixture.open(Arc::clone(&store), access)?;
        let disk = layered(Layer::new(image, "top"), base.as_deref());
        Ok(Self { fixture, store, base, disk })
    }

    /// Flushes, closes and opens for writing again.
    pub(super) fn reopen(self) -> Result<Self> {
        self.disk.flush()?;
        let Self { fixture, store, base, disk } = self;
        drop(disk);
        Self::open(fixture, store, Access::ReadWrite, base)
    }

    /// What a byte vector would hold at the start.
    pub(super) fn model(&self) -> ByteModel {
        ByteModel::of(self.base.as_deref().unwrap_or_default(), self.disk.size())
    }

    /// Does an operation, except [`Operation::Reopen`], on the disk and the model, and compares
    /// what they read.
    pub(super) fn apply(&self, operation: &Operation, model: &mut ByteModel) -> Result<()> {
        match *operation {
            Operation::Write { at, .. } => self.disk.write(GuestOffset(at), &operation.data())?,
            Operation::Zero { at, len, unmap } => self.disk.zero(range(at, len), unmap)?,
            Operation::Discard { at, len } => self.discard(at, len, model)?,
            Operation::Read { at, len } => {
                assert_same(&self.read(at, len)?, &model.read(at, len), at, operation);
            }
            Operation::Flush | Operation::Reopen => self.disk.flush()?,
        }
        model.apply(operation);
        Ok(())
    }

    /// Discards; the model then takes what the image chose.
    fn discard(&self, at: u64, len: u64, model: &mut ByteModel) -> Result<()> {
        let before = model.read(at, len);
        self.disk.discard(range(at, len))?;
        let after = self.read(at, len)?;
        let wrong = before.iter().zip(&after).position(|(old, new)| new != old && *new != 0);
        if let Some(index) = wrong {
            let (at, old, new) = (at + index as u64, before[index], after[index]);
            panic!("a discarded byte at {at:#x} was {old:#x} and is {new:#x}, expected it or 0");
        }
        model.write(at, &after);
        Ok(())
    }

    pub(super) fn write(&self, at: u64, data: &[u8]) {
        self.disk.write(GuestOffset(at), data).expect("a write to memory");
    }

    pub(super) fn read(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0x5A; usize::try_from(len).expect("it fits in memory")];
        self.disk.read(GuestOffset(at), &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn contents(&self) -> Result<Vec<u8>> {
        self.read(0, self.disk.size())
    }

    /// Compares the whole disk with the model.
    pub(super) fn assert_holds(&self, model: &ByteModel, when: &dyn std::fmt::Debug) {
        let found = self.contents().expect("everything can be read");
        assert_same(&found, &model.contents(), 0, when);
    }
}

fn layered(top: Layer, base: Option<&[u8]>) -> Disk {
    let mut layers = vec![top];
    if let Some(bytes) = base {
        let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
        let image = Arc::new(PlainImage::new(store).expect("memory has a length"));
        layers.push(Layer::new(image, "below"));
    }
    Disk::from_layers(layers, &Limits::default())
}

/// A range of a disk.
pub(super) fn range(at: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(at), len).expect("a range of a small disk")
}

/// Fails with the first byte that differs.
pub(super) fn assert_same(found: &[u8], expected: &[u8], at: u64, when: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{when:?}: bytes read");
    if found != expected {
        let index = found.iter().zip(expected).position(|(a, b)| a != b).expect("they differ");
        let (found, expected) = (found[index], expected[index]);
        panic!(
            "{when:?}: the byte at {:#x} is {found:#x}, expected {expected:#x}",
            at + index as u64
        );
    }
}

/// `units` and a half, and a little, in sizes the format can have: the last unit is a partial one.
pub(super) fn odd_size(fixture: &dyn Fixture, units: u64) -> u64 {
    let (unit, step) = (fixture.unit(), fixture.granularity());
    ((units * unit + unit / 2 + 7) / step * step).max(step)
}

/// Bytes of no pattern, none of them zero.
pub(super) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("it fits in memory")];
    Random::new(seed).fill(&mut bytes);
    bytes
}

/// Says aloud that a test has nothing to test.
pub(super) fn skipped(fixture: &dyn Fixture, what: &str) {
    eprintln!("skipped: {fixture:?} has no {what}");
}
