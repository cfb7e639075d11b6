//! A byte vector that any store must agree with.

use std::io::{IoSlice, IoSliceMut};

use anydisk_storage::{Error, HostOffset, Storage};
use proptest::prelude::*;

/// Longest store that the operations make, in bytes: a few memory chunks and many file blocks.
pub(crate) const LARGEST: u64 = 300_000;

/// Data to write: one byte, many times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    len: usize,
    byte: u8,
}

impl Fill {
    fn bytes(self) -> Vec<u8> {
        vec![self.byte; self.len]
    }

    fn cut(self, len: usize) -> Self {
        Self { len: self.len.min(len), ..self }
    }
}

/// One call on a store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write { at: u64, data: Fill },
    WriteVectored { at: u64, data: Vec<Fill> },
    Read { at: u64, len: usize },
    ReadVectored { at: u64, lens: Vec<usize> },
    SetLen(u64),
    Zero { at: u64, len: u64, unmap: bool },
    Discard { at: u64, len: u64 },
    Allocate { at: u64, len: u64 },
    Runs { at: u64, limit: u64 },
    Flush,
}

/// Any sequence of operations.
pub(crate) fn operations() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(operation(), 1..40)
}

fn operation() -> impl Strategy<Value = Op> {
    let at = || prop_oneof![0..LARGEST, (0..64_u64).prop_map(|block| block * 4096)];
    let len = || prop_oneof![0..100_u64, 0..LARGEST / 3, (0..16_u64).prop_map(|n| n * 4096)];
    let small = || (0..20_000_usize, 1..=255_u8).prop_map(|(len, byte)| Fill { len, byte });
    let lens = || prop::collection::vec(0..9_000_usize, 0..6);
    prop_oneof![
        4 => (at(), small()).prop_map(|(at, data)| Op::Write { at, data }),
        2 => (at(), prop::collection::vec(small(), 0..4))
            .prop_map(|(at, data)| Op::WriteVectored { at, data }),
        2 => (at(), 0..50_000_usize).prop_map(|(at, len)| Op::Read { at, len }),
        2 => (at(), lens()).prop_map(|(at, lens)| Op::ReadVectored { at, lens }),
        1 => (0..LARGEST).prop_map(Op::SetLen),
        2 => (at(), len(), any::<bool>())
            .prop_map(|(at, len, unmap)| Op::Zero { at, len, unmap }),
        1 => (at(), len()).prop_map(|(at, len)| Op::Discard { at, len }),
        1 => (at(), len()).prop_map(|(at, len)| Op::Allocate { at, len }),
        3 => (at(), 1..LARGEST).prop_map(|(at, limit)| Op::Runs { at, limit }),
        1 => Just(Op::Flush),
    ]
}

/// Whether the length of the store under test may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// As a file: writes past the end grow it.
    Free,
    /// As a device: operations are cut to fit before they are made.
    Fixed,
}

/// Runs `ops` on `store` and on a vector, and compares after every one.
pub(crate) fn agree_with_a_vector(store: &dyn Storage, length: Length, ops: &[Op]) {
    let mut model = Model { bytes: contents(store) };
    for op in ops {
        let op = match length {
            Length::Free => op.clone(),
            Length::Fixed => model.cut(op),
        };
        model.apply(store, &op);
        assert_eq!(store.len().unwrap(), model.len(), "the length after {op:?}");
    }
    assert!(contents(store) == model.bytes, "the bytes at the end differ");
    model.check_all_runs(store);
}

/// All bytes of a store.
pub(crate) fn contents(store: &dyn Storage) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(store.len().unwrap()).unwrap()];
    let count = store.read_at(HostOffset::ZERO, &mut bytes).unwrap();
    assert_eq!(count, bytes.len());
    bytes
}

struct Model {
    bytes: Vec<u8>,
}

impl Model {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The part of a range that lies inside, as indices.
    fn inside(&self, at: u64, len: u64) -> std::ops::Range<usize> {
        let end = at.saturating_add(len).min(self.len());
        let start = at.min(end);
        usize::try_from(start).unwrap()..usize::try_from(end).unwrap()
    }

    /// `op` made to fit into the store as it is.
    fn cut(&self, op: &Op) -> Op {
        let room = |at: u64| usize::try_from(self.len() - at).unwrap();
        let place = |at: u64| at.min(self.len());
        match op {
            Op::Write { at, data } => {
                let at = place(*at);
                Op::Write { at, data: data.cut(room(at)) }
            }
            Op::WriteVectored { at, data } => {
                let at = place(*at);
                let mut left = room(at);
                let mut fit = |part: &Fill| {
                    let cut = part.cut(left);
                    left -= cut.len;
                    cut
                };
                Op::WriteVectored { at, data: data.iter().map(&mut fit).collect() }
            }
            Op::SetLen(_) => Op::SetLen(self.len()),
            Op::Allocate { at, len } => {
                let at = place(*at);
                Op::Allocate { at, len: (*len).min(self.len() - at) }
            }
            other => other.clone(),
        }
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let start = usize::try_from(at).unwrap();
        if !data.is_empty() {
            let end = start + data.len();
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[start..end].copy_from_slice(data);
        }
    }

