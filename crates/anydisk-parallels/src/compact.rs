//! Making the file as short as what it holds: clusters of zeroes are given back, and the last clusters
//! of the file move into what is free before them.
//!
//! ```text
//!   entries of clusters of zeroes -> 0    written, flushed     readers of before are gone
//!   last clusters copied into the gaps    flushed
//!   their entries                         written, flushed     readers of before are gone
//!   the file is cut
//! ```
//!
//! At each moment every entry on the medium names a cluster that holds its bytes: nothing is written to
//! a cluster before the table without it is durable, and nobody writes to the disk meanwhile. What
//! nothing names is dropped, also if it holds data.

use anydisk_core::{
    Block, Compact, Error, GuestOffset, HostOffset, Image, ImageWrite, NamedBlocks, Result, Still,
    Storage, StorageExt,
};

use crate::copy::copy_cluster;
use crate::header::limit;
use crate::image::ParallelsImage;
use crate::limits;

/// Clusters that are dropped or moved between two flushes.
const AT_ONCE: usize = 1 << 12;

/// A cluster of the disk that is to be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    guest: u64,
    from: HostOffset,
    to: HostOffset,
}

impl Compact for ParallelsImage {
    fn compact(&self, progress: &dyn Fn(u64, u64) -> bool) -> Result<u64> {
        self.begin()?;
        let still = self.table.hold_still()?;
        let before = self.table.store().len()?;
        self.flush()?;
        let mut from = 0;
        while let Some(next) = self.drop_zeroes(&still, from, progress)? {
            from = next;
        }
        self.close_gaps(&still)?;
        Ok(before.saturating_sub(self.table.store().len()?))
    }
}

impl ParallelsImage {
    /// Frees clusters of zeroes from number `from` of the disk on, as many as are freed at once. Where to
    /// go on; `None` at the end.
    fn drop_zeroes(
        &self,
        still: &Still<'_>,
        from: u64,
        progress: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Option<u64>> {
        let (store, total) = (&**self.table.store(), self.size());
        let (mut zeroes, mut next) = (Vec::new(), None);
        self.for_each_cluster(from, |guest, place| {
            if zeroes.len() == AT_ONCE {
                next = next.or(Some(guest));
                return Ok(());
            }
            if !progress(guest.saturating_mul(self.header.cluster).min(total), total) {
                return Err(Error::Cancelled);
            }
            if store.is_zero_at(place, self.header.cluster)? {
                zeroes.push(guest);
            }
            Ok(())
        })?;
        for guest in zeroes {
            self.name(still, guest, Block::Absent)?;
        }
        self.flush()?;
        Ok(next)
    }

    /// Moves the last clusters into the gaps and cuts the file behind them.
    fn close_gaps(&self, still: &Still<'_>) -> Result<()> {
        let in_file = self.number_at(self.table.space().used_end());
        limit("number of clusters in the file", in_file, limits::CLUSTERS)?;
        let (mut named, mut used) = (NamedBlocks::new(in_file), 0);
        // That of the format extension stays where it is.
        let extension = self.state.extension().map(|at| self.number_at(at));
        if let Some(number) = extension {
            used += u64::from(named.insert(number));
        }
        self.for_each_cluster(0, |_, place| {
            used += u64::from(named.insert(self.number_at(place)));
            Ok(())
        })?;
        // Readers of clusters that were given up before must be gone before these are written to.
        still.drain()?;
        // From now on the gaps are in use: else a flush takes them, at the end, for free.
        self.reset_space(self.table.space().used_end());
        let mut gaps = named.gaps(used).flatten();
        loop {
            let moves = self.next_moves(used, &mut gaps)?;
            if moves.is_empty() {
                break;
            }
            self.move_clusters(still, &moves)?;
        }
        still.drain()?;
        self.cut(self.cluster_now(extension.map_or(used, |number| used.max(number + 1))))
    }

    /// The next clusters behind the first `used` ones, each with a gap.
    fn next_moves(&self, used: u64, gaps: &mut impl Iterator<Item = u64>) -> Result<Vec<Move>> {
        let (mut moves, end) = (Vec::new(), self.cluster_now(used));
        self.for_each_cluster(0, |guest, from| {
            if from >= end
                && moves.len() < AT_ONCE
                && let Some(to) = gaps.next()
            {
                moves.push(Move { guest, from, to: self.cluster_now(to) });
            }
            Ok(())
        })?;
        Ok(moves)
    }

    /// Copies clusters to places that nothing names, and then names these.
    fn move_clusters(&self, still: &Still<'_>, moves: &[Move]) -> Result<()> {
        let store = &**self.table.store();
        for one in moves {
            copy_cluster(store, one.from, one.to, self.header.cluster)?;
        }
        store.flush()?;
        for one in moves {
            self.name(still, one.guest, Block::At(one.to))?;
        }
        self.flush()
    }

    /// Changes what the table says of a cluster of the disk.
    pub(crate) fn name(&self, still: &Still<'_>, guest: u64, to: Block) -> Result<()> {
        self.state.note_change();
        let at = GuestOffset(guest.saturating_mul(self.header.cluster));
        self.table.set_still(self, still, at, to)
    }

    /// Ends the file at `end`.
    fn cut(&self, end: HostOffset) -> Result<()> {
        let _round = self.lock_round();
        let store = self.table.store();
        if store.len()? > end.get() {
            store.set_len(end.get())?;
            store.flush()?;
        }
        self.table.space().reset(end);
        Ok(())
    }

    /// Where the cluster of this number is, counted from where clusters begin now.
    fn cluster_now(&self, number: u64) -> HostOffset {
        let first = self.table.shape().first;
        first.saturating_add(number.saturating_mul(self.header.cluster))
    }

    fn number_at(&self, at: HostOffset) -> u64 {
        at.get().saturating_sub(self.table.shape().first.get()) / self.header.cluster
    }
}
