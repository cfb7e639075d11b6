//! The disk drawn into a file of its own: what is where, which image it comes from, how it lies in
//! the file.
//!
//! The drawing has a bounded size whatever the disk, holds no script and asks for no other file,
//! and is the same each time. Colours are told apart by those who see few of them (Okabe and Ito's),
//! and what is packed is hatched as well.

mod host;
mod paint;

use anydisk::{Disk, GuestRange};

use crate::extents::Entry;
use crate::output::human;
use crate::picture::Cell;
use host::Host;
use paint::{Paint, text_of};

/// Cells of the disk: columns and rows.
const COLUMNS: usize = 96;
const ROWS: usize = 16;
/// Images of a chain that are shown by themselves.
const LAYERS: usize = 6;
const KINDS: usize = Cell::ALL.len();

/// Pixels.
const WIDTH: usize = 960;
const LEFT: usize = 88;
const CELL: [usize; 2] = [8, 14];
/// Levels to which a cell is filled.
const LEVELS: u64 = 4;

/// A drawing.
#[derive(Debug)]
pub(crate) struct Drawing {
    name: String,
    facts: String,
    start: u64,
    len: u64,
    /// Bytes that a cell stands for.
    piece: u64,
    /// Bytes of each kind in each cell.
    cells: Vec<[u64; KINDS]>,
    layers: Vec<Strip>,
    host: Host,
}

/// Where an image of the chain gives what is seen.
#[derive(Debug)]
struct Strip {
    name: String,
    bytes: u64,
    columns: [bool; COLUMNS],
}

impl Drawing {
    /// Of a part of a disk, with nothing on it yet.
    pub(crate) fn new(disk: &Disk, range: GuestRange) -> Self {
        let (start, len) = (range.start().get(), range.len());
        let info = disk.top().info();
        let layers = disk.layers();
        let mut facts = format!("{}, a disk of {}", info.format, human::size(disk.size()));
        if layers.len() > 1 {
            facts.push_str(&format!(", a chain of {} images", layers.len()));
        }
        if len != disk.size() {
            facts.push_str(&format!("; {} from {} on", human::size(len), human::size(start)));
        }
        let strip = |name: String| Strip { name, bytes: 0, columns: [false; COLUMNS] };
        let mut strips: Vec<_> = layers.iter().map(|one| strip(one.location.to_string())).collect();
        if strips.len() > LAYERS {
            strips.truncate(LAYERS - 1);
            strips.push(strip(format!("{} images further down", layers.len() + 1 - LAYERS)));
        }
        // No smaller than a sector: there is nothing to see in it.
        let piece = len.div_ceil((COLUMNS * ROWS) as u64).max(512);
        let count = usize::try_from(len.div_ceil(piece)).unwrap_or(COLUMNS * ROWS);
        Self {
            name: layers[0].location.to_string(),
            facts,
            start,
            len,
            piece,
            cells: vec![[0; KINDS]; count],
            layers: strips,
            host: Host::new(len),
        }
    }

