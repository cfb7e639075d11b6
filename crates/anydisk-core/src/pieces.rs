//! The order in which a sink is given its pieces.

use crate::{Error, GuestOffset, GuestRange, Piece, Result};

/// What a [`Sink`](crate::Sink) has been given: the next piece must lie on the disk, behind the last
/// one, and be of whole units.
#[derive(Clone, Debug)]
pub struct Pieces {
    format: &'static str,
    size: u64,
    unit: u64,
    /// Where the next one may begin.
    next: GuestOffset,
}

impl Pieces {
    /// No piece yet, of a disk of `size` bytes that is written in units of `unit` bytes.
    #[must_use]
    pub fn new(format: &'static str, size: u64, unit: u64) -> Self {
        Self { format, size, unit, next: GuestOffset::ZERO }
    }

    /// Virtual size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a unit.
    #[must_use]
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Takes a piece: returns its part of the disk.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and [`Error::Unsupported`] for one that comes too late, or that is not of
    /// whole units: only the last one of the disk may be shorter.
    pub fn take(&mut self, at: GuestOffset, piece: &Piece<'_>) -> Result<GuestRange> {
        let (len, unit) = match piece {
            Piece::Data(bytes) => (bytes.len() as u64, self.unit),
            Piece::Encoded { unit, .. } => {
                (unit.len().min(self.size.saturating_sub(at.get())), self.unit)
            }
            Piece::Zero(len) => (*len, 1),
        };
        let range = GuestRange::new(at, len).filter(|range| range.end().get() <= self.size);
        let Some(range) = range else {
            let range = GuestRange::between(at, GuestOffset(at.get().saturating_add(len)));
            return Err(Error::OutOfRange { range, size: self.size });
        };
        let end = range.end();
        let is_whole = end.get().is_multiple_of(unit) || end.get() == self.size;
        let feature = match at < self.next {
            true => format!("a piece at {at} behind one up to {}", self.next),
            false if !at.get().is_multiple_of(unit) || !is_whole => {
                format!("a piece from {at} to {end}, not of whole units")
            }
            false => {
                self.next = end;
                return Ok(range);
            }
        };
        Err(Error::Unsupported { format: self.format, feature: feature.into() })
    }
}

/// How many units of `unit` bytes the data of a disk touches, and into how many runs of them it falls;
/// for [`Format::measure`](crate::Format::measure).
#[must_use]
pub fn units_of_data(unit: u64, data: &[GuestRange]) -> (u64, u64) {
    let (mut units, mut runs, mut end) = (0_u64, 0_u64, 0);
    for range in data.iter().filter(|range| !range.is_empty()) {
        let (first, behind) = (range.start().get() / unit, range.end().get().div_ceil(unit));
        runs = runs.saturating_add(u64::from(first > end || units == 0));
        units = units.saturating_add(behind.saturating_sub(first.max(end)));
        end = end.max(behind);
    }
    (units, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_several_ranges_touch_count_once() {
        let ranges = |list: &[(u64, u64)]| {
            let range = |&(start, len)| GuestRange::new(GuestOffset(start), len).expect("small");
            units_of_data(100, &list.iter().map(range).collect::<Vec<_>>())
        };
        assert_eq!(ranges(&[]), (0, 0));
        assert_eq!(ranges(&[(0, 1), (50, 10), (99, 2)]), (2, 1));
        assert_eq!(ranges(&[(150, 50), (200, 0), (310, 10), (399, 1)]), (2, 2));
        assert_eq!(ranges(&[(100, 100), (200, 100)]), (2, 1));
    }

    #[test]
    fn pieces_come_in_rising_order_and_of_whole_units_up_to_the_end() {
        let mut pieces = Pieces::new("test", 10_000, 4096);
        let mut take = |at: u64, piece: Piece<'_>| {
            pieces.take(GuestOffset(at), &piece).map(|range| range.to_string())
        };
        let data = [0; 8192];
        assert_eq!(take(0, Piece::Data(&data[..4096])).expect("it is in order"), "0x0..0x1000");
        for (at, piece, expected) in [
            (0, Piece::Data(&data[..4096]), "test: a piece at 0x0 behind one up to 0x1000"),
            (
                4096,
                Piece::Data(&data[..100]),
                "test: a piece from 0x1000 to 0x1064, not of whole units",
            ),
            (
                5000,
                Piece::Data(&data[..5000]),
                "test: a piece from 0x1388 to 0x2710, not of whole units",
            ),
            (
                8192,
                Piece::Zero(1809),
                "guest range 0x2000..0x2711 reaches past the end of the disk at 0x2710",
            ),
        ] {
            let error = take(at, piece).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(take(4100, Piece::Zero(100)).is_ok());
        assert!(take(8192, Piece::Data(&data[..1808])).is_ok(), "the last one is short");
    }
}
