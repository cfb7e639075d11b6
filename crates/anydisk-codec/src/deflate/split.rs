//! Where one block should end and the next begin.

use super::block::Counts;

/// Bits that a split must save. More than a header costs: codes of short blocks fit by chance, and
/// blocks are never joined again.
const HEADER: u64 = 700;

/// Fraction bits of logarithms.
const FRACTION: u32 = 12;

/// Whether `next` is cheaper with codes of its own than with those it would share with `block`.
pub(super) fn pays(block: &Counts, next: &Counts) -> bool {
    let mut both = block.clone();
    both.add(next);
    let apart = entropy(block) + entropy(next) + (HEADER << FRACTION);
    apart < entropy(&both)
}

/// Bits that the symbols of a block take at least, times 2^`FRACTION`.
fn entropy(counts: &Counts) -> u64 {
    of(&counts.literals) + of(&counts.distances)
}

fn of(counts: &[u32]) -> u64 {
    let total: u32 = counts.iter().sum();
    let each: u64 = counts.iter().map(|&count| weighted(count)).sum();
    weighted(total).saturating_sub(each)
}

/// `count` times its logarithm.
#[inline]
fn weighted(count: u32) -> u64 {
    if count < 2 {
        return 0;
    }
    let whole = count.ilog2();
    let rest = ((u64::from(count) << 10 >> whole) & 1023) as usize;
    u64::from(count) * (u64::from(whole) << FRACTION | u64::from(LOGARITHMS[rest]))
}

/// Logarithms of 1 + n/1024, in integers: the same on every machine, so that files are too.
const LOGARITHMS: [u16; 1024] = logarithms();

const fn logarithms() -> [u16; 1024] {
    let mut table = [0; 1024];
    let mut n = 0;
    while n < 1024 {
        // Squaring doubles the logarithm; its whole part is the next bit.
        let mut x: u64 = (1024 + n as u64) << 20;
        let mut bit = 0;
        while bit < FRACTION {
            x = (x * x) >> 30;
            table[n] <<= 1;
            if x >= 2 << 30 {
                table[n] |= 1;
                x >>= 1;
            }
            bit += 1;
        }
        n += 1;
    }
    table
}
