//! Which parts of a file are in use, whole MiB by whole MiB: all that a VHDX holds begins and ends
//! at them. Pure.

use anydisk_core::{HostOffset, Result};

use crate::header::limit;
use crate::layout::MIB;
use crate::limits;

/// A bit for each MiB of a file.
#[derive(Clone, Debug)]
pub(crate) struct Occupied {
    words: Vec<u64>,
    /// MiB of the file, a part of one at its end included.
    count: u64,
}

impl Occupied {
    /// Nothing of a file of `len` bytes is in use.
    ///
    /// # Errors
    /// `Limit` for a file that is too long to be kept account of.
    pub(crate) fn new(len: u64) -> Result<Self> {
        limit("size of a file to be written or checked, in bytes", len, limits::FILE)?;
        let count = len.div_ceil(MIB);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or_default();
        Ok(Self { words: vec![0; words], count })
    }

    /// Takes a piece, and tells whether all of it was free. What lies behind the end of the file does
    /// not count.
    pub(crate) fn take(&mut self, at: HostOffset, len: u64) -> bool {
        let (first, end) = self.run(at, len);
        let mut was_free = true;
        let mut next = first;
        while next < end {
            let until = (next / 64 * 64 + 64).min(end);
            let bits = mask(next % 64, until - next);
            if let Some(word) =
                usize::try_from(next / 64).ok().and_then(|at| self.words.get_mut(at))
            {
                was_free &= *word & bits == 0;
                *word |= bits;
            }
            next = until;
        }
        was_free
    }

    /// Takes all that another account of the same file has.
    pub(crate) fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    /// Whether nothing of a piece is in use.
    pub(crate) fn is_free(&self, at: HostOffset, len: u64) -> bool {
        let (first, end) = self.run(at, len);
        (first..end).all(|number| !self.is_taken(number))
    }

    fn run(&self, at: HostOffset, len: u64) -> (u64, u64) {
        let end = at.saturating_add(len).get().div_ceil(MIB).min(self.count);
        (at.get() / MIB, end)
    }

    fn is_taken(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Runs of the file that are free, rising: their places and bytes.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (HostOffset, u64)> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = (next..self.count).find(|number| !self.is_taken(*number))?;
            let end = (first..self.count).find(|number| self.is_taken(*number));
            let end = end.unwrap_or(self.count);
            next = end;
            Some((HostOffset(first * MIB), (end - first) * MIB))
        })
    }

    /// The first piece in use.
    pub(crate) fn first(&self) -> Option<HostOffset> {
        (0..self.count).find(|number| self.is_taken(*number)).map(|number| HostOffset(number * MIB))
    }

    /// Bytes that are free.
    pub(crate) fn free(&self) -> u64 {
        let taken: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        (self.count - taken) * MIB
    }

    /// Behind the last piece in use.
    pub(crate) fn end(&self) -> HostOffset {
        let taken = self.words.iter().rposition(|word| *word != 0);
        let Some((word, index)) = taken.and_then(|index| Some((self.words.get(index)?, index)))
        else {
            return HostOffset::ZERO;
        };
        let number = index as u64 * 64 + u64::from(64 - word.leading_zeros());
        HostOffset(number * MIB)
    }
}

/// `count` bits from `first` on; all of them in a word.
fn mask(first: u64, count: u64) -> u64 {
    let all = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    all << first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_free_is_what_a_list_of_flags_says(
            len in 0u64..300,
            pieces in proptest::collection::vec((0u64..320, 0u64..150), 0..6),
        ) {
            let mut occupied = Occupied::new(len * MIB).expect("small");
            let mut flags = vec![false; usize::try_from(len).expect("small")];
            for (at, count) in pieces {
                let run = (at..at + count).filter(|number| *number < len);
                let run: Vec<usize> = run.map(|at| usize::try_from(at).expect("small")).collect();
                let was_free = run.iter().all(|at| !flags[*at]);
                prop_assert_eq!(occupied.is_free(HostOffset(at * MIB), count * MIB), was_free);
                prop_assert_eq!(occupied.take(HostOffset(at * MIB), count * MIB), was_free);
                run.iter().for_each(|at| flags[*at] = true);
            }
            let free: Vec<u64> = occupied
                .gaps()
                .flat_map(|(at, len)| (at.get() / MIB)..(at.get() + len) / MIB)
                .collect();
            let expected: Vec<u64> = (0..).zip(&flags).filter(|(_, taken)| !**taken).map(|(at, _)| at).collect();
            prop_assert_eq!(free, expected);
            let end = flags.iter().rposition(|taken| *taken).map_or(0, |at| at as u64 + 1);
            prop_assert_eq!(occupied.end(), HostOffset(end * MIB));
        }
    }
}
