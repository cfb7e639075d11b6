//! The image: where is this sector (memory), answer (pure).

use std::sync::Arc;

use anydisk_core::{
    Encoded, Extent, GuestRange, HostOffset, Image, ImageInfo, Lease, Lookup, Need, OpenRequest,
    Result, Source, Storage, StorageExt, Supplied,
};

use crate::layout::SECTOR;
use crate::map::ChunkMap;
use crate::table::{Chunk, ChunkKind, Table};
use crate::{EncryptedHeader, NAME, Trailer, encrypted, tables};

/// An open UDIF image.
#[derive(Debug)]
pub struct DmgImage {
    store: Arc<dyn Storage>,
    trailer: Option<Trailer>,
    sectors: u64,
    map: ChunkMap,
    encrypted: bool,
}

/// What an image is made of.
pub(crate) struct Parts {
    /// Its bytes, decrypted.
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) encrypted: bool,
    /// What only a plain disk, encrypted as it is, is without.
    pub(crate) trailer: Option<Trailer>,
    pub(crate) tables: Vec<Table>,
}

impl Parts {
    /// Reads those of the image of the request.
    pub(crate) fn read(request: &OpenRequest<'_>) -> Result<Self> {
        let mut head = [0; 8];
        request.store.read_padded_at(HostOffset::ZERO, &mut head)?;
        let encrypted = EncryptedHeader::is_at(&head);
        let store = match encrypted {
            true => encrypted::open(request)?,
            false => Arc::clone(&request.store),
        };
        let trailer = match encrypted {
            true => Trailer::find(&*store)?,
            false => Some(Trailer::read(&*store)?),
        };
        let tables = match &trailer {
            Some(trailer) => tables::read(&*store, trailer, request.limits)?,
            None => vec![Table::of_plain(store.len()?)],
        };
        Ok(Self { store, encrypted, trailer, tables })
    }
}

impl DmgImage {
    /// Opens the image of the request for reading. Reads all tables.
    ///
    /// # Errors
    /// As [`Trailer::read`] and [`Table::parse`]; [`Error::Secret`](anydisk_core::Error::Secret) for
    /// an encrypted image whose passphrase is missing or wrong; those of the store.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        Self::of(&Parts::read(request)?)
    }

    pub(crate) fn of(parts: &Parts) -> Result<Self> {
        let Parts { store, encrypted, trailer, tables } = parts;
        let last = tables.iter().map(|table| table.end).max().unwrap_or(0);
        let sectors = trailer.as_ref().and_then(|trailer| trailer.sectors).unwrap_or(last);
        Ok(Self {
            store: Arc::clone(store),
            trailer: trailer.clone(),
            sectors,
            map: ChunkMap::of(tables)?,
            encrypted: *encrypted,
        })
    }

    /// The trailer; `None` for a plain disk that was encrypted as it is.
    #[must_use]
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// The part of the chunk that `range` begins in.
    fn extent(&self, chunk: &Chunk, range: GuestRange) -> Extent<'_> {
        let unit = chunk.range();
        let within = range.start().get() - unit.start().get();
        let source = match (chunk.kind, chunk.kind.codec()) {
            (_, Some(codec)) => {
                let len = usize::try_from(chunk.len).unwrap_or(usize::MAX);
                Source::Encoded(Encoded { store: &self.store, at: chunk.at, len, codec, unit })
            }
            (ChunkKind::Raw, None) => {
                let at = chunk.at.saturating_add(within);
                Source::Data { store: &self.store, at, shared: false }
            }
            (ChunkKind::Free, None) => Source::Absent { reserved: None },
            (_, None) => Source::Zero { reserved: None },
        };
        // Nothing is freed while an image is only read.
        Extent { len: range.before(unit.end()).len(), source, lease: Lease::eternal() }
    }
}

impl Image for DmgImage {
    fn size(&self) -> u64 {
        self.sectors * SECTOR
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        Ok(Lookup::Found(match self.map.look(range) {
            Ok(chunk) => self.extent(chunk, range),
            Err(len) => Extent::without_data(len, Source::Absent { reserved: None }),
        }))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // All is in memory: nothing is ever needed.
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        info.encrypted = self.encrypted;
        info
    }
}
