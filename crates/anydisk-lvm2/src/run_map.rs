//! Chunks that lie elsewhere: numbers to numbers, kept in runs.

use anydisk_core::Result;

use crate::limits;

/// Numbers to numbers. Neighbours that lie beside each other are one run, so that what was written
/// in one go costs little memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunMap {
    /// In order of `from`, without overlap.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    from: u64,
    to: u64,
    len: u64,
}

/// What a map says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Where it lies, if it lies elsewhere.
    pub(crate) to: Option<u64>,
    /// For how many numbers that goes on: up by one each, or absent.
    pub(crate) len: u64,
}

/// Collects pairs in any order.
#[derive(Debug)]
pub(crate) struct RunMapBuilder {
    what: &'static str,
    most: u64,
    runs: Vec<Run>,
}

impl RunMapBuilder {
    /// A builder that holds runs of at most `bytes` of memory; `what` names them in the refusal.
    pub(crate) fn new(what: &'static str, bytes: usize) -> Self {
        Self { what, most: (bytes / size_of::<Run>()) as u64, runs: Vec::new() }
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// [`Error::Limit`](anydisk_core::Error::Limit) if that are too many.
    pub(crate) fn push(&mut self, from: u64, to: u64) -> Result<()> {
        if let Some(last) = self.runs.last_mut()
            && last.from.checked_add(last.len) == Some(from)
            && last.to.checked_add(last.len) == Some(to)
        {
            last.len += 1;
            return Ok(());
        }
        limits::check(self.what, self.runs.len() as u64 + 1, self.most)?;
        self.runs.push(Run { from, to, len: 1 });
        Ok(())
    }

    /// The map, or the first number that was given twice.
    pub(crate) fn finish(mut self) -> Result<RunMap, u64> {
        self.runs.sort_unstable_by_key(|run| run.from);
        RunMap::of_runs(self.runs)
    }
}

impl RunMap {
    /// The map of pairs in order, or the first number that was given twice. Takes no more memory than
    /// a vector of three numbers for each pair.
    pub(crate) fn of(pairs: impl Iterator<Item = (u64, u64)>) -> Result<Self, u64> {
        Self::of_runs(pairs.map(|(from, to)| Run { from, to, len: 1 }).collect())
    }

    /// Joins runs, which are in order, in place.
    fn of_runs(mut runs: Vec<Run>) -> Result<Self, u64> {
        let mut twice = None;
        runs.dedup_by(|run, last| {
            let end = last.from + last.len;
            if run.from < end {
                twice = twice.or(Some(run.from));
            }
            let follows = run.from == end && run.to == last.to + last.len;
            if follows {
                last.len += run.len;
            }
            follows
        });
        runs.shrink_to_fit();
        twice.map_or(Ok(Self { runs }), Err)
    }

    /// What the map says of `number`.
    pub(crate) fn look(&self, number: u64) -> Looked {
        let next = self.runs.partition_point(|run| run.from <= number);
        let before = next.checked_sub(1).and_then(|index| self.runs.get(index));
        if let Some(run) = before.filter(|run| number - run.from < run.len) {
            let within = number - run.from;
            return Looked { to: Some(run.to + within), len: run.len - within };
        }
        let end = self.runs.get(next).map_or(u64::MAX, |run| run.from);
        Looked { to: None, len: end - number }
    }

    /// The first run of numbers that lie elsewhere and end behind `number`: its start (not before
    /// `number`) and length.
    pub(crate) fn next(&self, number: u64) -> Option<(u64, u64)> {
        let looked = self.look(number);
        match looked.to {
            Some(_) => Some((number, looked.len)),
            None => {
                let start = number.checked_add(looked.len)?;
                let found = self.look(start);
                found.to.map(|_| (start, found.len))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(u64, u64)]) -> Result<RunMap, u64> {
        let mut builder = RunMapBuilder::new("pairs", 1 << 20);
        for &(from, to) in pairs {
            builder.push(from, to).unwrap();
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn every_number_has_the_answer_of_a_plain_map(
            pairs in proptest::collection::btree_map(0_u64..60, 0_u64..40, 0..40),
            turn in 0_usize..40,
        ) {
            let mut shuffled: Vec<_> = pairs.clone().into_iter().collect();
            let turn = turn.min(shuffled.len());
            shuffled.rotate_left(turn);
            let map = map(&shuffled).unwrap();
            for number in 0..70 {
                let looked = map.look(number);
                prop_assert_eq!(looked.to, pairs.get(&number).copied());
                for within in 0..looked.len.min(70 - number) {
                    let expected = pairs.get(&(number + within)).copied();
                    prop_assert_eq!(looked.to.map(|to| to + within), expected);
                }
                let next: Option<u64> = pairs.range(number..).next().map(|(from, _)| *from);
                prop_assert_eq!(map.next(number).map(|(start, _)| start), next);
            }
        }
    }

    #[test]
    fn a_number_that_comes_twice_is_told() {
        assert_eq!(map(&[(5, 1), (6, 2), (3, 9), (6, 4)]), Err(6));
    }

    #[test]
    fn what_lies_together_is_one_run_and_the_number_of_runs_is_bounded() {
        let pairs: Vec<_> = (0..1000).map(|number| (number, number + 7)).collect();
        assert_eq!(map(&pairs).unwrap().runs.len(), 1);
        let mut builder = RunMapBuilder::new("pairs", 3 * size_of::<Run>());
        let outcomes: Vec<_> = (0..4).map(|n| builder.push(2 * n, 2 * n).is_ok()).collect();
        assert_eq!(outcomes, [true, true, true, false]);
    }
}
