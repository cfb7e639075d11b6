//! Canonical Huffman codes of bounded length (RFC 1951, 3.2.2).

/// The most symbols an alphabet of deflate has.
const SYMBOLS: usize = 288;

/// A code: how symbols are written.
#[derive(Clone)]
pub(super) struct Code<const N: usize> {
    /// Bits of each symbol, 0 for those that do not occur.
    pub(super) lengths: [u8; N],
    /// The bits, first bit lowest as the stream has them.
    pub(super) bits: [u16; N],
}

impl<const N: usize> Code<N> {
    /// The shortest code for symbols that occur `counts` times, none longer than `limit` bits.
    ///
    /// Names two symbols at least: old readers refuse a code of one.
    pub(super) fn of_counts(counts: &[u32; N], limit: usize) -> Self {
        let mut sorted = [0_u64; SYMBOLS];
        let used = sort(counts, &mut sorted);
        let lengths = lengths(&sorted[..used], limit);
        Self::of_lengths(lengths)
    }

    /// The canonical code of these lengths.
    pub(super) fn of_lengths(lengths: [u8; N]) -> Self {
        let mut next = [0_u16; 17];
        let mut counts = [0_u16; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        for length in 1..=16 {
            next[length] = (next[length - 1] + counts[length - 1]) << 1;
        }
        let bits = lengths.map(|length| {
            let code = next[usize::from(length)];
            next[usize::from(length)] += 1;
            if length == 0 { 0 } else { code.reverse_bits() >> (16 - length) }
        });
        Self { lengths, bits }
    }

    /// Bits it takes to write symbols that occur `counts` times.
    pub(super) fn cost(&self, counts: &[u32; N]) -> u64 {
        let each = self.lengths.iter().zip(counts);
        each.map(|(&length, &count)| u64::from(length) * u64::from(count)).sum()
    }
}

/// Symbols that occur, rarest first, as `count << 16 | symbol`; returns how many.
fn sort(counts: &[u32], sorted: &mut [u64; SYMBOLS]) -> usize {
    let mut used = 0;
    for (symbol, &count) in (0_u64..).zip(counts) {
        if count > 0 {
            sorted[used] = u64::from(count) << 16 | symbol;
            used += 1;
        }
    }
    for symbol in [0, 1] {
        if used < 2 && sorted[..used].iter().all(|key| key & 0xffff != symbol) {
            sorted[used] = 1 << 16 | symbol;
            used += 1;
        }
    }
    sorted[..used].sort_unstable();
    used
}

fn lengths<const N: usize>(sorted: &[u64], limit: usize) -> [u8; N] {
    let mut lengths = [0; N];
    let mut per_length = bounded(depths(sorted), limit);
    let mut length = limit;
    for key in sorted {
        while per_length[length] == 0 {
            length -= 1;
        }
        per_length[length] -= 1;
        let symbol = usize::try_from(key & 0xffff).expect("a symbol of the alphabet");
        lengths[symbol] = u8::try_from(length).expect("at most 15");
    }
    lengths
}

/// How many leaves of the Huffman tree lie at each depth. `sorted`: two symbols or more.
///
/// Leaves and inner nodes are both made in the order of their weight, so that the next lightest
/// is always at the front of one of two queues.
fn depths(sorted: &[u64]) -> [u16; SYMBOLS] {
    let leaves = sorted.len();
    let mut weight = [0_u64; 2 * SYMBOLS];
    let mut parent = [0_usize; 2 * SYMBOLS];
    sorted.iter().zip(&mut weight).for_each(|(key, weight)| *weight = key >> 16);
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..2 * leaves - 1 {
        for _ in 0..2 {
            let take_leaf = leaf < leaves && (inner == node || weight[leaf] <= weight[inner]);
            let child = if take_leaf { &mut leaf } else { &mut inner };
            weight[node] += weight[*child];
            parent[*child] = node;
            *child += 1;
        }
    }
    let mut depth = [0_usize; 2 * SYMBOLS];
    let mut per_depth = [0; SYMBOLS];
    for node in (0..2 * leaves - 2).rev() {
        depth[node] = depth[parent[node]] + 1;
        if node < leaves {
            per_depth[depth[node]] += 1;
        }
    }
    per_depth
}

/// Moves leaves below `limit` up to it, and others down until the code is prefix-free again.
fn bounded(per_depth: [u16; SYMBOLS], limit: usize) -> [u16; 16] {
    let mut bounded = [0; 16];
    bounded[..=limit].copy_from_slice(&per_depth[..=limit]);
    bounded[limit] += per_depth[limit + 1..].iter().sum::<u16>();
    let share = |(length, &count): (usize, &u16)| u32::from(count) << (limit - length);
    let mut sum: u32 = bounded[..=limit].iter().enumerate().skip(1).map(share).sum();
    while sum > 1 << limit {
        let length = (1..limit).rev().find(|&length| bounded[length] > 0);
        let length = length.expect("all leaves at the limit fit");
        bounded[length] -= 1;
        bounded[length + 1] += 2;
        bounded[limit] -= 1;
        sum -= 1;
    }
    bounded
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    /// Bits that the best code without a limit takes: the sum of all inner nodes.
    fn best_cost(counts: &[u32]) -> u64 {
        let used = counts.iter().filter(|&&count| count > 0);
        let mut heap: BinaryHeap<_> = used.map(|&count| Reverse(u64::from(count))).collect();
        let mut cost = 0;
        while let (Some(Reverse(a)), Some(Reverse(b))) = (heap.pop(), heap.pop()) {
            cost += a + b;
            heap.push(Reverse(a + b));
        }
        cost
    }

    /// How much of the space of codes is taken, 2^15 being all.
    fn taken<const N: usize>(code: &Code<N>) -> u32 {
        code.lengths.iter().filter(|&&length| length > 0).map(|length| 1 << (15 - length)).sum()
    }

    proptest! {
        #[test]
        fn a_code_without_need_of_its_limit_is_the_best_there_is(
            counts in prop::array::uniform30(prop_oneof![Just(0_u32), 1_u32..40]),
        ) {
            prop_assume!(counts.iter().filter(|&&count| count > 0).count() >= 2);
            let code = Code::of_counts(&counts, 15);
            prop_assert_eq!(code.cost(&counts), best_cost(&counts));
            prop_assert_eq!(taken(&code), 1 << 15);
        }

        #[test]
        fn a_limited_code_is_complete_and_gives_rarer_symbols_no_shorter_bits(
            counts in prop::array::uniform19((0_u32..24).prop_map(|n| (1 << n) - 1)),
        ) {
            let code = Code::of_counts(&counts, 7);
            prop_assert_eq!(taken(&code), 1 << 15);
            for (a, b) in (0..19).flat_map(|a| (0..19).map(move |b| (a, b))) {
                prop_assert!(code.lengths[a] <= 7);
                prop_assert!((counts[a] > 0) <= (code.lengths[a] > 0));
                if counts[a] > counts[b] && counts[b] > 0 {
                    prop_assert!(code.lengths[a] <= code.lengths[b]);
                }
            }
        }
    }

    #[test]
    fn the_deepest_tree_is_cut_at_the_limit() {
        // Counts like the Fibonacci numbers: each symbol a bit longer than the one before.
        let mut counts = [1_u32; 30];
        (2..30).for_each(|n| counts[n] = counts[n - 1] + counts[n - 2]);
        let code = Code::of_counts(&counts, 15);
        assert_eq!(code.lengths.iter().max(), Some(&15));
        assert_eq!(taken(&code), 1 << 15);
    }

    #[test]
    fn a_code_names_two_symbols_even_if_none_occurs() {
        assert_eq!(Code::of_counts(&[0; 3], 15).lengths, [1, 1, 0]);
        assert_eq!(Code::of_counts(&[0, 9, 0], 15).lengths, [1, 1, 0]);
        assert_eq!(Code::of_counts(&[0, 0, 9], 15).lengths, [1, 0, 1]);
    }
}
