//! An expandable image: what the core's table says, with the header around it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anydisk_core::{
    Bitmaps, BlockShape, BlockSpace, Compact, FlatTable, GuestRange, HostOffset, Image, ImageInfo,
    ImageWrite, Lookup, Need, OpenRequest, Pace, Resize, Result, Storage, Supplied, TableShape,
};

use crate::NAME;
use crate::extension::{self, Extension, StoredBitmap};
use crate::guard;
use crate::header::{HEADER_LEN, Header, TABLE, limit};
use crate::state::HeaderState;
use crate::table::Entries;

/// An expandable image: one file.
#[derive(Debug)]
pub struct ParallelsImage {
    pub(crate) header: Header,
    pub(crate) table: FlatTable<Entries>,
    pub(crate) state: HeaderState,
    pub(crate) extension: Option<Extension>,
    /// Held while the file is written back.
    pub(crate) round: Mutex<()>,
    writable: bool,
}

impl ParallelsImage {
    /// Opens the image that the request names.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid), `Unsupported` and `Limit` for what the
    /// header and the format extension say; opened for writing also `NeedsRepair` for a block table
    /// that must not be written by, and `ReadOnly`.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, false)
    }

    /// Opens an image that was just made.
    pub(crate) fn open_new(request: &OpenRequest<'_>) -> Result<Self> {
        Self::build(request, true)
    }

    fn build(request: &OpenRequest<'_>, is_new: bool) -> Result<Self> {
        let store = &request.store;
        let len = store.len()?;
        let bytes = header_bytes(&**store)?;
        let header = Header::parse(&bytes, len)?;
        let extension = extension::read(&header, &**store, len, request.limits)?;
        let writable = request.is_writable()?;
        let (space, pace) = match writable {
            true => {
                limit(
                    "size of a cluster to be written, in bytes",
                    header.cluster,
                    request.limits.unit,
                )?;
                guard::space(&header, extension.as_ref(), &**store, len, is_new)?
            }
            false => {
                let end = header.cluster_at(header.clusters_in(len));
                (BlockSpace::new(header.cluster, end), Pace::default())
            }
        };
        let table = FlatTable::new(
            Arc::clone(store),
            Entries::of(&header),
            BlockShape { unit: header.cluster, lead: 0 },
            TableShape {
                table: TABLE,
                entries: header.entries,
                size: header.size,
                first: header.first,
            },
            space,
            request.limits.table_cache,
        );
        let table = if writable { table.at_pace(pace) } else { table.for_reading() };
        let state = HeaderState::new(&bytes, &header);
        Ok(Self { header, table, state, extension, round: Mutex::default(), writable })
    }

    /// What a person should know of the image, though it opened.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(extension) = &self.extension else { return warnings };
        for other in &extension.others {
            warnings.push(format!("It has a feature {:#x} that is not known here.", other.magic));
        }
        if self.writable && !extension.bitmaps.is_empty() {
            let what = "Its dirty bitmaps are dropped with the first change";
            warnings.push(format!("{what}: nothing here keeps account of it."));
        }
        warnings
    }

    /// Where the last cluster ends, if the file ends in it; it need not be at a multiple of a cluster.
    fn loose_end(&self) -> u64 {
        let len = self.table.store().len().unwrap_or(0);
        let end = self.header.cluster_at(self.header.clusters_in(len)).get();
        if end > len { end } else { 0 }
    }

    /// The dirty bitmaps in the file.
    pub(crate) fn stored_bitmaps(&self) -> &[StoredBitmap] {
        self.extension.as_ref().map_or(&[], |extension| &extension.bitmaps)
    }

    pub(crate) fn lock_round(&self) -> MutexGuard<'_, ()> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a store that hold its header, fewer if it is shorter.
pub(crate) fn header_bytes(store: &dyn Storage) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_LEN];
    let count = store.read_at(HostOffset::ZERO, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

impl Image for ParallelsImage {
    fn size(&self) -> u64 {
        self.table.shape().size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        self.table.map_cached(range)
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        Ok(self.table.supply(need, bytes))
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.cluster_size = Some(self.header.cluster);
        info.dirty = self.state.is_open();
        info.loose_end = self.loose_end();
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.writable.then_some(self)
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.writable.then_some(self)
    }

    fn compactor(&self) -> Option<&dyn Compact> {
        self.writable.then_some(self)
    }

    fn bitmaps(&self) -> Option<&dyn Bitmaps> {
        (!self.writable && !self.stored_bitmaps().is_empty()).then_some(self)
    }
}
