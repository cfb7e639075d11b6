//! Compacting an image that is open: the file becomes as short as what it holds, while others read.
//!
//! What moves, and in which order, is told in [`check::compact`]. Here is what an
//! open image adds: nobody writes, nobody reads where something is about to be written, and memory
//! learns where everything is. Who goes on reading for too long ends it early: what has moved stays
//! where it is now, and what lies behind is not written over until he is done.

use std::time::Duration;

use anydisk_core::{Compact, Error, Result, Storage};

use crate::alloc::{Allocator, RefcountTable};
use crate::bitmap::Directory;
use crate::check::{self, Pace};
use crate::guard::Guard;
use crate::survey::survey;
use crate::write::WritableImage;
use crate::{Header, NAME};

/// How long a lease may be held before compacting is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is waited for then.
const LITTLE: Duration = Duration::from_millis(100);

impl Compact for WritableImage {
    fn compact(&self, progress: &dyn Fn(u64, u64) -> bool) -> Result<u64> {
        let _turn = self.turns.take();
        if self.pins.is_any_open() {
            return Err(refused("compacting while a snapshot is open"));
        }
        let frozen = self.freeze();
        let spare = self.new_tables().spare.take();
        self.space.give_back(spare.map(|fresh| fresh.clusters));
        let _alone = self.alone_in(&frozen)?;
        let (store, limits) = (&self.shared.store, &self.shared.limits);
        // Before anything changes, so that whoever is refused here can go on as before.
        self.settle(PATIENCE)?;
        // With LUKS this decrypts by the places of the file, as what moves needs it.
        let by_place = self.shared.header.crypt_method == 2;
        let data: Option<&dyn Storage> = by_place.then_some(&*self.shared.data);
        let settle = || self.settle(PATIENCE);
        let compacted = check::compact(store, limits, data, &Pace::new(progress, &settle));
        // Also after an error: the medium is in order at each moment, and may have changed.
        let is_settled = self.settle(LITTLE).is_ok();
        let reloaded = self.reload();
        let reloaded =
            if is_settled { reloaded } else { reloaded.and_then(|()| self.space.freeze()) };
        if let Err(error) = &reloaded {
            self.space.distrust(format!("after compacting ({error}) it must be opened anew"));
        }
        compacted.and_then(|gained| reloaded.map(|()| gained))
    }
}

impl WritableImage {
    /// Forgets where things were, and waits until nobody reads there any more. What is free may
    /// then be written over.
    fn settle(&self, patience: Duration) -> Result<()> {
        let shared = &self.shared;
        let header = Header::read(&*shared.store, &shared.limits)?;
        if header.l1_table_offset != shared.l1_table() {
            let entries = u64::from(header.l1_size);
            shared.move_l1(header.l1_table_offset, entries, entries);
        }
        let forget = || [&shared.l1, &shared.l2].into_iter().for_each(|cache| cache.clear());
        forget();
        // All is written: what was laid aside before an error waits for leases only.
        self.space.age();
        if !shared.leases.wait_for_all(patience) {
            return Err(refused("compacting while parts of the disk are in use"));
        }
        // What the last of them has put there.
        forget();
        self.space.release();
        Ok(())
    }

    /// Reads again what is kept in memory of the image. Nobody writes.
    fn reload(&self) -> Result<()> {
        let (store, limits) = (&self.shared.store, &self.shared.limits);
        let header = Header::read(&**store, limits)?;
        self.space.reload(&header, survey(&**store, &header)?)?;
        let directory = Directory::read(&**store, &header, limits)?;
        self.guard_bitmaps(&directory)?;
        self.bitmaps.move_to(&directory);
        self.live.reload(header);
        Ok(())
    }
}

impl Allocator {
    /// Reads the refcount table again, with `guard` for what lies where.
    fn reload(&self, header: &Header, guard: Guard) -> Result<()> {
        self.counts.clear();
        self.guard.replace(guard);
        {
            let mut state = self.lock();
            state.table = RefcountTable::read(&*self.store, header)?;
            state.forget_places(self.store.len()?.div_ceil(1 << self.cluster_bits));
        }
        self.guard_blocks()?;
        self.find_end()
    }

    /// Hands out nothing more.
    fn distrust(&self, why: String) {
        self.lock().damage(why);
    }
}

fn refused(feature: &'static str) -> Error {
    Error::Unsupported { format: NAME, feature: feature.into() }
}
