//! A disk as a vector of bytes: the slow and obvious answer.

use std::collections::BTreeMap;

use crate::Operation;

const PAGE: usize = 4096;
const PAGE_LEN: u64 = PAGE as u64;

/// What a disk should hold, byte for byte. Only pages that were written take memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteModel {
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl ByteModel {
    /// `size` bytes of zero.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, pages: BTreeMap::new() }
    }

    /// These bytes, cut or filled up with zeroes to `size`.
    #[must_use]
    pub fn of(bytes: &[u8], size: u64) -> Self {
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
        let mut model = Self::new(size);
        model.write(0, &bytes[..len]);
        model
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Puts `data` at `at`.
    ///
    /// # Panics
    /// If that reaches past the end.
    pub fn write(&mut self, at: u64, data: &[u8]) {
        self.change(at, data.len() as u64, |done, part| {
            part.copy_from_slice(&data[done..done + part.len()]);
        });
    }

    /// Makes `len` bytes at `at` zero.
    ///
    /// # Panics
    /// If that reaches past the end.
    pub fn zero(&mut self, at: u64, len: u64) {
        self.check(at, len);
        let whole = at.div_ceil(PAGE_LEN)..(at + len) / PAGE_LEN;
        self.pages.retain(|page, _| !whole.contains(page));
        let pages = at / PAGE_LEN..(at + len).div_ceil(PAGE_LEN);
        for (page, bytes) in self.pages.range_mut(pages) {
            let start = page * PAGE_LEN;
            let from = at.max(start) - start;
            let to = (at + len).min(start + PAGE_LEN) - start;
            bytes[index(from)..index(to)].fill(0);
        }
    }

    /// The `len` bytes at `at`.
    ///
    /// # Panics
    /// If that reaches past the end.
    #[must_use]
    pub fn read(&self, at: u64, len: u64) -> Vec<u8> {
        self.check(at, len);
        let mut bytes = vec![0; index(len)];
        for (done, (page, within, part)) in parts(at, len) {
            if let Some(page) = self.pages.get(&page) {
                bytes[done..done + part].copy_from_slice(&page[within..within + part]);
            }
        }
        bytes
    }

    /// All bytes.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.read(0, self.size)
    }

    /// Changes the size; new bytes are zero.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size - size);
        }
        self.size = size;
    }

    /// Does what the operation does to the content. A discard does nothing here: what it leaves is
    /// the image's choice between the old bytes and zeroes.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { at, .. } => self.write(*at, &operation.data()),
            Operation::Zero { at, len, .. } => self.zero(*at, *len),
            Operation::Discard { .. }
            | Operation::Read { .. }
            | Operation::Flush
            | Operation::Reopen => {}
        }
    }

    fn change(&mut self, at: u64, len: u64, mut change: impl FnMut(usize, &mut [u8])) {
        self.check(at, len);
        for (done, (page, within, part)) in parts(at, len) {
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            change(done, &mut page[within..within + part]);
        }
    }

    fn check(&self, at: u64, len: u64) {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.size), "{len} bytes at {at} of {}", self.size);
    }
}

/// Cuts a range where pages meet: bytes before it, page, place in the page, length.
fn parts(at: u64, len: u64) -> impl Iterator<Item = (usize, (u64, usize, usize))> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let place = at + done;
        let part = (len - done).min(PAGE_LEN - place % PAGE_LEN);
        let answer = (index(done), (place / PAGE_LEN, index(place % PAGE_LEN), index(part)));
        done += part;
        (part > 0).then_some(answer)
    })
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("it fits in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Zero(u64, u64),
        Resize(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let at = || 0_u64..20_000;
        let step = prop_oneof![
            (at(), prop::collection::vec(1_u8.., 0..9000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (at(), 0_u64..9000).prop_map(|(at, len)| Step::Zero(at, len)),
            at().prop_map(Step::Resize),
        ];
        prop::collection::vec(step, 1..20)
    }

    proptest! {
        #[test]
        fn pages_hold_what_a_plain_vector_holds(steps in steps()) {
            let mut model = ByteModel::new(10_000);
            let mut plain = vec![0_u8; 10_000];
            for step in steps {
                let size = plain.len() as u64;
                match step {
                    Step::Write(at, mut data) => {
                        let at = at.min(size);
                        data.truncate(index(size - at));
                        plain[index(at)..][..data.len()].copy_from_slice(&data);
                        model.write(at, &data);
                    }
                    Step::Zero(at, len) => {
                        let at = at.min(size);
                        let len = len.min(size - at);
                        plain[index(at)..][..index(len)].fill(0);
                        model.zero(at, len);
                    }
                    Step::Resize(size) => {
                        plain.resize(index(size), 0);
                        model.resize(size);
                    }
                }
                prop_assert!(model.contents() == plain);
            }
        }
    }
}
