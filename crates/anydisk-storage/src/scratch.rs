//! A store over another one, whose changes stay in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Holes, HostOffset, Identity, Result, Run, Storage, StorageExt};

/// Bytes that are kept together.
const PAGE: usize = 4096;
const PAGE_LEN: u64 = PAGE as u64;

/// Shows another store, and what was written here instead of it. Nothing reaches the store below,
/// which may be read-only: for trying out what a change would come to.
#[derive(Debug)]
pub struct Scratch {
    below: Arc<dyn Storage>,
    limit: usize,
    state: RwLock<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// Pages that were written, by number, as a whole.
    pages: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// Bytes of the store below that still show: it may have been cut, and grown again.
    shown: u64,
}

impl Scratch {
    /// A store that shows `below`, and keeps at most `limit` bytes of changes.
    ///
    /// # Errors
    /// Those of finding the length of `below`.
    pub fn over(below: Arc<dyn Storage>, limit: usize) -> Result<Self> {
        let len = below.len()?;
        let state = RwLock::new(Changes { pages: BTreeMap::new(), len, shown: len });
        Ok(Self { below, limit, state })
    }

    fn shared(&self) -> RwLockReadGuard<'_, Changes> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Changes> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the store below still shows, zeroes behind it.
    fn read_below(&self, shown: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        let count = usize::try_from(shown.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let (there, rest) = buf.split_at_mut(count);
        rest.fill(0);
        self.below.read_padded_at(HostOffset(at), there)
    }

    /// The page of this number, to be changed.
    fn page<'a>(&self, changes: &'a mut Changes, number: u64) -> Result<&'a mut [u8]> {
        if !changes.pages.contains_key(&number) {
            if (changes.pages.len() + 1) * PAGE > self.limit {
                let what = "keeping so many changes in memory";
                return Err(Error::Unsupported { store: self.name().into(), what });
            }
            let mut page = vec![0; PAGE].into_boxed_slice();
            self.read_below(changes.shown, number * PAGE_LEN, &mut page)?;
            changes.pages.insert(number, page);
        }
        Ok(changes.pages.get_mut(&number).map_or(&mut [], |page| &mut page[..]))
    }
}

