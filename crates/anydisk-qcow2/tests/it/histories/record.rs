//! What a bitmap must and may have recorded.

use std::fmt::Debug;

use anydisk_core::{Bitmaps, Changes, GuestOffset, Result};
const SECTOR: u64 = 512;

/// A bitmap, by sectors.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) granularity: u64,
    pub(super) enabled: bool,
    /// Sectors that differ from what they were.
    must: Vec<bool>,
    /// Sectors that something was done to.
    may: Vec<bool>,
}

impl Record {
    pub(super) fn new(name: String, granularity: u64, enabled: bool, size: u64) -> Self {
        let none = vec![false; index(size)];
        Self { name, granularity, enabled, must: none.clone(), may: none }
    }

    pub(super) fn clear(&mut self) {
        self.must.fill(false);
        self.may.fill(false);
    }

    /// Something was done to a range, in units of `unit`.
    pub(super) fn touched(&mut self, at: u64, len: u64, unit: u64) {
        if !self.enabled || len == 0 {
            return;
        }
        let from = index(at / unit * unit);
        let to = index((at + len).next_multiple_of(unit)).min(self.may.len());
        self.may[from..to].fill(true);
    }

    /// From `at` on, where a sector begins, the disk held `old` and holds `new`.
    pub(super) fn changed(&mut self, at: u64, old: &[u8], new: &[u8]) {
        if !self.enabled {
            return;
        }
        let sectors = old.chunks(512).zip(new.chunks(512));
        for (must, (old, new)) in self.must[index(at)..].iter_mut().zip(sectors) {
            *must |= old != new;
        }
    }

    pub(super) fn resize(&mut self, size: u64) {
        // A bit that is cut by the end stays for what is left of it.
        let first = index(size / self.granularity * self.granularity).min(self.may.len());
        let behind = self.may.len().min(first + index(self.granularity));
        if self.may[first..behind].contains(&true) {
            self.may[first..behind].fill(true);
        }
        self.must.resize(index(size), false);
        self.may.resize(index(size), false);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, others) in [(&mut self.must, &other.must), (&mut self.may, &other.may)] {
            mine.iter_mut().zip(others).for_each(|(mine, other)| *mine |= *other);
        }
        // What came in may be as coarse as it was there.
        let coarse = other.granularity;
        let set: Vec<_> = (0..self.may.len()).filter(|sector| other.may[*sector]).collect();
        for sector in set {
            let at = sector as u64 * SECTOR / coarse * coarse;
            let to = index(at + coarse).min(self.may.len());
            self.may[index(at)..to].fill(true);
        }
    }

    pub(super) fn assert_told(&self, bitmaps: &dyn Bitmaps, when: &dyn Debug) {
        let mut changes = bitmaps.changes(&self.name).expect("it can be read");
        let told = told(&mut *changes, self.may.len()).expect("it can be read");
        let per_bit = index(self.granularity);
        for (number, bit) in told.chunks(per_bit).enumerate() {
            let sectors = number * per_bit..(number * per_bit + bit.len());
            let must = self.must[sectors.clone()].iter().any(|must| *must);
            let may = self.may[sectors].iter().any(|may| *may);
            let told = bit.iter().any(|told| *told);
            let name = &self.name;
            assert!(told || !must, "{when:?}: {name} does not tell bit {number}");
            assert!(may || !told, "{when:?}: {name} tells bit {number}, where nothing was done");
        }
    }
}

/// The sectors that a bitmap tells of.
fn told(changes: &mut dyn Changes, sectors: usize) -> Result<Vec<bool>> {
    let mut told = vec![false; sectors];
    let mut from = GuestOffset(0);
    while let Some(range) = changes.next(from)? {
        from = range.end();
        told[index(range.start().get())..index(range.end().get())].fill(true);
    }
    Ok(told)
}

/// The sector at a place.
fn index(at: u64) -> usize {
    usize::try_from(at / SECTOR).expect("small")
}
