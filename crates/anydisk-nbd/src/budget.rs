//! How much memory the data of all clients takes, whatever they ask for.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most bytes that a thread holds of the data of a request.
pub(crate) const PIECE: usize = 2 << 20;

/// Bytes that a thread may hold in any case, so that every client is served.
const LEAST: usize = 64 << 10;

/// Bytes that are left for all clients.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

/// Memory for the data of a request, or of a part of it.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    bytes: Vec<u8>,
    /// What goes back to the budget.
    taken: Option<&'a Budget>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Memory for so many bytes, or for fewer: nobody waits for it, so that a client which takes no
    /// answers keeps no other from being served.
    pub(crate) fn piece(&self, wanted: usize) -> Piece<'_> {
        let wanted = wanted.min(PIECE);
        let is_left = wanted > LEAST
            && self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(wanted)).is_ok();
        match is_left {
            true => Piece { bytes: vec![0; wanted], taken: Some(self) },
            false => Piece { bytes: vec![0; wanted.min(LEAST)], taken: None },
        }
    }
}

impl Piece<'_> {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All of it, or its first bytes.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        let len = len.min(self.bytes.len());
        self.bytes.get_mut(..len).unwrap_or_default()
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.taken {
            budget.0.fetch_add(self.bytes.len(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_once_the_budget_is_gone_and_large_again_when_it_is_back() {
        let budget = Budget::new(3 << 20);
        let first = budget.piece(usize::MAX);
        assert_eq!(first.len(), PIECE);
        let second = budget.piece(1 << 20);
        assert_eq!(second.len(), 1 << 20);
        assert_eq!(budget.piece(1 << 20).len(), LEAST);
        assert_eq!(budget.piece(5).len(), 5);
        drop(first);
        assert_eq!(budget.piece(usize::MAX).len(), PIECE);
        assert_eq!(budget.piece(usize::MAX).len(), PIECE);
        drop(second);
        assert_eq!(budget.0.load(Relaxed), 3 << 20);
    }
}
