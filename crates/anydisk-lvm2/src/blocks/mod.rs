//! Blocks of metadata as device-mapper keeps it: 4096 bytes under a checksum, and trees of them.

pub(crate) mod array;
pub(crate) mod cursor;
pub(crate) mod node;
pub(crate) mod tree;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{HostOffset, Invalid, Limits, Result, Storage, StorageExt, Value};

use crate::{NAME, checksum};
use node::Node;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;

/// A block, read whole.
pub(crate) type Bytes = Box<[u8; BLOCK]>;

/// The constants that checksums are mixed with, by the kind of block.
pub(crate) mod kind {
    pub(crate) const THIN_SUPERBLOCK: u32 = 160_774;
    pub(crate) const CACHE_SUPERBLOCK: u32 = 9_031_977;
    pub(crate) const NODE: u32 = 121_107;
    pub(crate) const ARRAY: u32 = 595_846_735;
}

/// A metadata volume with a bounded number of its nodes in memory.
#[derive(Debug)]
pub(crate) struct Blocks {
    store: Arc<dyn Storage>,
    count: u64,
    most: usize,
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    by_block: HashMap<u64, Arc<Node>>,
    /// The one that came in first goes first.
    order: VecDeque<u64>,
}

impl Blocks {
    pub(crate) fn new(store: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let count = store.len()? / BLOCK as u64;
        let most = (limits.table_cache / (BLOCK + 256)).max(32);
        Ok(Self { store, count, most, nodes: Mutex::default() })
    }

    /// Reads a block and checks its checksum; `number_at` is where the block holds its own number.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn read(&self, block: u64, kind: u32, number_at: usize) -> Result<Bytes> {
        let Some(at) = block.checked_mul(BLOCK as u64).filter(|_| block < self.count) else {
            let expected = format!("a block of the {} of the metadata", self.count);
            return Err(invalid("block number", HostOffset::ZERO, block.into(), expected).into());
        };
        let at = HostOffset(at);
        let mut bytes = Box::new([0; BLOCK]);
        self.store.read_exact_at(at, &mut bytes[..])?;
        let expected = checksum::block(&bytes[4..], kind);
        let found = number::<4>(&*bytes, 0);
        if found != u64::from(expected) {
            let expected = format!("{expected:#x}");
            return Err(invalid("checksum of a block", at, Value::Hex(found), expected).into());
        }
        let own = number::<8>(&*bytes, number_at);
        if own != block {
            return Err(invalid("number of a block", at, own.into(), block.to_string()).into());
        }
        Ok(bytes)
    }

    /// The node in this block.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn node(&self, block: u64) -> Result<Arc<Node>> {
        if let Some(node) = self.lock().by_block.get(&block) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::parse(self.read(block, kind::NODE, 8)?, block)?);
        let mut nodes = self.lock();
        if nodes.by_block.insert(block, Arc::clone(&node)).is_none() {
            nodes.order.push_back(block);
        }
        while nodes.order.len() > self.most {
            if let Some(oldest) = nodes.order.pop_front() {
                nodes.by_block.remove(&oldest);
            }
        }
        Ok(node)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of `N` bytes at `at`; 0 where the bytes end before that.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    if let Some(part) = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        wide[..N].copy_from_slice(part);
    }
    u64::from_le_bytes(wide)
}

/// An [`Invalid`] for something in metadata; places count from the start of its volume.
pub(crate) fn invalid(
    field: &'static str,
    at: HostOffset,
    found: Value,
    expected: impl Into<Cow<'static, str>>,
) -> Invalid {
    let field = format!("metadata volume: {field}").into();
    Invalid { format: NAME, field, at, found, expected: expected.into() }
}
