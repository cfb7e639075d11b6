//! What several tests use.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, Disk, Format, HostOffset, Image, Layer, Limits, Location, OpenRequest, Result,
    Storage,
};
use anydisk_parallels::PARALLELS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::suite::Fixture;

/// An image made by hand, of nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByHand {
    pub(crate) magic: &'static [u8; 16],
    /// Sectors of a cluster.
    pub(crate) tracks: u32,
    /// Sectors of the disk.
    pub(crate) sectors: u32,
    /// Where clusters begin, in sectors.
    pub(crate) data_off: u32,
    pub(crate) in_use: u32,
}

impl ByHand {
    /// As old versions of Parallels made them, with an odd number of sectors in a cluster.
    pub(crate) const OLD: Self = Self {
        magic: b"WithoutFreeSpace",
        tracks: 3,
        sectors: 128,
        data_off: 0,
        in_use: u32::from_le_bytes(*b"pd17"),
    };

    /// As new ones make them.
    pub(crate) const NEW: Self = Self {
        magic: b"WithouFreSpacExt",
        tracks: 2,
        data_off: 2,
        in_use: u32::from_le_bytes(*b"v2.1"),
        ..Self::OLD
    };

    pub(crate) fn entries(self) -> u32 {
        self.sectors.div_ceil(self.tracks)
    }

    /// The file: header and table, no cluster.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut file = self.magic.to_vec();
        let numbers = [2, 16, 1, self.tracks, self.entries(), self.sectors, 0];
        let rest = [self.in_use, self.data_off, 0, 0, 0];
        numbers.iter().chain(&rest).for_each(|number| file.extend(number.to_le_bytes()));
        let end = 64 + 4 * usize::try_from(self.entries()).expect("small");
        let first = usize::try_from(self.data_off).expect("small") * 512;
        file.resize(end.next_multiple_of(512).max(first), 0);
        file
    }

    /// The same in memory, with entries of the table and so many sectors of ones behind all.
    pub(crate) fn store(self, entries: &[u32], sectors: usize) -> Arc<MemoryStorage> {
        let mut bytes = self.bytes();
        for (entry, place) in entries.iter().zip(bytes[64..].chunks_mut(4)) {
            place.copy_from_slice(&entry.to_le_bytes());
        }
        bytes.resize(bytes.len() + 512 * sectors, 1);
        Arc::new(MemoryStorage::new(bytes))
    }
}

impl Fixture for ByHand {
    fn create(&self, store: Arc<dyn Storage>, size: u64, _: Below) -> Result<Arc<dyn Image>> {
        let sectors = u32::try_from(size / 512).expect("a small disk");
        store.write_at(HostOffset::ZERO, &Self { sectors, ..*self }.bytes())?;
        store.flush()?;
        self.open(store, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        image(store, access)
    }

    fn unit(&self) -> u64 {
        u64::from(self.tracks) * 512
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        damage(&*store)
    }
}

pub(crate) fn image(store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
    let (here, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest { access, ..OpenRequest::new(store, &here, &limits) };
    Ok(PARALLELS.open(request)?.image)
}

pub(crate) fn open(store: &Arc<MemoryStorage>, access: Access) -> Result<Disk> {
    let layer = Layer::new(image(store.clone(), access)?, "image");
    Ok(Disk::from_layers(vec![layer], &Limits::default()))
}

/// The number of four bytes at `at`.
pub(crate) fn number_at(store: &dyn Storage, at: u64) -> u32 {
    let mut bytes = [0; 4];
    assert_eq!(store.read_at(HostOffset(at), &mut bytes).expect("it is read"), 4);
    u32::from_le_bytes(bytes)
}

/// Looks for damage with a reader of its own: every cluster that is named lies in the file behind the
/// table, where a cluster can be, and is named once.
pub(crate) fn damage(store: &dyn Storage) -> Result<(), String> {
    let [tracks, entries, data_off] = [28, 32, 48].map(|at| u64::from(number_at(store, at)));
    let is_old = number_at(store, 12) == u32::from_le_bytes(*b"pace");
    let data_off = if data_off == 0 { (64 + 4 * entries).div_ceil(512) } else { data_off };
    let len = store.len().map_err(|error| error.to_string())?;
    let mut seen = std::collections::HashSet::new();
    for number in 0..entries {
        let entry = u64::from(number_at(store, 64 + 4 * number));
        let sector = if is_old { entry } else { entry * tracks };
        let is_good =
            sector >= data_off && (sector - data_off).is_multiple_of(tracks) && sector * 512 < len;
        if entry != 0 && !(is_good && seen.insert(entry)) {
            return Err(format!("cluster {number} is at {entry}, in {len} bytes"));
        }
    }
    Ok(())
}
