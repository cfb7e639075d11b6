//! Computing a chunk that is gone from the others of its row, in GF(2^8) with the polynomial 0x11D.

/// What is left of a row, as buffers of one length. An image that is gone is `None`.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// Chunks of data with the powers of the generator that Q takes them with.
    pub(crate) data: Vec<(u64, Option<&'a [u8]>)>,
    pub(crate) p: Option<&'a [u8]>,
    pub(crate) q: Option<&'a [u8]>,
}

/// Fills `out` with data chunk `wanted` of the row. `None` if too much is gone.
pub(crate) fn rebuild(row: &Row<'_>, wanted: usize, out: &mut [u8]) -> Option<()> {
    let gone: Vec<usize> = (0..row.data.len()).filter(|slot| row.data[*slot].1.is_none()).collect();
    match (gone.as_slice(), row.p, row.q) {
        ([_], Some(p), _) => by_p(row, p, out),
        ([_], None, Some(q)) => by_q(row, wanted, q, out),
        (&[first, second], Some(p), Some(q)) => {
            let other = if wanted == first { second } else { first };
            by_both(row, wanted, other, (p, q), out);
        }
        _ => return None,
    }
    Some(())
}

/// The sum of P and all data that is there.
fn by_p(row: &Row<'_>, p: &[u8], out: &mut [u8]) {
    out.copy_from_slice(p);
    for data in row.data.iter().filter_map(|(_, data)| *data) {
        add(out, data, 1);
    }
}

/// The weighted sum of Q and all data that is there, divided by the weight of the wanted chunk.
fn by_q(row: &Row<'_>, wanted: usize, q: &[u8], out: &mut [u8]) {
    out.copy_from_slice(q);
    for (power, data) in &row.data {
        if let Some(data) = data {
            add(out, data, power_of_two(*power));
        }
    }
    scale(out, inverse(power_of_two(row.data[wanted].0)));
}

/// Two equations: x + y = P', and a x + b y = Q'; so (a + b) x = Q' + b P'.
fn by_both(row: &Row<'_>, wanted: usize, other: usize, (p, q): (&[u8], &[u8]), out: &mut [u8]) {
    let weight = |slot: usize| power_of_two(row.data[slot].0);
    let (a, b) = (weight(wanted), weight(other));
    let mut sum = p.to_vec();
    out.copy_from_slice(q);
    for (power, data) in &row.data {
        if let Some(data) = data {
            add(&mut sum, data, 1);
            add(out, data, power_of_two(*power));
        }
    }
    add(out, &sum, b);
    scale(out, inverse(a ^ b));
}

/// `out += factor * data`.
fn add(out: &mut [u8], data: &[u8], factor: u8) {
    if factor == 1 {
        out.iter_mut().zip(data).for_each(|(out, byte)| *out ^= byte);
        return;
    }
    let table = multiples(factor);
    out.iter_mut().zip(data).for_each(|(out, byte)| *out ^= table[usize::from(*byte)]);
}

/// `out *= factor`.
fn scale(out: &mut [u8], factor: u8) {
    let table = multiples(factor);
    out.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
}

/// All multiples of a factor.
fn multiples(factor: u8) -> [u8; 256] {
    let mut table = [0; 256];
    for (byte, entry) in (0..=u8::MAX).zip(table.iter_mut()) {
        *entry = multiply(factor, byte);
    }
    table
}

fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        let overflow = a & 0x80 != 0;
        a <<= 1;
        if overflow {
            a ^= 0x1D;
        }
        b >>= 1;
    }
    product
}

/// The generator, 2, to this power.
fn power_of_two(power: u64) -> u8 {
    (0..power % 255).fold(1, |product, _| multiply(product, 2))
}

/// `1 / a`, which is a to the power of 254. Weights of one row differ, so no sum of two is 0.
fn inverse(a: u8) -> u8 {
    (0..254).fold(1, |product, _| multiply(product, a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_number_but_zero_has_an_inverse() {
        for a in 1..=u8::MAX {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
    }

    proptest! {
        #[test]
        fn whatever_two_chunks_are_gone_the_data_comes_back(
            chunks in proptest::collection::vec(proptest::array::uniform4(0_u8..), 2..8),
            first in 0_usize..10,
            second in 0_usize..10,
            offset in 0_u64..2,
        ) {
            let powers: Vec<u64> = (0..chunks.len() as u64).map(|slot| slot + offset).collect();
            let (mut p, mut q) = ([0; 4], [0; 4]);
            for (chunk, power) in chunks.iter().zip(&powers) {
                add(&mut p, chunk, 1);
                add(&mut q, chunk, power_of_two(*power));
            }
            let count = chunks.len();
            let (first, second) = (first % (count + 2), second % (count + 2));
            let kept = |slot: usize| slot != first && slot != second;
            let row = Row {
                data: (0..count).map(|slot| (powers[slot], kept(slot).then(|| &chunks[slot][..]))).collect(),
                p: kept(count).then_some(&p[..]),
                q: kept(count + 1).then_some(&q[..]),
            };
            for slot in (0..count).filter(|slot| !kept(*slot)) {
                let mut out = [0; 4];
                prop_assert!(rebuild(&row, slot, &mut out).is_some());
                prop_assert_eq!(out, chunks[slot]);
            }
        }
    }

    #[test]
    fn three_gone_chunks_are_too_many() {
        let row = Row { data: vec![(0, None), (1, None)], p: Some(&[0]), q: None };
        assert!(rebuild(&row, 0, &mut [0]).is_none());
    }
}