/// The part of `len` bytes at `at` that lies in the page of this number: where in the page it
/// begins, and where in the bytes, and how long it is.
fn overlap(number: u64, at: u64, len: usize) -> (usize, usize, usize) {
    let start = number * PAGE_LEN;
    let within = usize::try_from(at.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
    let skipped = usize::try_from(start.saturating_sub(at)).unwrap_or(len).min(len);
    (within, skipped, (PAGE - within).min(len - skipped))
}

impl Storage for Scratch {
    fn len(&self) -> Result<u64> {
        Ok(self.shared().len)
    }

    fn read_at(&self, at: HostOffset, buf: &mut [u8]) -> Result<usize> {
        let (changes, at) = (self.shared(), at.get());
        let inside = usize::try_from(changes.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = inside.min(buf.len());
        if count == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..count];
        self.read_below(changes.shown, at, buf)?;
        let last = (at + (count as u64 - 1)) / PAGE_LEN;
        for (number, page) in changes.pages.range(at / PAGE_LEN..=last) {
            let (within, skipped, len) = overlap(*number, at, count);
            buf[skipped..][..len].copy_from_slice(&page[within..][..len]);
        }
        Ok(count)
    }

    fn write_at(&self, at: HostOffset, data: &[u8]) -> Result<()> {
        let end = at.checked_add(data.len() as u64).ok_or_else(|| Error::OutOfRange {
            store: self.name().into(),
            at,
            len: data.len() as u64,
            end: u64::MAX,
        })?;
        if data.is_empty() {
            return Ok(());
        }
        let (mut changes, at) = (self.alone(), at.get());
        for number in at / PAGE_LEN..=(end.get() - 1) / PAGE_LEN {
            let (within, skipped, len) = overlap(number, at, data.len());
            let page = self.page(&mut changes, number)?;
            page[within..][..len].copy_from_slice(&data[skipped..][..len]);
        }
        changes.len = changes.len.max(end.get());
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut changes = self.alone();
        changes.shown = changes.shown.min(len);
        changes.pages.split_off(&len.div_ceil(PAGE_LEN));
        if let Some(last) = changes.pages.get_mut(&(len / PAGE_LEN)) {
            let (within, ..) = overlap(len / PAGE_LEN, len, 0);
            last[within..].fill(0);
        }
        changes.len = len;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        self.below.name()
    }

    fn holes(&self) -> Option<&dyn Holes> {
        Some(self)
    }

    fn identity(&self) -> Option<Identity> {
        self.below.identity()
    }
}

impl Holes for Scratch {
    fn run_at(&self, at: HostOffset, limit: u64) -> Result<Run> {
        let (changes, place) = (self.shared(), at.get());
        if place >= changes.len {
            return Ok(Run { len: limit, hole: true });
        }
        let next =
            changes.pages.range(place / PAGE_LEN..).next().map(|(number, _)| number * PAGE_LEN);
        if let Some(page) = next.filter(|page| *page <= place) {
            return Ok(Run { len: limit.min(PAGE_LEN - (place - page)), hole: false });
        }
        let limit = limit.min(next.map_or(u64::MAX, |page| page - place));
        if place >= changes.shown {
            return Ok(Run { len: limit, hole: true });
        }
        let limit = limit.min(changes.shown - place);
        match self.below.holes() {
            Some(holes) => holes.run_at(at, limit),
            None => Ok(Run { len: limit, hole: false }),
        }
    }

    /// As the store below, before any change.
    fn allocated(&self) -> Result<u64> {
        match self.below.holes() {
            Some(holes) => holes.allocated(),
            None => self.below.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Read(u64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let place = 0_u64..30_000;
        let step = prop_oneof![
            (place.clone(), proptest::collection::vec(any::<u8>(), 0..9000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            place.clone().prop_map(Step::SetLen),
            (place, 0_usize..9000).prop_map(|(at, len)| Step::Read(at, len)),
        ];
        proptest::collection::vec(step, 1..20)
    }

    proptest! {
        #[test]
        fn it_reads_as_a_copy_would_and_the_store_below_stays(steps in steps(), size in 0_usize..20_000) {
            let old: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251 + 1).expect("a byte")).collect();
            let below = Arc::new(MemoryStorage::new(old.clone()));
            let (copy, scratch) = (MemoryStorage::new(old.clone()), Scratch::over(below.clone(), 1 << 20)?);
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        copy.write_at(HostOffset(at), &data)?;
                        scratch.write_at(HostOffset(at), &data)?;
                    }
                    Step::SetLen(len) => {
                        copy.set_len(len)?;
                        scratch.set_len(len)?;
                    }
                    Step::Read(at, len) => {
                        let (mut one, mut other) = (vec![1; len], vec![1; len]);
                        let counts = (copy.read_at(HostOffset(at), &mut one)?, scratch.read_at(HostOffset(at), &mut other)?);
                        prop_assert_eq!(counts.0, counts.1);
                        prop_assert_eq!(one, other);
                    }
                }
                prop_assert_eq!(copy.len()?, scratch.len()?);
            }
            prop_assert_eq!(below.to_vec(), old);
            let mut all = vec![0; usize::try_from(scratch.len()?).expect("small")];
            scratch.read_at(HostOffset::ZERO, &mut all)?;
            let mut at = 0;
            while at < all.len() {
                let run = scratch.run_at(HostOffset(at as u64), (all.len() - at) as u64)?;
                let end = at + usize::try_from(run.len).expect("small");
                prop_assert!(run.len > 0 && (!run.hole || all[at..end].iter().all(|byte| *byte == 0)));
                at = end;
            }
        }
    }

    #[test]
    fn more_changes_than_allowed_are_refused() {
        let scratch = Scratch::over(Arc::new(MemoryStorage::default()), 2 * PAGE).expect("memory");
        scratch.write_at(HostOffset(0), &[1; PAGE]).expect("a page");
        scratch.write_at(HostOffset(1 << 40), &[1]).expect("another");
        scratch.write_at(HostOffset(5), &[2; 100]).expect("the same again");
        assert!(scratch.write_at(HostOffset(PAGE_LEN), &[1]).is_err());
    }
}
