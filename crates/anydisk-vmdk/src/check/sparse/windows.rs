//! A file that is looked at part by part.

use std::ops::Range;

use anydisk_core::HostOffset;

use super::super::occupied::Occupied;
use crate::layout::SECTOR;

/// The parts of a file that are looked at one by one.
pub(super) struct Windows {
    /// Sectors of the file.
    sectors: u64,
    /// Sectors of a window.
    each: u64,
    /// Whether a grain or a table lies in it.
    pub(super) touched: Vec<bool>,
}

impl Windows {
    /// Windows of a file that ends at `end`, whose bits take `memory` bytes at most.
    pub(super) fn new(end: HostOffset, memory: usize) -> Self {
        let sectors = end.get().div_ceil(SECTOR);
        let each = (memory as u64 * 8).max(1 << 20);
        let count = usize::try_from(sectors.div_ceil(each).max(1)).unwrap_or(usize::MAX);
        Self { sectors, each, touched: vec![false; count] }
    }

    /// Number of windows.
    pub(super) fn count(&self) -> usize {
        self.touched.len()
    }

    /// A window in which nothing is in use.
    pub(super) fn occupied(&self, number: usize) -> Occupied {
        let start = number as u64 * self.each;
        Occupied::new(start..self.sectors.min(start + self.each))
    }

    /// Something lies in these sectors.
    pub(super) fn touch(&mut self, sectors: &Range<u64>) {
        let windows = sectors.start / self.each..sectors.end.div_ceil(self.each);
        for window in windows.take(self.touched.len()) {
            let window = usize::try_from(window).unwrap_or(usize::MAX);
            if let Some(touched) = self.touched.get_mut(window) {
                *touched = true;
            }
        }
    }
}
