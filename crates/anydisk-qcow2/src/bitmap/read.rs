//! What a bitmap says, as ranges of the disk, read as it is asked for.

use std::sync::Arc;

use anydisk_core::{
    BitmapInfo, Bitmaps, Changes, Error, GuestOffset, GuestRange, Lease, NewBitmap, Result,
    StorageExt,
};

use super::BitmapEntry;
use super::bits::Bits;
use super::directory::{Part, Scale};
use super::keeper::{inconsistent, not_found};
use crate::Qcow2Image;
use crate::image::Shared;

/// The ranges of one bitmap.
#[derive(Debug)]
pub(super) struct BitmapChanges<'a> {
    shared: &'a Shared,
    entry: BitmapEntry,
    scale: Scale,
    /// Bits that may not be in the file yet.
    bits: Option<Arc<Bits>>,
    /// The cluster of bits that was looked at last.
    cluster: Option<(u64, Cluster)>,
    /// Keeps the clusters from being used for other data.
    _lease: Lease<'a>,
}

/// Some of the bits in the file.
#[derive(Debug)]
enum Cluster {
    All(bool),
    Bytes(Vec<u8>),
}

impl<'a> BitmapChanges<'a> {
    /// The lease must have been taken before the entry was looked at.
    pub(super) fn new(
        shared: &'a Shared,
        lease: Lease<'a>,
        entry: BitmapEntry,
        bits: Option<Arc<Bits>>,
    ) -> Self {
        let scale = entry.scale(shared.size(), shared.geometry.cluster_bits());
        Self { shared, entry, scale, bits, cluster: None, _lease: lease }
    }

    fn cluster_of(&self, word: u64) -> u64 {
        word >> (self.scale.cluster_bits - 3)
    }

    /// Reads a cluster of bits, unless it is the one that was read last.
    fn load(&mut self, number: u64) -> Result<&Cluster> {
        if self.cluster.as_ref().is_none_or(|(loaded, _)| *loaded != number) {
            self.cluster = Some((number, self.read(number)?));
        }
        Ok(self.cluster.as_ref().map_or(&Cluster::All(false), |(_, cluster)| cluster))
    }

    fn read(&self, number: u64) -> Result<Cluster> {
        if number >= u64::from(self.entry.table_entries) {
            return Ok(Cluster::All(false));
        }
        let store = &self.shared.store;
        let part = read_part(&**store, &self.entry, number, self.scale.cluster_bits)?;
        Ok(match part {
            Part::Zeroes => Cluster::All(false),
            Part::Ones => Cluster::All(true),
            Part::At(at) => {
                let len = usize::try_from(self.shared.geometry.cluster_size()).expect("2 MiB");
                let mut bytes = vec![0; len];
                store.read_padded_at(at, &mut bytes)?;
                Cluster::Bytes(bytes)
            }
        })
    }

    /// The 64 bits of word `number`.
    fn word(&mut self, number: u64) -> Result<u64> {
        let known = self.bits.as_ref().map_or(0, |bits| bits.word(number));
        let inside = number & ((1 << (self.scale.cluster_bits - 3)) - 1);
        let in_file = match self.load(self.cluster_of(number))? {
            Cluster::All(set) => {
                if *set {
                    u64::MAX
                } else {
                    0
                }
            }
            Cluster::Bytes(bytes) => {
                let (words, _) = bytes.as_chunks::<8>();
                let index = usize::try_from(inside).unwrap_or(usize::MAX);
                words.get(index).map_or(0, |word| u64::from_le_bytes(*word))
            }
        };
        Ok(known | in_file)
    }

    /// Whether every bit of the cluster that word `number` lies in is `set`, without looking at each.
    fn is_plain(&mut self, number: u64, set: bool) -> Result<bool> {
        let cluster = self.cluster_of(number);
        let (first, len) = (cluster << self.scale.cluster_bits, 1 << self.scale.cluster_bits);
        let untouched = self.bits.as_ref().is_none_or(|bits| bits.knows_nothing(first, len));
        let all = matches!(self.load(cluster)?, Cluster::All(all) if *all == set);
        Ok(all && (set || untouched))
    }

    /// The first bit from `from` on that is `set`, or clear.
    fn find(&mut self, from: u64, set: bool) -> Result<Option<u64>> {
        let (bits, mut at) = (self.scale.bits(), from);
        while at < bits {
            let number = at / 64;
            if self.is_plain(number, !set)? {
                at = (self.cluster_of(number) + 1) << (self.scale.cluster_bits + 3);
                continue;
            }
            let word = if set { self.word(number)? } else { !self.word(number)? };
            let word = word & (u64::MAX << (at % 64));
            if word != 0 {
                let found = number * 64 + u64::from(word.trailing_zeros());
                return Ok((found < bits).then_some(found));
            }
            at = (number + 1) * 64;
        }
        Ok(None)
    }
}

/// What the table says about cluster `number` of the bits.
pub(super) fn read_part(
    store: &dyn anydisk_core::Storage,
    entry: &BitmapEntry,
    number: u64,
    cluster_bits: u32,
) -> Result<Part> {
    let at = entry.table_entry(number);
    let mut word = [0; 8];
    store.read_padded_at(at, &mut word)?;
    Part::of(u64::from_be_bytes(word), at, cluster_bits)
}

impl Changes for BitmapChanges<'_> {
    fn size(&self) -> u64 {
        self.scale.size
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let bits = self.scale.granularity_bits;
        let Some(first) = self.find(from.get() >> bits, true)? else { return Ok(None) };
        let end = self.find(first + 1, false)?.unwrap_or(self.scale.bits());
        let start = GuestOffset((first << bits).max(from.get()));
        let end = GuestOffset(end.checked_shl(bits).unwrap_or(u64::MAX).min(self.scale.size));
        Ok(Some(GuestRange::between(start, end)).filter(|range| !range.is_empty()))
    }
}

/// An image that is open for reading only tells.
impl Bitmaps for Qcow2Image {
    fn list(&self) -> Result<Vec<BitmapInfo>> {
        Ok(self.bitmaps.entries.iter().map(BitmapEntry::info).collect())
    }

    fn add(&self, _: &NewBitmap) -> Result<()> {
        Err(read_only())
    }

    fn remove(&self, _: &str) -> Result<()> {
        Err(read_only())
    }

    fn clear(&self, _: &str) -> Result<()> {
        Err(read_only())
    }

    fn set_enabled(&self, _: &str, _: bool) -> Result<()> {
        Err(read_only())
    }

    fn merge(&self, _: &str, _: &mut dyn Changes) -> Result<()> {
        Err(read_only())
    }

    fn changes(&self, name: &str) -> Result<Box<dyn Changes + '_>> {
        let found = self.bitmaps.entries.iter().find(|entry| entry.display_name() == name);
        let entry = found.ok_or_else(|| not_found(name))?;
        if entry.is_in_use() {
            return Err(inconsistent(name));
        }
        let lease = self.shared.leases.take();
        Ok(Box::new(BitmapChanges::new(&self.shared, lease, entry.clone(), None)))
    }
}

fn read_only() -> Error {
    Error::ReadOnly { why: "it was opened for reading".into() }
}
