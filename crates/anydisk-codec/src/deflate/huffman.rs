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
