//! One node of a tree: bytes to checked keys and values. Pure.

use anydisk_core::{HostOffset, Invalid, Value};

use super::{BLOCK, Bytes, invalid, number};

/// Bytes in front of the keys.
const HEADER: usize = 32;
/// Bytes of a key, and of a child's block number.
const WORD: usize = 8;

/// A node whose counts and order can be trusted. Its children and values cannot.
#[derive(Debug)]
pub(crate) struct Node {
    bytes: Bytes,
    block: u64,
    pub(crate) leaf: bool,
    pub(crate) count: usize,
    max: usize,
    value_size: usize,
}

impl Node {
    /// Checks the node that `block` holds.
    pub(crate) fn parse(bytes: Bytes, block: u64) -> Result<Self, Invalid> {
        let at = HostOffset(block.saturating_mul(BLOCK as u64));
        let wrong = |field, found: u64, expected: &'static str| {
            invalid(field, at, Value::Number(found), expected)
        };
        let small = |at| usize::try_from(number::<4>(&*bytes, at)).unwrap_or(usize::MAX);
        let flags = number::<4>(&*bytes, 4);
        let (count, max, value_size) = (small(16), small(20), small(24));
        let leaf = match flags {
            1 => false,
            2 => true,
            _ => return Err(wrong("flags of a node", flags, "1 (internal) or 2 (leaf)")),
        };
        let len = value_size.checked_add(WORD).and_then(|entry| entry.checked_mul(max));
        if count > max || len.is_none_or(|len| len > BLOCK - HEADER) {
            return Err(wrong("entries of a node", count as u64, "as many as fit"));
        }
        if !leaf && (count == 0 || value_size != WORD) {
            return Err(wrong("entries of an internal node", count as u64, "at least one child"));
        }
        let node = Self { bytes, block, leaf, count, max, value_size };
        match (1..count).find(|index| node.key(index - 1) >= node.key(*index)) {
            Some(index) => Err(wrong("key of a node", node.key(index), "more than the one before")),
            None => Ok(node),
        }
    }

    pub(crate) fn key(&self, index: usize) -> u64 {
        number::<8>(&*self.bytes, HEADER + WORD * index)
    }

    /// The first 8 bytes of a value.
    pub(crate) fn value(&self, index: usize) -> u64 {
        number::<8>(&*self.bytes, HEADER + WORD * self.max + self.value_size * index)
    }

    /// The first entry whose key is not below `key`.
    pub(crate) fn at_or_after(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The last entry whose key is not above `key`.
    pub(crate) fn at_or_before(&self, key: u64) -> Option<usize> {
        let after = self.at_or_after(key);
        if after < self.count && self.key(after) == key {
            Some(after)
        } else {
            after.checked_sub(1)
        }
    }

    /// Checks that all keys are from `low` on and below `high`, and that values have `value_size`
    /// bytes if they are not children.
    pub(crate) fn check(
        &self,
        low: u64,
        high: Option<u64>,
        value_size: usize,
    ) -> Result<(), Invalid> {
        let at = HostOffset(self.block.saturating_mul(BLOCK as u64));
        let last = self.count.checked_sub(1).map(|last| self.key(last));
        let outside =
            last.is_some_and(|last| self.key(0) < low || high.is_some_and(|high| last >= high));
        if outside {
            let expected = match high {
                Some(high) => format!("keys from {low} on, below {high}, as the node above says"),
                None => format!("keys from {low} on, as the node above says"),
            };
            return Err(invalid("key of a node", at, self.key(0).into(), expected));
        }
        if self.leaf && self.value_size != value_size {
            let found = Value::Number(self.value_size as u64);
            return Err(invalid("value size of a node", at, found, value_size.to_string()));
        }
        Ok(())
    }
}
