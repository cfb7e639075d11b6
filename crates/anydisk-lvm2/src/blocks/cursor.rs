//! A place in a tree, which moves over its entries in order and can pass over what lies below a
//! node without reading it.

use std::sync::Arc;

use anydisk_core::Result;

use super::Blocks;
use super::node::Node;
use super::tree::{Bounds, DEPTH, Tree};

/// What a cursor stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// A node that was not entered: none of its keys is below `low`, its leaves are `height` nodes
    /// down.
    Node {
        low: u64,
        block: u64,
        height: usize,
    },
    Entry {
        key: u64,
        value: u64,
    },
    End,
}

/// A place in a tree.
#[derive(Debug)]
pub(crate) struct Cursor {
    blocks: Arc<Blocks>,
    /// The root, until it is entered or passed over.
    root: Option<u64>,
    /// Nodes on the way to the place, with the index in each.
    path: Vec<Level>,
    /// Smaller keys are passed over.
    from: u64,
    height: usize,
    value_size: usize,
}

#[derive(Debug)]
struct Level {
    node: Arc<Node>,
    index: usize,
    bounds: Bounds,
}

impl Cursor {
    /// Before the first key that is not below `from` of the tree with this root; without a root the
    /// tree is empty.
    pub(crate) fn new(
        blocks: Arc<Blocks>,
        root: Option<u64>,
        value_size: usize,
        from: u64,
    ) -> Result<Self> {
        let mut cursor = Self { blocks, root, path: Vec::new(), from, height: 0, value_size };
        cursor.height = cursor.measure()?;
        Ok(cursor)
    }

    fn tree(&self, root: u64) -> Tree<'_> {
        Tree { blocks: &self.blocks, root, value_size: self.value_size }
    }

    /// Nodes from the root down to its leftmost leaf.
    fn measure(&self) -> Result<usize> {
        let Some(root) = self.root else { return Ok(0) };
        let tree = self.tree(root);
        let (mut block, mut bounds) = (root, Bounds::ALL);
        for height in 0..DEPTH {
            let node = tree.node(block, bounds)?;
            if node.leaf {
                return Ok(height);
            }
            (block, bounds) = (node.value(0), bounds.of_child(&node, 0));
        }
        Err(tree.too_deep())
    }

    pub(crate) fn ahead(&self) -> Ahead {
        if let Some(block) = self.root {
            return Ahead::Node { low: 0, block, height: self.height };
        }
        let Some(Level { node, index, .. }) = self.path.last() else { return Ahead::End };
        let (key, value) = (node.key(*index), node.value(*index));
        match node.leaf {
            true => Ahead::Entry { key, value },
            false => {
                let height = self.height.saturating_sub(self.path.len());
                Ahead::Node { low: key, block: value, height }
            }
        }
    }

    /// Goes into the node ahead.
    pub(crate) fn enter(&mut self) -> Result<()> {
        let (block, bounds) = match (self.root.take(), self.path.last()) {
            (Some(root), _) => (root, Bounds::ALL),
            (None, Some(Level { node, index, bounds })) => {
                (node.value(*index), bounds.of_child(node, *index))
            }
            (None, None) => return Ok(()),
        };
        let tree = self.tree(block);
        if self.path.len() >= DEPTH {
            return Err(tree.too_deep());
        }
        let node = tree.node(block, bounds)?;
        let index = match node.leaf {
            true => node.at_or_after(self.from),
            false => node.at_or_before(self.from).unwrap_or(0),
        };
        self.path.push(Level { node, index, bounds });
        self.leave_finished();
        Ok(())
    }

    /// Passes over the node or entry ahead.
    pub(crate) fn skip(&mut self) {
        if self.root.take().is_none() {
            if let Some(level) = self.path.last_mut() {
                level.index += 1;
            }
            self.leave_finished();
        }
    }

    /// Leaves nodes whose end was reached.
    fn leave_finished(&mut self) {
        while self.path.last().is_some_and(|level| level.index >= level.node.count) {
            self.path.pop();
            if let Some(level) = self.path.last_mut() {
                level.index += 1;
            }
        }
    }
}
