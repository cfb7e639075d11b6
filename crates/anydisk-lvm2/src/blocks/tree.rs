//! Finding entries of a tree. Nodes are read as they are needed.

use std::sync::Arc;

use anydisk_core::{HostOffset, Result, Value};

use super::node::Node;
use super::{Blocks, invalid};

/// Nodes on the way from the root to an entry. With 126 children each, eight are more than enough
/// for any volume.
pub(crate) const DEPTH: usize = 16;

/// A tree whose root is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) blocks: &'a Blocks,
    /// Block of the root.
    pub(crate) root: u64,
    /// Bytes of a value.
    pub(crate) value_size: usize,
}

/// An entry that was found.
#[derive(Debug)]
pub(crate) struct Found {
    node: Arc<Node>,
    index: usize,
}

/// The keys that a node may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) low: u64,
    pub(crate) high: Option<u64>,
}

impl Bounds {
    pub(crate) const ALL: Self = Self { low: 0, high: None };

    /// Those of a child.
    pub(crate) fn of_child(self, node: &Node, index: usize) -> Self {
        let next = index + 1;
        let high = if next < node.count { Some(node.key(next)) } else { self.high };
        Self { low: node.key(index), high }
    }
}

impl Tree<'_> {
    /// The node in a block, known to have keys inside `bounds`.
    pub(crate) fn node(&self, block: u64, bounds: Bounds) -> Result<Arc<Node>> {
        let node = self.blocks.node(block)?;
        node.check(bounds.low, bounds.high, self.value_size)?;
        Ok(node)
    }

    /// The first 8 bytes of the value of `key`.
    pub(crate) fn get(&self, key: u64) -> Result<Option<u64>> {
        Ok(self.at_or_after(key)?.filter(|found| found.key() == key).map(|found| found.value()))
    }

    /// The first entry whose key is not below `key`.
    pub(crate) fn at_or_after(&self, key: u64) -> Result<Option<Found>> {
        // The nearest node to the right of the way down: if the leaf has no such key, it begins
        // with one.
        let mut right = None;
        let (mut block, mut bounds) = (self.root, Bounds::ALL);
        for _ in 0..2 * DEPTH {
            let node = self.node(block, bounds)?;
            if node.leaf {
                let index = node.at_or_after(key);
                if index < node.count {
                    return Ok(Some(Found { node, index }));
                }
                let Some(next) = right.take() else { return Ok(None) };
                (block, bounds) = next;
                continue;
            }
            let index = node.at_or_before(key).unwrap_or(0);
            if index + 1 < node.count {
                right = Some((node.value(index + 1), bounds.of_child(&node, index + 1)));
            }
            (block, bounds) = (node.value(index), bounds.of_child(&node, index));
        }
        Err(self.too_deep())
    }

    #[cold]
    pub(crate) fn too_deep(&self) -> anydisk_core::Error {
        let (at, found) = (HostOffset::ZERO, Value::from(self.root));
        invalid("tree", at, found, format!("a root less than {DEPTH} nodes above its leaves"))
            .into()
    }
}

impl Found {
    pub(crate) fn key(&self) -> u64 {
        self.node.key(self.index)
    }

    pub(crate) fn value(&self) -> u64 {
        self.node.value(self.index)
    }

    /// Entries from this one on, in the same leaf, whose keys go up by one and whose values go up
    /// by `step`.
    pub(crate) fn run(&self, step: u64) -> u64 {
        let mut len = 1;
        for index in self.index + 1..self.node.count {
            let key = self.key().checked_add(len);
            let value = len.checked_mul(step).and_then(|up| self.value().checked_add(up));
            if key != Some(self.node.key(index)) || value != Some(self.node.value(index)) {
                break;
            }
            len += 1;
        }
        len
    }
}
