//! What changed between two volumes: chunks that classic snapshots hold, and mappings of thin
//! volumes that differ.

use std::sync::Arc;

use anydisk_core::{Changes, GuestOffset, GuestRange, Result};

use crate::blocks::cursor::{Ahead, Cursor};
use crate::run_map::RunMap;
use crate::thin::{Pool, TIME_BITS, VALUE};

/// Chunks that one of several snapshots of an origin holds.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) size: u64,
    /// Bytes of a chunk, and the chunks.
    pub(crate) maps: Vec<(u64, RunMap)>,
}

impl Changes for Copied {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let first = |(chunk, map): &(u64, RunMap)| {
            let (start, len) = map.next(from.get() / chunk)?;
            range(start, len, *chunk, from, self.size)
        };
        Ok(self.maps.iter().filter_map(first).min_by_key(|range| range.start()))
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct All(pub(crate) u64);

impl Changes for All {
    fn size(&self) -> u64 {
        self.0
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let rest = GuestRange::between(from, GuestOffset(self.0));
        Ok((!rest.is_empty()).then_some(rest))
    }
}

/// Mappings of two thin volumes of one pool that differ. What both share below a node is passed
/// over without reading it, so that the work is in proportion to the change.
#[derive(Debug)]
pub(crate) struct Remapped {
    pool: Arc<Pool>,
    roots: [Option<u64>; 2],
    size: u64,
    /// Bytes that both volumes have; everything behind is told as changed.
    both: u64,
    /// `None` before the first question.
    walk: Option<Walk>,
}

/// Two cursors side by side.
#[derive(Debug)]
struct Walk {
    then: Cursor,
    now: Cursor,
    /// The next chunk that differs, if it was found already.
    found: Option<u64>,
    /// No question before this chunk can be answered without going back.
    passed: u64,
}

/// Chunks that are told at once, so that a question takes bounded time.
const AT_ONCE: u64 = 1 << 16;

impl Remapped {
    /// `roots` and `sizes`: of the volume as it was, and of the one that is spoken of.
    pub(crate) fn new(pool: Arc<Pool>, roots: [Option<u64>; 2], sizes: [u64; 2]) -> Self {
        let [then, size] = sizes;
        // A chunk that the smaller one has only a part of counts as one it does not have.
        let both = if then < size { then / pool.chunk * pool.chunk } else { size };
        Self { pool, roots, size, both, walk: None }
    }

    fn start(&self, from: u64) -> Result<Walk> {
        let cursor = |root| Cursor::new(Arc::clone(&self.pool.blocks), root, VALUE, from);
        let [then, now] = self.roots;
        Ok(Walk { then: cursor(then)?, now: cursor(now)?, found: None, passed: from })
    }
}

impl Changes for Remapped {
    fn size(&self) -> u64 {
        self.size
    }

    fn next(&mut self, from: GuestOffset) -> Result<Option<GuestRange>> {
        let chunk = self.pool.chunk;
        let number = from.get() / chunk;
        let mut walk = match self.walk.take() {
            Some(walk) if walk.passed <= number => walk,
            _ => self.start(number)?,
        };
        let found = walk.run(number)?;
        self.walk = Some(walk);
        let differs = found.and_then(|(start, len)| range(start, len, chunk, from, self.both));
        let behind = GuestRange::between(from.max(GuestOffset(self.both)), GuestOffset(self.size));
        Ok(differs.or_else(|| (!behind.is_empty()).then_some(behind)))
    }
}

impl Walk {
    /// The first run of chunks, not before `from`, that differ.
    fn run(&mut self, from: u64) -> Result<Option<(u64, u64)>> {
        let start = loop {
            match self.differing()? {
                Some(chunk) if chunk < from => {}
                Some(chunk) => break chunk,
                None => return Ok(None),
            }
        };
        let mut len = 1;
        while len < AT_ONCE {
            match self.differing()? {
                Some(chunk) if start.checked_add(len) == Some(chunk) => len += 1,
                other => {
                    self.found = other;
                    break;
                }
            }
        }
        self.passed = start.saturating_add(len);
        Ok(Some((start, len)))
    }

    /// The next chunk that differs.
    fn differing(&mut self) -> Result<Option<u64>> {
        if let Some(found) = self.found.take() {
            return Ok(Some(found));
        }
        loop {
            match (self.then.ahead(), self.now.ahead()) {
                (Ahead::End, Ahead::End) => return Ok(None),
                (Ahead::Node { block: a, .. }, Ahead::Node { block: b, .. }) if a == b => {
                    self.then.skip();
                    self.now.skip();
                }
                (Ahead::Node { height: a, .. }, Ahead::Node { height: b, .. }) => {
                    if a >= b {
                        self.then.enter()?;
                    }
                    if b >= a {
                        self.now.enter()?;
                    }
                }
                (Ahead::Entry { key: a, value: x }, Ahead::Entry { key: b, value: y }) => {
                    if a <= b {
                        self.then.skip();
                    }
                    if b <= a {
                        self.now.skip();
                    }
                    // Another time of the same chunk is the same content.
                    if a != b || x >> TIME_BITS != y >> TIME_BITS {
                        return Ok(Some(a.min(b)));
                    }
                }
                (ahead, other) => {
                    if let Some(found) = Self::alone(&mut self.then, ahead, other)? {
                        return Ok(Some(found));
                    }
                    if let Some(found) = Self::alone(&mut self.now, other, ahead)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }

    /// One step of a cursor where the two stand before different kinds of thing: into a node that
    /// may hold what the other stands before, or over an entry that the other does not have.
    fn alone(cursor: &mut Cursor, ahead: Ahead, other: Ahead) -> Result<Option<u64>> {
        match (ahead, other) {
            (Ahead::Node { low, .. }, Ahead::Entry { key, .. }) if low <= key => cursor.enter()?,
            (Ahead::Node { .. }, Ahead::End) => cursor.enter()?,
            (Ahead::Entry { key, .. }, Ahead::Node { low, .. }) if key < low => {
                cursor.skip();
                return Ok(Some(key));
            }
            (Ahead::Entry { key, .. }, Ahead::End) => {
                cursor.skip();
                return Ok(Some(key));
            }
            _ => {}
        }
        Ok(None)
    }
}

/// A run of chunks as bytes, cut to what lies behind `from` and before `size`.
fn range(start: u64, len: u64, chunk: u64, from: GuestOffset, size: u64) -> Option<GuestRange> {
    let place = |number: u64| GuestOffset(number.saturating_mul(chunk).min(size));
    let range = GuestRange::between(place(start).max(from), place(start.saturating_add(len)));
    (!range.is_empty()).then_some(range)
}