    /// Draws a run.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let (from, to) = (entry.start - self.start, entry.end() - self.start);
        let kind = Cell::of(entry) as usize;
        let mut at = from;
        while at < to {
            let index = at / self.piece;
            let end = (index + 1).saturating_mul(self.piece).min(to);
            if let Some(cell) = usize::try_from(index).ok().and_then(|i| self.cells.get_mut(i)) {
                cell[kind] += end - at;
            }
            at = end;
        }
        if entry.data {
            self.add_to_layer(entry.depth, from, to);
            self.host.add(entry, from);
        }
    }

    fn add_to_layer(&mut self, depth: usize, from: u64, to: u64) {
        let len = self.len;
        let Some(last) = self.layers.len().checked_sub(1) else { return };
        let Some(strip) = self.layers.get_mut(depth.min(last)) else { return };
        strip.bytes += to - from;
        let (first, end) = (column(from, len, COLUMNS), column(to - 1, len, COLUMNS));
        strip.columns.iter_mut().take(end + 1).skip(first).for_each(|seen| *seen = true);
    }

    /// The whole file.
    pub(crate) fn text(&self) -> String {
        let mut paint = Paint::new(WIDTH);
        paint.heading(&self.name, &self.facts);
        self.draw_cells(&mut paint);
        self.draw_layers(&mut paint);
        self.host.draw(&mut paint, LEFT, COLUMNS * CELL[0]);
        self.draw_legend(&mut paint);
        paint.finish(&self.name, &self.summary())
    }

    fn draw_cells(&self, paint: &mut Paint) {
        paint.section("The disk, row by row from its beginning");
        let top = paint.y();
        let mut runs = paint::Runs::default();
        for (index, cell) in self.cells.iter().enumerate() {
            let (x, row) = (LEFT + index % COLUMNS * CELL[0], index / COLUMNS);
            let y = top + row * CELL[1];
            for (kind, height) in layers_of(cell) {
                runs.add(kind, [x, y + CELL[1] - 2 - height], [CELL[0], height]);
            }
        }
        runs.draw(paint);
        let rows = self.cells.len().div_ceil(COLUMNS);
        for row in (0..rows).step_by(2) {
            let at = self.start + (row * COLUMNS) as u64 * self.piece;
            paint.label([LEFT - 8, top + row * CELL[1] + 11], "end", &human::size(at));
        }
        paint.down(rows * CELL[1]);
        let note =
            format!("A cell is {}; it is filled as far as it holds data.", human::size(self.piece));
        paint.note(LEFT, &note);
    }

    fn draw_layers(&self, paint: &mut Paint) {
        if self.layers.len() < 2 {
            return;
        }
        paint.section("The images of the chain, the top one first: where each gives what is seen");
        for (depth, strip) in self.layers.iter().enumerate() {
            let kind = [Cell::Data, Cell::Below, Cell::Lower][depth.min(2)];
            let mut runs = paint::Runs::default();
            for (column, seen) in strip.columns.iter().enumerate() {
                let kind = if *seen { kind } else { Cell::Nothing };
                runs.add(kind, [LEFT + column * CELL[0], paint.y()], [CELL[0], 12]);
            }
            runs.draw(paint);
            paint.label([LEFT - 8, paint.y() + 10], "end", &human::size(strip.bytes));
            paint.down(14);
            paint.note(LEFT, &strip.name);
        }
    }

    fn draw_legend(&self, paint: &mut Paint) {
        paint.section("What it is made of");
        let totals = self.totals();
        for (kind, name) in Cell::ALL {
            let bytes = totals[kind as usize];
            if bytes > 0 {
                let share = bytes.saturating_mul(1000) / self.len.max(1);
                let share = format!("{}.{} %", share / 10, share % 10);
                paint.swatch(LEFT, kind, &format!("{name}: {}, {share}", human::size(bytes)));
            }
        }
    }

    fn totals(&self) -> [u64; KINDS] {
        let mut totals = [0_u64; KINDS];
        for cell in &self.cells {
            totals.iter_mut().zip(cell).for_each(|(sum, bytes)| *sum = sum.saturating_add(*bytes));
        }
        totals
    }

    /// The drawing in words, for those who do not see it.
    fn summary(&self) -> String {
        let totals = self.totals();
        let parts = Cell::ALL.iter().filter(|(kind, _)| totals[*kind as usize] > 0);
        let parts: Vec<String> = parts
            .map(|(kind, name)| format!("{} {name}", human::size(totals[*kind as usize])))
            .collect();
        format!("{}. Of it: {}. {}", text_of(&self.facts), parts.join(", "), self.host.words())
    }
}

/// In which of `count` columns byte `at` of `len` lies.
fn column(at: u64, len: u64, count: usize) -> usize {
    let index = u128::from(at) * count as u128 / u128::from(len.max(1));
    usize::try_from(index).unwrap_or(usize::MAX).min(count - 1)
}

/// What is drawn of a cell, one over the other: what it is where it holds no data, and the strongest
/// data as high as there is data.
fn layers_of(cell: &[u64; KINDS]) -> Vec<(Cell, usize)> {
    let full = CELL[1] - 2;
    let bytes = |kind: Cell| cell[kind as usize];
    let ground = if bytes(Cell::Zero) > 0 { Cell::Zero } else { Cell::Nothing };
    let data: u64 = [Cell::Lower, Cell::Below, Cell::Packed, Cell::Data].map(bytes).iter().sum();
    let all = data + bytes(Cell::Zero) + bytes(Cell::Nothing);
    let strongest = Cell::ALL.into_iter().find(|(kind, _)| *kind > Cell::Zero && bytes(*kind) > 0);
    let Some((kind, _)) = strongest else { return vec![(ground, full)] };
    let level = (u128::from(data) * u128::from(LEVELS)).div_ceil(u128::from(all.max(1)));
    match usize::try_from(level).unwrap_or(full) * full / usize::try_from(LEVELS).unwrap_or(1) {
        height if height >= full => vec![(kind, full)],
        height => vec![(ground, full), (kind, height)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_filled_as_far_as_it_holds_data() {
        let mut cell = [0; KINDS];
        cell[Cell::Nothing as usize] = 100;
        assert_eq!(layers_of(&cell), [(Cell::Nothing, 12)]);
        cell[Cell::Packed as usize] = 1;
        assert_eq!(layers_of(&cell), [(Cell::Nothing, 12), (Cell::Packed, 3)]);
        cell[Cell::Data as usize] = 400;
        assert_eq!(layers_of(&cell), [(Cell::Data, 12)]);
    }

    #[test]
    fn the_last_byte_is_in_the_last_column() {
        assert_eq!(column(0, 1 << 60, 96), 0);
        assert_eq!(column((1 << 60) - 1, 1 << 60, 96), 95);
        assert_eq!(column(0, 1, 96), 0);
    }
}
