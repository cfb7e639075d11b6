//! The disk drawn: a cell stands for a piece of it.

use std::io::IsTerminal;

use crate::extents::Entry;
use crate::output::human;

const ROWS: u64 = 8;
const USUAL_WIDTH: u64 = 64;
/// Columns for the offset at which a row begins.
const LABEL: usize = 9;

/// What a cell shows: the strongest of what its piece holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// No image of the chain has anything.
    #[default]
    Nothing,
    /// Said to be zero.
    Zero,
    /// Data of an image further down.
    Lower,
    /// Data of the image below the top.
    Below,
    /// Packed data.
    Packed,
    /// Data of the top image.
    Data,
}

impl Cell {
    /// All, the strongest first, with their names.
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Data, "data"),
        (Self::Packed, "compressed"),
        (Self::Below, "data of the image below"),
        (Self::Lower, "data further down"),
        (Self::Zero, "zero"),
        (Self::Nothing, "nothing"),
    ];

    /// What a run shows.
    pub(crate) fn of(entry: &Entry) -> Self {
        match entry {
            Entry { compressed: true, .. } => Self::Packed,
            Entry { data: true, depth: 0, .. } => Self::Data,
            Entry { data: true, depth: 1, .. } => Self::Below,
            Entry { data: true, .. } => Self::Lower,
            Entry { present: true, .. } => Self::Zero,
            Entry { .. } => Self::Nothing,
        }
    }

    fn glyph(self, ascii: bool) -> char {
        match (self, ascii) {
            (Self::Data, false) => '█',
            (Self::Packed, false) => '▚',
            (Self::Below, false) => '▓',
            (Self::Lower, false) => '▒',
            (Self::Zero, false) => '░',
            (Self::Nothing, false) => '·',
            (Self::Data, true) => '#',
            (Self::Packed, true) => 'c',
            (Self::Below, true) => '1',
            (Self::Lower, true) => '2',
            (Self::Zero, true) => '0',
            (Self::Nothing, true) => '.',
        }
    }
}

/// A picture that is being drawn.
#[derive(Debug)]
pub(crate) struct Picture {
    start: u64,
    /// Bytes a cell stands for.
    piece: u64,
    width: usize,
    cells: Vec<Cell>,
    ascii: bool,
}

impl Picture {
    /// Of `len` bytes from `start` on, as the terminal allows.
    pub(crate) fn for_terminal(start: u64, len: u64) -> Self {
        Self::new(start, len, terminal_width(), wants_ascii())
    }

    fn new(start: u64, len: u64, width: u64, ascii: bool) -> Self {
        // No smaller than a sector: there is nothing to see in it.
        let piece = len.div_ceil(width * ROWS).max(512);
        let count = usize::try_from(len.div_ceil(piece)).unwrap_or_default();
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        Self { start, piece, width, cells: vec![Cell::Nothing; count], ascii }
    }

    /// Draws a run.
    pub(crate) fn add(&mut self, entry: &Entry) {
        if entry.length == 0 {
            return;
        }
        let index = |at: u64| usize::try_from((at - self.start) / self.piece).unwrap_or(usize::MAX);
        let (first, last) = (index(entry.start), index(entry.start + entry.length - 1));
        let cell = Cell::of(entry);
        for place in self.cells.iter_mut().take(last.saturating_add(1)).skip(first) {
            *place = cell.max(*place);
        }
    }

    /// The picture with its legend.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let starts = (self.start..).step_by(self.row_bytes());
        for (row, start) in self.cells.chunks(self.width).zip(starts) {
            let start = if start == 0 { "0".into() } else { human::size(start) };
            text.push_str(&format!("{start:>LABEL$}  "));
            text.extend(row.iter().map(|cell| cell.glyph(self.ascii)));
            text.push('\n');
        }
        let used = Cell::ALL.iter().filter(|(cell, _)| self.cells.contains(cell));
        let legend: Vec<String> =
            used.map(|(cell, name)| format!("{} {name}", cell.glyph(self.ascii))).collect();
        let piece = human::size(self.piece);
        text.push_str(&format!("\n{}; a cell is {piece}\n", legend.join("  ")));
        text
    }

    fn row_bytes(&self) -> usize {
        let piece = usize::try_from(self.piece).unwrap_or(usize::MAX);
        piece.saturating_mul(self.width).max(1)
    }
}

fn terminal_width() -> u64 {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return USUAL_WIDTH;
    }
    let columns = rustix::termios::tcgetwinsize(&out).map_or(0, |size| size.ws_col);
    match u64::from(columns).saturating_sub(LABEL as u64 + 2) {
        0 => USUAL_WIDTH,
        // Rows of so many cells begin at round offsets.
        cells @ 16.. => cells / 16 * 16,
        cells => cells,
    }
}

/// Whether only ASCII is safe to show, or asked for.
fn wants_ascii() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    !utf8 || set("NO_COLOR").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_the_strongest_of_what_it_holds() {
        let mut picture = Picture::new(0, 8 * 4 * 1024, 4, true);
        let data = Entry { length: 1500, present: true, data: true, ..Entry::default() };
        let zero = Entry { start: 1500, length: 1000, present: true, zero: true, ..data.clone() };
        picture.add(&data);
        picture.add(&Entry { data: false, ..zero });
        let rows = "        0  ##0.\n    4 KiB  ....\n    8 KiB  ....\n";
        assert!(picture.text().starts_with(rows), "{}", picture.text());
        assert!(picture.text().ends_with("# data  0 zero  . nothing; a cell is 1 KiB\n"));
    }

    #[test]
    fn a_disk_smaller_than_a_sector_is_one_cell() {
        let mut picture = Picture::new(0, 1, 64, false);
        picture.add(&Entry { length: 1, data: true, ..Entry::default() });
        assert!(picture.text().starts_with("        0  █\n"));
        assert!(Picture::new(0, 0, 64, true).text().starts_with('\n'));
    }
}
