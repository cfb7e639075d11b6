//! Ranges that may overlap, as segments that do not. Pure.
//!
//! A hostile snapshot table can name one L1 table tens of thousands of times, or as many that
//! overlap. As segments each byte of them is looked at once.

use std::collections::BTreeMap;

/// A range of numbers, and how many of the given ranges cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) end: u64,
    /// At least 1.
    pub(super) times: u64,
}

/// Cuts ranges, given as first number and first number behind, into segments.
pub(super) fn sweep(ranges: impl IntoIterator<Item = (u64, u64)>) -> Vec<Segment> {
    let mut steps: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (start, end) in ranges {
        if start < end {
            steps.entry(start).or_default().0 += 1;
            steps.entry(end).or_default().1 += 1;
        }
    }
    let (mut segments, mut from, mut times) = (Vec::new(), 0, 0_u64);
    for (at, (begin, end)) in steps {
        if times > 0 && from < at {
            segments.push(Segment { start: from, end: at, times });
        }
        (from, times) = (at, times + begin - end);
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_number_is_in_one_segment_as_often_as_ranges_cover_it(
            ranges in proptest::collection::vec((0_u64..60, 0_u64..60), 0..12),
        ) {
            let segments = sweep(ranges.iter().copied());
            prop_assert!(segments.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for number in 0..60 {
                let covers = |start: u64, end: u64| (start..end).contains(&number);
                let expected = ranges.iter().filter(|(start, end)| covers(*start, *end)).count();
                let mut found = segments.iter().filter(|one| covers(one.start, one.end));
                let times = found.next().map_or(0, |one| one.times);
                prop_assert_eq!((times, found.next()), (expected as u64, None));
            }
        }
    }
}
