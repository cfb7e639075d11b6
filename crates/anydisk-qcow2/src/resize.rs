//! Changing the virtual size (qcow2, "Header": size, l1_size).
//!
//! Growing makes everything ready that the new size needs, and names it last. Shrinking drops what
//! lies behind the new end first and names the new size last, so that nobody who grows the image
//! later, with whatever program, finds old bytes there; then the file is [cut](crate::shorten).

use anydisk_core::{
    Error, GuestOffset, GuestRange, HostOffset, Image, NewSize, Preallocation, Resize, Result,
    Storage, StorageExt, Updated,
};

use crate::alloc::{Freed, words_of};
use crate::entry::L1Entry;
use crate::guard::{Clusters, Metadata};
use crate::image::Table;
use crate::preallocate::preallocate;
use crate::table::L1Run;
use crate::write::{Step, WritableImage, done};
use crate::zero::Change;
use crate::{Geometry, Header, NAME, limits};

impl Resize for WritableImage {
    fn resize(&self, new: &NewSize<'_>) -> Result<()> {
        let _turn = self.turns.take();
        let old = self.shared.size();
        self.live.with(|header| check_size(header, new.size, new.below))?;
        if old == new.size {
            return Ok(());
        }
        let has_bitmaps = self.suspend_bitmaps(new.size)?;
        let resized = if old < new.size { self.grow(old, new) } else { self.shrink(old, new) };
        let resumed = if has_bitmaps { self.resume_bitmaps() } else { Ok(()) };
        resized.and(resumed)?;
        // Growing gives space back too, that of the old L1 table, but wants more.
        if new.size < old { self.shorten(&self.freeze()) } else { Ok(()) }
    }
}

/// Refuses a size that an image cannot get, over one of `below` bytes.
pub(crate) fn check_size(header: &Header, size: u64, below: u64) -> Result<()> {
    let refused =
        |feature: &'static str| Err(Error::Unsupported { format: NAME, feature: feature.into() });
    let (version, old) = (header.version, header.disk_size());
    if !size.is_multiple_of(512) {
        return refused("a size that is not a multiple of 512 bytes");
    }
    if version < 3 && header.nb_snapshots > 0 {
        return refused("resizing an image of version 2 with snapshots, which record no size");
    }
    if version < 3 && size > old && below > old {
        return refused("growing an image of version 2 below the end of its backing file");
    }
    let found = size.div_ceil(1 << Geometry::new(header).l2_coverage_bits());
    let limit = u64::from(limits::L1_ENTRIES);
    if size > limits::OFFSET || found > limit {
        let what = "L1 table of a disk of this size, in entries".into();
        return Err(Error::Limit { format: NAME, what, found, limit });
    }
    Ok(())
}

