//! How the data lies in the file: a line where it lies in order, a cloud where it does not.

use super::column;
use super::paint::{Paint, Runs};
use crate::extents::Entry;
use crate::output::human;
use crate::picture::Cell;

const COLUMNS: usize = 192;
const ROWS: usize = 64;
const ROW: usize = 3;

/// The data of the top image, by its place on the disk and in the file.
#[derive(Debug)]
pub(super) struct Host {
    /// Bytes of the disk.
    len: u64,
    /// Bytes of the file that a row stands for, a power of two.
    scale: u64,
    seen: Vec<[bool; COLUMNS]>,
    pieces: u64,
    /// Pieces that lie before the one that they follow on the disk.
    jumps: u64,
    bytes: u64,
    packed: u64,
    /// Bytes of data that have no place in one file, as those of volumes.
    elsewhere: u64,
    expected: Option<u64>,
}

impl Host {
    pub(super) fn new(len: u64) -> Self {
        Self {
            len,
            scale: 1,
            seen: vec![[false; COLUMNS]; ROWS],
            pieces: 0,
            jumps: 0,
            bytes: 0,
            packed: 0,
            elsewhere: 0,
            expected: None,
        }
    }

    /// Notes a run of data that begins at byte `from` of what is drawn.
    pub(super) fn add(&mut self, entry: &Entry, from: u64) {
        if entry.depth > 0 {
            return;
        }
        let Some(at) = entry.offset else {
            *(if entry.compressed { &mut self.packed } else { &mut self.elsewhere }) +=
                entry.length;
            return;
        };
        self.pieces += 1;
        self.bytes += entry.length;
        self.jumps += u64::from(self.expected.is_some_and(|expected| at < expected));
        let end = at.saturating_add(entry.length);
        self.expected = Some(end);
        self.make_room(end);
        let (first, last) =
            (column(from, self.len, COLUMNS), column(from + entry.length - 1, self.len, COLUMNS));
        // A run is a straight line: each column holds a part of it.
        let width = u128::from(self.len.max(1));
        for here in first..=last {
            let starts =
                u64::try_from((here as u128 * width).div_ceil(COLUMNS as u128)).unwrap_or(0);
            let ends = u64::try_from(((here + 1) as u128 * width).div_ceil(COLUMNS as u128));
            let ends = ends.unwrap_or(u64::MAX);
            let low = at + starts.saturating_sub(from).min(entry.length - 1);
            let high = at + (ends.saturating_sub(from).clamp(1, entry.length) - 1);
            for row in low / self.scale..=high / self.scale {
                if let Some(row) = usize::try_from(row).ok().and_then(|row| self.seen.get_mut(row))
                {
                    row[here] = true;
                }
            }
        }
    }

    /// Makes the rows stand for more, until byte `end` of the file has one.
    fn make_room(&mut self, end: u64) {
        while end > self.scale.saturating_mul(ROWS as u64) && self.scale < 1 << 62 {
            self.scale *= 2;
            for row in 0..ROWS {
                let halves = [self.seen.get(2 * row).copied(), self.seen.get(2 * row + 1).copied()];
                let mut joined = [false; COLUMNS];
                for half in halves.into_iter().flatten() {
                    joined.iter_mut().zip(half).for_each(|(one, other)| *one |= other);
                }
                self.seen[row] = joined;
            }
        }
    }

    pub(super) fn draw(&self, paint: &mut Paint, left: usize, width: usize) {
        if self.pieces == 0 {
            return;
        }
        paint.section("How it lies in the file: from left to right the disk, downward the file");
        let (top, cell) = (paint.y(), width / COLUMNS);
        paint.frame([left, top], [COLUMNS * cell, ROWS * ROW]);
        let mut runs = Runs::default();
        for (number, row) in self.seen.iter().enumerate() {
            for (column, _) in row.iter().enumerate().filter(|(_, seen)| **seen) {
                runs.add(Cell::Data, [left + column * cell, top + number * ROW], [cell, ROW]);
            }
        }
        runs.draw(paint);
        for row in [0, ROWS / 2, ROWS] {
            let at = self.scale.saturating_mul(row as u64);
            paint.label([left - 8, top + row * ROW + 8], "end", &human::size(at));
        }
        paint.down(ROWS * ROW + 4);
        paint.note(left, &self.words());
    }

    /// The same in words.
    pub(super) fn words(&self) -> String {
        let average = human::size(self.bytes / self.pieces.max(1));
        let mut words = match (self.pieces, self.jumps) {
            (0, _) => String::new(),
            (1, _) => "The file holds the data in one piece.".into(),
            (pieces, 0) => format!("The file holds {pieces} pieces of data, all in order."),
            (pieces, jumps) => format!(
                "The file holds {pieces} pieces of data of {average} on average; before the \
                 one that it follows on the disk: {jumps}."
            ),
        };
        if self.packed > 0 {
            let packed = human::size(self.packed);
            words.push_str(&format!(" {packed} more are packed, and not shown by place."));
        }
        if self.elsewhere > 0 {
            let elsewhere = human::size(self.elsewhere);
            words.push_str(&format!(" {elsewhere} more have no place in one file."));
        }
        words.trim_start().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, length: u64, offset: u64) -> Entry {
        Entry { start, length, offset: Some(offset), data: true, present: true, ..Entry::default() }
    }

    #[test]
    fn a_disk_in_order_is_a_diagonal() {
        let mut host = Host::new(1 << 20);
        host.add(&run(0, 1 << 20, 0), 0);
        assert!(host.seen[0][0] && host.seen[ROWS - 1][COLUMNS - 1]);
        assert!(!host.seen[0][COLUMNS - 1] && !host.seen[ROWS - 1][0]);
        assert_eq!(host.words(), "The file holds the data in one piece.");
    }

    #[test]
    fn pieces_out_of_order_are_counted() {
        let mut host = Host::new(1 << 20);
        host.add(&run(0, 4096, 65536), 0);
        host.add(&run(4096, 4096, 69632), 4096);
        host.add(&run(8192, 4096, 4096), 8192);
        assert_eq!((host.pieces, host.jumps), (3, 1));
        // The farthest place of a file has a row.
        host.add(&run(12288, 4096, u64::MAX - 8191), 12288);
        assert!(host.scale >= 1 << 57);
    }
}
