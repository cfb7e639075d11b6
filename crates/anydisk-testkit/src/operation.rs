//! What is done to a disk, as data, and random lists of it.

use proptest::prelude::*;

use crate::Random;

/// Longest range of an operation, in bytes, if units are small.
const LONG: u64 = 256 << 10;

/// One operation on a disk. Ranges lie on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes the [data](Operation::data) that `seed` stands for.
    Write {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// Tells the data from others.
        seed: u64,
    },
    /// Makes bytes zero.
    Zero {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// Whether space may be given back.
        unmap: bool,
    },
    /// Discards.
    Discard {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Reads and compares.
    Read {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Flushes.
    Flush,
    /// Flushes, closes, opens again and compares everything.
    Reopen,
}

impl Operation {
    /// The data that a write writes; nothing for the others. One of eight writes is all zero.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        let Self::Write { len, seed, .. } = self else { return Vec::new() };
        let mut data = vec![0; usize::try_from(*len).expect("it fits in memory")];
        if seed % 8 != 0 {
            Random::new(*seed).fill(&mut data);
        }
        data
    }

    /// The range that it is about: first byte and length.
    #[must_use]
    pub const fn range(&self) -> Option<(u64, u64)> {
        match self {
            Self::Write { at, len, .. }
            | Self::Zero { at, len, .. }
            | Self::Discard { at, len }
            | Self::Read { at, len } => Some((*at, *len)),
            Self::Flush | Self::Reopen => None,
        }
    }
}

/// Where operations aim: at the places where units meet, and close to them.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// First byte of the part of the disk that is used.
    pub start: u64,
    /// Bytes of that part.
    pub len: u64,
    /// Bytes of a unit (cluster, grain) of the format.
    pub unit: u64,
    /// Ranges begin and end at multiples of so many bytes.
    pub step: u64,
}

impl Aim {
    /// The whole of a disk, at any byte.
    #[must_use]
    pub const fn at(size: u64, unit: u64) -> Self {
        Self { start: 0, len: size, unit, step: 1 }
    }

    /// An endless list of random operations.
    pub fn operations(self, seed: u64) -> impl Iterator<Item = Operation> {
        let mut random = Random::new(seed);
        std::iter::repeat_with(move || self.random_operation(&mut random))
    }

    /// One random operation.
    pub fn random_operation(&self, random: &mut Random) -> Operation {
        let (at, len) = self.random_range(random);
        match random.below(100) {
            0..45 => Operation::Write { at, len, seed: random.next() },
            45..70 => Operation::Read { at, len },
            70..82 => Operation::Zero { at, len, unmap: random.chance(1, 2) },
            82..93 => Operation::Discard { at, len },
            93..99 => Operation::Flush,
            _ => Operation::Reopen,
        }
    }

    /// A random range: each end at a boundary, beside one, or anywhere.
    pub fn random_range(&self, random: &mut Random) -> (u64, u64) {
        let at = self.random_place(random);
        let most = self.longest().min(self.start + self.len - at);
        if random.chance(1, 2) {
            let end = self.random_place(random);
            if end > at && end - at <= most {
                return (at, end - at);
            }
        }
        let bits = random.below(u64::from(most.max(1).ilog2()) + 2);
        let len = random.below(1 << bits) + u64::from(random.chance(9, 10));
        (at, len.next_multiple_of(self.step).min(most / self.step * self.step))
    }

    fn random_place(&self, random: &mut Random) -> u64 {
        let anywhere = random.below(self.len + 1);
        let near = match random.below(4) {
            0 => anywhere,
            1 => anywhere / self.unit * self.unit,
            2 => (anywhere / self.unit * self.unit).saturating_sub(random.below(3)),
            _ => anywhere / self.unit * self.unit + random.below(1024),
        };
        self.start + near.min(self.len) / self.step * self.step
    }

    fn longest(&self) -> u64 {
        (3 * self.unit).max(LONG).min(self.len)
    }
}

/// Lists of operations, for properties; they shrink to fewer and smaller ones.
pub fn operations(aim: Aim, most: usize) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(aim), 1..most)
}

/// One operation, for properties.
pub fn operation(aim: Aim) -> impl Strategy<Value = Operation> {
    let range = move || (place(aim), place(aim)).prop_map(move |(a, b)| between(aim, a, b));
    prop_oneof![
        5 => (range(), any::<u64>()).prop_map(|((at, len), seed)| Operation::Write { at, len, seed }),
        3 => range().prop_map(|(at, len)| Operation::Read { at, len }),
        2 => (range(), any::<bool>()).prop_map(|((at, len), unmap)| Operation::Zero { at, len, unmap }),
        2 => range().prop_map(|(at, len)| Operation::Discard { at, len }),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Reopen),
    ]
}

/// A place at a boundary between units, beside one, or anywhere.
fn place(aim: Aim) -> impl Strategy<Value = u64> {
    let boundary = (0..=aim.len / aim.unit).prop_map(move |unit| unit * aim.unit);
    let beside = (boundary.clone(), 0_u64..1024).prop_map(|(at, more)| at + more);
    let place = prop_oneof![boundary, beside, 0..=aim.len];
    place.prop_map(move |at| aim.start + at.min(aim.len) / aim.step * aim.step)
}

fn between(aim: Aim, a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.abs_diff(b).min(aim.longest() / aim.step * aim.step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(aim: Aim, operation: &Operation) -> bool {
        operation.range().is_none_or(|(at, len)| {
            at >= aim.start
                && at + len <= aim.start + aim.len
                && at % aim.step == 0
                && len % aim.step == 0
        })
    }

    #[test]
    fn random_operations_stay_on_their_part_and_reach_its_ends_and_boundaries() {
        for (len, unit, step) in [(1, 512, 1), (100_000, 4096, 1), (1 << 20, 65536, 512)] {
            let aim = Aim { start: 7 * step, len, unit, step };
            let some: Vec<_> = aim.operations(3).take(3000).collect();
            assert!(some.iter().all(|operation| fits(aim, operation)));
            let ranges = || some.iter().filter_map(Operation::range);
            assert!(ranges().any(|(at, _)| at == aim.start));
            assert!(
                ranges().any(|(at, len)| len > 0 && at + len == aim.start + aim.len / step * step)
            );
        }
    }

    #[test]
    fn a_seed_gives_the_same_list_again_and_another_seed_another_one() {
        let list = |seed| Aim::at(1 << 20, 4096).operations(seed).take(100).collect::<Vec<_>>();
        assert_eq!(list(1), list(1));
        assert_ne!(list(1), list(2));
    }

    proptest! {
        #[test]
        fn operations_of_properties_stay_on_the_disk(operation in operation(Aim::at(100_000, 4096))) {
            prop_assert!(fits(Aim::at(100_000, 4096), &operation));
        }
    }
}
