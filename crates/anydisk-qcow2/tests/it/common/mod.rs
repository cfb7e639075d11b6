//! What the tests of writing share.
use std::path::Path;
use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, GuestRange, HostOffset, Image, Layer, Limits,
    Location, NoReferences, NoSecrets, OpenRequest, Options, Placement, Result, Storage,
    StorageExt,
};
use anydisk_qcow2::{Geometry, Header, L1Entry, L2Entry, QCOW2};
use anydisk_storage::MemoryStorage;

/// Creation options, given as name and value.
pub(crate) type Given<'a> = &'a [(&'a str, &'a str)];

/// Makes an image and opens it for writing.
pub(crate) fn try_create(
    store: Arc<dyn Storage>,
    size: u64,
    given: Given<'_>,
) -> Result<Arc<dyn Image>> {
    let mut options = Options::of(&QCOW2);
    for (name, value) in given {
        options.set(name, value)?;
    }
    let location = Location::Other("test".into());
    let limits = Limits::default();
    QCOW2.create(CreateRequest::new(store, &location, size, &options, &limits))
}

pub(crate) fn create(store: &Arc<dyn Storage>, size: u64, given: Given<'_>) -> Arc<dyn Image> {
    try_create(Arc::clone(store), size, given).expect("an image can be made")
}

pub(crate) fn try_open(store: &Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
    let request = OpenRequest {
        store: Arc::clone(store),
        location: &Location::Other("test".into()),
        access,
        resolver: &NoReferences,
        limits: &Limits::default(),
        secrets: &NoSecrets,
    };
    Ok(QCOW2.open(request)?.image)
}

pub(crate) fn open(store: &Arc<dyn Storage>) -> Arc<dyn Image> {
    try_open(store, Access::ReadWrite).expect("the image opens")
}

pub(crate) fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

/// A disk of an image, over another one if there is one.
pub(crate) fn disk(image: &Arc<dyn Image>, below: Option<Arc<dyn Image>>) -> Disk {
    let mut layers = vec![Layer::new(Arc::clone(image), "top")];
    layers.extend(below.map(|image| Layer::new(image, "below")));
    Disk::from_layers(layers, &Limits::default())
}

pub(crate) fn range(at: u64, len: u64) -> GuestRange {
    GuestRange::new(GuestOffset(at), len).expect("small numbers")
}

/// Writes the unit at `at` packed; false if it does not get smaller.
pub(crate) fn write_packed(image: &dyn Image, at: u64, data: &[u8]) -> bool {
    let writer = image.writer().expect("open for writing");
    let packing = writer.packing().expect("qcow2 packs");
    let mut packed = Vec::new();
    let limit = usize::try_from(packing.unit).expect("small");
    if !packing.encoder.encode(data, limit, &mut packed).expect("it encodes") {
        return false;
    }
    let unit = range(at, packing.unit).before(GuestOffset(image.size()));
    let placed = writer.place_encoded(unit, packed.len()).expect("there is space");
    let Placement::Fresh(reservation) = placed else { panic!("never in place") };
    reservation.store().write_at(reservation.at(), &packed).expect("a write to memory");
    reservation.commit().expect("the tables learn of it");
    true
}

/// What a file says of itself, read without the code under test.
pub(crate) struct Dump<'a> {
    store: &'a dyn Storage,
    pub(crate) header: Header,
}

impl<'a> Dump<'a> {
    pub(crate) fn of(store: &'a dyn Storage) -> Self {
        let header = Header::read(store, &Limits::default()).expect("a header");
        Self { store, header }
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.store.read_padded_at(HostOffset(at), &mut bytes).expect("it can be read");
        u64::from_be_bytes(bytes)
    }

    /// Where the L2 entry of a guest offset is, if there is a table.
    pub(crate) fn place_of_entry(&self, guest: u64) -> Option<u64> {
        let geometry = Geometry::new(&self.header);
        let l1 = guest >> geometry.l2_coverage_bits();
        let table = L1Entry(self.word(self.header.l1_table_offset.get() + l1 * 8)).table()?;
        let inside = guest & ((1 << geometry.l2_coverage_bits()) - 1);
        let len = if self.header.has_extended_l2() { 16 } else { 8 };
        Some(table.get() + (inside >> geometry.cluster_bits()) * len)
    }

    /// The L2 entry of a guest offset; zeroes where there is no table.
    pub(crate) fn entry(&self, guest: u64) -> L2Entry {
        let extended = self.header.has_extended_l2();
        let Some(at) = self.place_of_entry(guest) else { return L2Entry::default() };
        let bitmap = if extended { self.word(at + 8) } else { 0 };
        L2Entry { word: self.word(at), bitmap }
    }

    /// The 16 bit refcount of a host cluster.
    pub(crate) fn refcount(&self, host: u64) -> u64 {
        self.place_of_count(host).map_or(0, |at| self.word(at) >> 48)
    }

    /// Where the 16 bit refcount of a host cluster is, if there is a block for it.
    pub(crate) fn place_of_count(&self, host: u64) -> Option<u64> {
        let bits = self.header.cluster_bits;
        assert_eq!(self.header.refcount_order, 4);
        let (cluster, per_block) = (host >> bits, 1 << (bits - 1));
        let block = self.word(self.header.refcount_table_offset.get() + cluster / per_block * 8);
        (block != 0).then(|| block + cluster % per_block * 2)
    }
}

/// Copies all bytes of a store to a file.
pub(crate) fn save(store: &dyn Storage, path: &Path) {
    let mut bytes = vec![0; usize::try_from(store.len().expect("a length")).expect("small")];
    store.read_padded_at(HostOffset::ZERO, &mut bytes).expect("it can be read");
    std::fs::write(path, bytes).expect("there is room");
}

/// The bytes of a file in memory.
pub(crate) fn load(path: &Path) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new(std::fs::read(path).expect("the file is there")))
}
