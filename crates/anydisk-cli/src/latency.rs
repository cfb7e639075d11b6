//! How long many requests took, in bounded memory.

use std::time::Duration;

/// Counts of times. A time is known to a sixteenth of itself.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

/// Buckets for each power of two.
const STEPS: u64 = 16;

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; 64 * 16], count: 0, longest: Duration::ZERO }
    }
}

impl Latencies {
    /// Counts a request.
    pub(crate) fn count(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, more)| *own += more);
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// Times that so many percent of the requests did not exceed.
    pub(crate) fn percentiles(&self) -> Vec<(&'static str, Duration)> {
        let parts = [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)];
        let parts = parts.map(|(name, part)| (name, self.percentile(part)));
        parts.into_iter().chain([("max", self.longest)]).collect()
    }

    /// The time that `part` thousandths did not exceed.
    fn percentile(&self, part: u64) -> Duration {
        let wanted = (self.count * part).div_ceil(1000);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        found.map_or(self.longest, |bucket| Duration::from_nanos(end(bucket)).min(self.longest))
    }
}

/// Small numbers have a bucket of their own; above, each power of two has sixteen.
fn bucket(nanos: u64) -> usize {
    let power = u64::from(nanos.max(STEPS).ilog2()) - 4;
    let index = power * STEPS + (nanos >> power);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest number in a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let power = (bucket / STEPS).saturating_sub(1);
    let first = (bucket - power * STEPS) << power;
    first + ((1 << power) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_bucket_and_a_bucket_is_narrow() {
        let numbers = (0..5000).chain((0..63).flat_map(|bit| [1 << bit, (1 << bit) + 12345]));
        for number in numbers {
            let end = end(bucket(number));
            assert!(number <= end && end - number <= number / 16, "{number}: {end}");
        }
        assert!(bucket(u64::MAX) < Latencies::default().buckets.len());
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut all = Latencies::default();
        for micros in 1..=1000 {
            let mut one = Latencies::default();
            one.count(Duration::from_micros(micros));
            all.add(&one);
        }
        let found = all.percentiles();
        for ((name, time), expected) in found.iter().zip([500, 900, 990, 999, 1000]) {
            let micros = time.as_micros();
            assert!((expected..=expected * 17 / 16).contains(&micros), "{name}: {micros}");
        }
    }
}