    fn apply(&mut self, store: &dyn Storage, op: &Op) {
        match op {
            Op::Write { at, data } => {
                store.write_at(HostOffset(*at), &data.bytes()).unwrap();
                self.write(*at, &data.bytes());
            }
            Op::WriteVectored { at, data } => {
                let data: Vec<_> = data.iter().map(|part| part.bytes()).collect();
                let slices: Vec<_> = data.iter().map(|part| IoSlice::new(part)).collect();
                store.write_vectored_at(HostOffset(*at), &slices).unwrap();
                self.write(*at, &data.concat());
            }
            Op::Read { at, len } => self.check_read(store, *at, *len),
            Op::ReadVectored { at, lens } => self.check_read_vectored(store, *at, lens),
            Op::SetLen(len) => {
                store.set_len(*len).unwrap();
                self.bytes.resize(usize::try_from(*len).unwrap(), 0);
            }
            Op::Zero { at, len, unmap } => self.zero(store, *at, *len, *unmap),
            Op::Discard { at, len } => self.discard(store, *at, *len),
            Op::Allocate { at, len } => self.allocate(store, *at, *len),
            Op::Runs { at, limit } => {
                self.check_run(store, *at, *limit);
            }
            Op::Flush => store.flush().unwrap(),
        }
    }

    fn check_read(&self, store: &dyn Storage, at: u64, len: usize) {
        let expected = &self.bytes[self.inside(at, len as u64)];
        let mut buf = vec![0xee; len];
        let count = store.read_at(HostOffset(at), &mut buf).unwrap();
        assert_eq!(count, expected.len(), "the count of a read of {len} at {at}");
        assert!(buf[..count] == *expected, "a read of {len} at {at} differs");
        assert!(buf[count..].iter().all(|&byte| byte == 0xee), "bytes past the count changed");
    }

    fn check_read_vectored(&self, store: &dyn Storage, at: u64, lens: &[usize]) {
        let total: usize = lens.iter().sum();
        let expected = &self.bytes[self.inside(at, total as u64)];
        let mut parts: Vec<_> = lens.iter().map(|&len| vec![0xee; len]).collect();
        let mut slices: Vec<_> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        let count = store.read_vectored_at(HostOffset(at), &mut slices).unwrap();
        assert!(slices.iter().map(|slice| slice.len()).eq(lens.iter().copied()));
        assert_eq!(count, expected.len(), "the count of a vectored read at {at}");
        assert!(parts.concat()[..count] == *expected, "a vectored read at {at} differs");
    }

    fn zero(&mut self, store: &dyn Storage, at: u64, len: u64, unmap: bool) {
        let Some(space) = store.space() else { return };
        match space.zero(HostOffset(at), len, unmap) {
            Ok(()) => {
                let range = self.inside(at, len);
                self.bytes[range].fill(0);
            }
            Err(Error::Unsupported { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// What is read afterwards is undefined, but only in the range.
    fn discard(&mut self, store: &dyn Storage, at: u64, len: u64) {
        let Some(space) = store.space() else { return };
        match space.discard(HostOffset(at), len) {
            Ok(()) | Err(Error::Unsupported { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let range = self.inside(at, len);
        let now = contents(store);
        self.bytes[range.clone()].copy_from_slice(&now[range]);
    }

    fn allocate(&mut self, store: &dyn Storage, at: u64, len: u64) {
        let Some(space) = store.space() else { return };
        match space.allocate(HostOffset(at), len) {
            Ok(()) if len > 0 => {
                let end = usize::try_from(at + len).unwrap();
                self.bytes.resize(self.bytes.len().max(end), 0);
            }
            Ok(()) | Err(Error::Unsupported { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// A run is not empty, ends within the limit, and a hole reads as zero. Returns its length.
    fn check_run(&self, store: &dyn Storage, at: u64, limit: u64) -> u64 {
        let Some(holes) = store.holes() else { return limit };
        let run = holes.run_at(HostOffset(at), limit).unwrap();
        assert!((1..=limit).contains(&run.len), "{run:?} at {at}, limit {limit}");
        if at >= self.len() {
            assert_eq!((run.len, run.hole), (limit, true), "past the end");
        }
        if run.hole {
            let zero = self.bytes[self.inside(at, run.len)].iter().all(|&byte| byte == 0);
            assert!(zero, "the hole {run:?} at {at} holds data");
        } else {
            assert!(at + run.len <= self.len(), "{run:?} at {at} reaches past the end");
        }
        run.len
    }

    fn check_all_runs(&self, store: &dyn Storage) {
        let mut at = 0;
        while at < self.len() {
            at += self.check_run(store, at, self.len() - at);
        }
    }
}
