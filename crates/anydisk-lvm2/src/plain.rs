//! The mappings that are arithmetic: one area, stripes, zeroes, errors, and parts laid end to end.

use std::sync::Arc;

use anydisk_core::{Error, HostOffset, MappedFrom, MappedPiece, Mapping, Result, Storage};

/// A part of a store, opened and known to hold what is asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) store: Arc<dyn Storage>,
    pub(crate) at: HostOffset,
}

impl Part {
    /// All of a store.
    pub(crate) fn whole(store: Arc<dyn Storage>) -> Self {
        Self { store, at: HostOffset::ZERO }
    }

    pub(crate) fn place(&self, at: u64) -> MappedFrom<'_> {
        MappedFrom::Store(&self.store, self.at.saturating_add(at))
    }
}

/// One area.
#[derive(Debug)]
pub(crate) struct Linear(pub(crate) Part);

/// Several areas in turns of `chunk` bytes.
#[derive(Debug)]
pub(crate) struct Striped {
    pub(crate) chunk: u64,
    pub(crate) parts: Vec<Part>,
}

/// Zeroes.
#[derive(Debug)]
pub(crate) struct Zero;

/// Every read fails.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) volume: String,
    pub(crate) why: &'static str,
}

/// Mappings laid end to end.
#[derive(Debug)]
pub(crate) struct Row {
    /// Where each begins, the first at 0, and the mapping.
    pub(crate) parts: Vec<(u64, Box<dyn Mapping>)>,
}

impl Mapping for Linear {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        Ok(MappedPiece { len: limit, from: self.0.place(at) })
    }
}

impl Mapping for Striped {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let (chunk, within) = (at / self.chunk, at % self.chunk);
        let count = self.parts.len() as u64;
        let index = usize::try_from(chunk % count).unwrap_or(0);
        let place = chunk / count * self.chunk + within;
        Ok(MappedPiece {
            len: limit.min(self.chunk - within),
            from: self.parts[index].place(place),
        })
    }
}

impl Mapping for Zero {
    fn locate(&self, _: u64, limit: u64) -> Result<MappedPiece<'_>> {
        Ok(MappedPiece { len: limit, from: MappedFrom::Zero })
    }
}

impl Mapping for Failing {
    fn locate(&self, _: u64, _: u64) -> Result<MappedPiece<'_>> {
        let (what, name) = ("logical volume", self.volume.clone());
        Err(Error::Unusable { what, name, why: self.why.into() })
    }
}

impl Row {
    /// The part at `at`, where it begins, and how many bytes from `at` are its own (unbounded for
    /// the last one).
    fn part(&self, at: u64) -> (&dyn Mapping, u64, u64) {
        let next = self.parts.partition_point(|(start, _)| *start <= at);
        let (start, mapping) = &self.parts[next.saturating_sub(1)];
        let end = self.parts.get(next).map_or(u64::MAX, |(start, _)| *start);
        (&**mapping, *start, end - at)
    }
}

impl Mapping for Row {
    fn locate(&self, at: u64, limit: u64) -> Result<MappedPiece<'_>> {
        let (mapping, start, room) = self.part(at);
        mapping.locate(at - start, limit.min(room))
    }

    fn compute(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let (mapping, start, _) = self.part(at);
        mapping.compute(at - start, buf)
    }
}
