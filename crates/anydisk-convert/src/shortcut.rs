//! What a copy need not move: blocks that two files can share, and units that are packed already.

use std::sync::{Mutex, PoisonError};

use anydisk_core::{Codec, Encoded, Extent, GuestRange, HostOffset, Packing, Source, Storage};
use anydisk_storage::Identity;

use crate::source::Content;
use crate::{Offload, Settings};

/// File systems share in blocks of this many bytes, or smaller ones.
const BLOCK: u64 = 4096;

/// Below this many bytes it costs less to copy than to share.
const WORTH_SHARING: u64 = 64 << 10;

/// What the target can take as it is.
#[derive(Debug)]
pub(crate) struct Shortcuts<'a> {
    /// The store that all data goes to, if it takes bytes from other stores by itself.
    store: Option<&'a dyn Storage>,
    offload: Offload,
    /// How the target packs, and units of how many bytes.
    packing: Option<(Codec, u64)>,
    /// The files of the source that were asked whether they share blocks with the store.
    asked: Mutex<Vec<(Identity, bool)>>,
}

impl<'a> Shortcuts<'a> {
    /// For data that goes to `store`, or is packed.
    pub(crate) fn new(
        store: Option<&'a dyn Storage>,
        packing: Option<&Packing>,
        settings: &Settings,
    ) -> Self {
        // What is packed on the way is no copy of the source's bytes.
        let store = store.filter(|store| packing.is_none() && store.copier().is_some());
        let packing = packing.map(|packing| (packing.encoder.codec(), packing.unit));
        Self { store, offload: settings.offload, packing, asked: Mutex::default() }
    }

    /// What the start of `range` of the copy is, where the source has an extent that begins at
    /// `inside` of its disk.
    pub(crate) fn of(&self, range: GuestRange, inside: GuestRange, extent: &Extent<'_>) -> Content {
        match &extent.source {
            Source::Data { store, at, .. }
                if extent.len >= WORTH_SHARING && self.takes(&***store, *at, range) =>
            {
                Content::Same
            }
            Source::Encoded(encoded) if self.passes(encoded, range, inside) => Content::Packed,
            _ => Content::Data,
        }
    }

    fn takes(&self, source: &dyn Storage, at: HostOffset, range: GuestRange) -> bool {
        let lies_alike = (at.get() ^ range.start().get()) & (BLOCK - 1) == 0;
        let Some(store) = self.store.filter(|_| lies_alike && source.fd().is_some()) else {
            return false;
        };
        match self.offload {
            Offload::No => false,
            Offload::Kernel => true,
            Offload::Share => self.shares(store, source),
        }
    }

    /// The answer for a pair of files is always the same, so the plan is as well.
    fn shares(&self, store: &dyn Storage, source: &dyn Storage) -> bool {
        let Some(identity) = source.identity() else { return false };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = asked.iter().find(|(known, _)| *known == identity) {
            return *answer;
        }
        let answer = store.copier().is_some_and(|copier| copier.shares_with(source));
        asked.push((identity, answer));
        answer
    }

    fn passes(&self, encoded: &Encoded<'_>, range: GuestRange, inside: GuestRange) -> bool {
        self.packing.as_ref().is_some_and(|(codec, unit)| {
            let lies_alike = (range.start().get() ^ inside.start().get()) & (unit - 1) == 0;
            lies_alike && encoded.unit.len() == *unit && encoded.codec.same_as(codec)
        })
    }
}