impl WritableImage {
    /// Entries of the L1 table that a disk of `size` bytes needs.
    pub(crate) fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.shared.geometry.l2_coverage_bits())
    }

    fn grow(&self, old: u64, new: &NewSize<'_>) -> Result<()> {
        self.grow_l1(self.l1_entries(new.size))?;
        // From here on the tables can say something of what is new. The medium does not know.
        self.shared.set_size(new.size);
        let grown = self.grow_data_file(old, new.size);
        let grown = grown.and_then(|()| self.make_new_part(old, new));
        let grown = grown.and_then(|()| self.write_back());
        let grown = grown.and_then(|()| self.live.set_size(new.size));
        grown.inspect_err(|_| self.shared.set_size(old))
    }

    /// Makes what is new zero, and gives it space if that is wanted.
    fn make_new_part(&self, old: u64, new: &NewSize<'_>) -> Result<()> {
        let cluster = self.shared.geometry.cluster_size();
        let (start, end) = (old.next_multiple_of(cluster), new.size);
        if start < end {
            let hidden = end.min(new.below.next_multiple_of(cluster)).max(start);
            let range = |from, to| GuestRange::between(GuestOffset(from), GuestOffset(to));
            let mut preallocation = new.preallocation;
            if self.shared.header.has_raw_data_file() {
                // All of it is mapped always, and the file itself is zero there.
                if preallocation == Preallocation::Off {
                    preallocation = Preallocation::Metadata;
                }
            } else {
                self.zero_all(range(start, hidden))?;
                self.forget_old(range(hidden, end))?;
            }
            if preallocation != Preallocation::Off {
                self.space.go_behind_file();
            }
            preallocate(self, range(start, end), preallocation)?;
        }
        let rest = GuestRange::between(GuestOffset(old), GuestOffset(start.min(end)));
        if rest.is_empty() { Ok(()) } else { (new.zero)(rest) }
    }

    /// Makes clusters zero by tables, although the layer below may have bytes there.
    fn zero_all(&self, mut range: GuestRange) -> Result<()> {
        while !range.is_empty() {
            let piece = self.shared.geometry.in_one_slice(range);
            self.change_claimed(piece, Change::Free { absent_too: true }, true)?;
            range = range.skip(piece.len());
        }
        Ok(())
    }

    /// Empties clusters of whatever tables say of them that lay behind the end of the disk (after
    /// a shrink by a program that left them, or the state of a machine); absent ones stay so.
    fn forget_old(&self, mut range: GuestRange) -> Result<()> {
        while !range.is_empty() {
            let piece = self.shared.geometry.in_one_slice(range);
            let len = match self.l1_run_blocking(range)? {
                L1Run::Absent(len) => len,
                L1Run::Table { .. } => {
                    self.change_claimed(piece, Change::Forget, false)?;
                    piece.len()
                }
            };
            range = range.skip(len);
        }
        Ok(())
    }

    /// What the L1 table says of the start of `range`, reading it as needed.
    fn l1_run_blocking(&self, range: GuestRange) -> Result<L1Run> {
        loop {
            match self.l1_run(range)? {
                Step::Done(run) => return Ok(run),
                Step::Need(need) => self.satisfy(&need)?,
                Step::Full => self.relieve()?,
            }
        }
    }

    /// Makes the L1 table `entries` long, if it is shorter: a longer one elsewhere.
    fn grow_l1(&self, entries: u64) -> Result<()> {
        let (at, old) = self.live.with(|header| (header.l1_table_offset, header.l1_size));
        if entries <= u64::from(old) {
            return Ok(());
        }
        let bits = self.shared.geometry.cluster_bits();
        // This may be all that is done to the image, so nothing is known yet of what its tables name.
        let count = Clusters::touched(0, entries * 8, bits).count;
        let run = self.space.take_run_behind_file(count)?;
        let grown = self.space.note(run, Metadata::L1Table).and_then(|()| {
            let frozen = self.freeze();
            let _alone = self.alone_in(&frozen)?;
            let mut bytes = vec![0; usize::try_from(entries * 8).unwrap_or(0)];
            let used = usize::try_from(u64::from(old) * 8).unwrap_or(0);
            self.shared.store.read_padded_at(at, &mut bytes[..used])?;
            let place = self.space.offset(run.first);
            self.shared.store.write_at(place, &bytes)?;
            let entries = u32::try_from(entries).expect("checked against the limit");
            self.live.set_l1(place, entries)?;
            self.shared.move_l1(place, u64::from(entries), u64::from(old));
            Ok(())
        });
        let gone = match grown {
            Ok(()) => Clusters::touched(at.get(), u64::from(old) * 8, bits),
            Err(_) => run,
        };
        self.space.give_back((gone.count > 0).then_some(gone));
        grown
    }

    fn shrink(&self, old: u64, new: &NewSize<'_>) -> Result<()> {
        let cluster = self.shared.geometry.cluster_size();
        let end = new.size.next_multiple_of(cluster).min(old);
        let rest = GuestRange::between(GuestOffset(new.size), GuestOffset(end));
        if !rest.is_empty() {
            (new.zero)(rest)?;
        }
        self.shared.set_size(new.size);
        let shrunk = self.drop_behind(new.size, old).and_then(|()| self.write_back());
        let shrunk = shrunk.and_then(|()| self.live.set_size(new.size));
        let shrunk = shrunk.and_then(|()| self.cut_data_file(new.size));
        shrunk.inspect_err(|_| self.shared.set_size(old))
    }

    /// Drops all clusters behind `size`, and the L2 tables that map nothing else.
    pub(crate) fn drop_behind(&self, size: u64, old: u64) -> Result<()> {
        let geometry = &self.shared.geometry;
        let coverage = 1_u64 << geometry.l2_coverage_bits();
        let first_table = size.next_multiple_of(coverage);
        let part = GuestRange::between(
            GuestOffset(size.next_multiple_of(geometry.cluster_size())),
            GuestOffset(first_table.min(old.next_multiple_of(geometry.cluster_size()))),
        );
        self.forget_old(part)?;
        let end = self.live.with(|header| u64::from(header.l1_size)) * coverage;
        let mut rest = GuestRange::between(GuestOffset(first_table), GuestOffset(end));
        while !rest.is_empty() {
            let len = match self.l1_run_blocking(rest)? {
                L1Run::Absent(len) => len,
                L1Run::Table { .. } => self.drop_table(rest.first(coverage))?,
            };
            rest = rest.skip(len);
        }
        Ok(())
    }

    /// Drops an L2 table with all that it refers to; how many bytes it maps.
    fn drop_table(&self, mapped: GuestRange) -> Result<u64> {
        // In a table of its own the entries go one by one: some are changed in memory only.
        if let L1Run::Table { copied: true, .. } = self.l1_run_blocking(mapped)? {
            self.forget_old(mapped)?;
        }
        let claim = self.claims.hold(mapped);
        loop {
            let step = {
                let _changing = self.enter();
                self.try_drop_table(mapped)?
            };
            match step {
                Step::Done(()) => break,
                Step::Need(need) => self.satisfy(&need)?,
                Step::Full => self.relieve()?,
            }
        }
        drop(claim);
        Ok(mapped.len())
    }

    fn try_drop_table(&self, mapped: GuestRange) -> Result<Step<'_, ()>> {
        let (shared, geometry) = (&self.shared, &self.shared.geometry);
        let (at, shares) = match done!(self.l1_run(mapped)?) {
            L1Run::Absent(_) => return Ok(Step::Done(())),
            L1Run::Table { at, copied: true } => (at, Vec::new()),
            L1Run::Table { at, .. } => (at, self.references_of_shared(at)?),
        };
        let slot = geometry.l1_slot(shared.l1_table(), mapped.start());
        match shared.l1.update(slot.slice, |l1| l1.set(slot.word, L1Entry::default().0)) {
            Updated::Done(()) => {}
            Updated::Missing => return Ok(Step::Need(shared.need(Table::L1, slot.slice))),
            Updated::Full => return Ok(Step::Full),
        }
        let table = Clusters::new(at.get() >> geometry.cluster_bits(), 1);
        let dropped = shares.into_iter().chain([table]);
        self.space.retire(dropped.map(|clusters| Freed { clusters, discard: true }));
        Ok(Step::Done(()))
    }

    /// What a table refers to that a snapshot shares. Nothing is changed in such a table, so the
    /// file has all of it.
    fn references_of_shared(&self, table: HostOffset) -> Result<Vec<Clusters>> {
        let geometry = &self.shared.geometry;
        let mut bytes = vec![0; usize::try_from(geometry.cluster_size()).expect("at most 2 MiB")];
        self.shared.store.read_padded_at(table, &mut bytes)?;
        let words = words_of(&bytes);
        let entries = (0..words.len()).step_by(geometry.entry_words());
        let entries = entries.map(|word| geometry.entry(words.as_slice(), word));
        Ok(entries.filter_map(|entry| geometry.references(entry)).collect())
    }
}
