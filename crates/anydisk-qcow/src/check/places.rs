//! The places that are in use, against each other.

use anydisk_core::{Error, GuestRange, HostOffset, Limits, Result};

use super::Teller;
use super::walk::{L1_FIELD, Walk};
use crate::NAME;
use crate::piece::Piece;

/// Most windows of one check.
const MOST_WINDOWS: u64 = 64;

/// Lost space that is remembered, to be given back; more is only counted.
const MOST_GAPS: usize = 1 << 16;

/// Consecutive bytes in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) place: Piece,
    /// The entry or field that names the first of them.
    pub(super) entry: HostOffset,
    /// The part of the disk that they hold.
    pub(super) guest: Option<GuestRange>,
    pub(super) is_metadata: bool,
    /// Bytes behind them that belong to them, if nothing else is there.
    pub(super) padding: u64,
}

impl Run {
    fn is_l1(&self) -> bool {
        self.is_metadata && self.entry == L1_FIELD
    }

    fn end_of_padding(&self) -> u64 {
        self.place.end.saturating_add(self.padding)
    }

    /// Takes a run that goes on where this one ends.
    fn join(&mut self, next: &Self) -> bool {
        let goes_on = self.place.end == next.place.at && self.is_metadata == next.is_metadata;
        let both = self.guest.zip(next.guest).filter(|(a, b)| goes_on && a.end() == b.start());
        if let Some((first, second)) = both {
            self.place.end = next.place.end;
            self.guest = Some(GuestRange::between(first.start(), second.end()));
        }
        both.is_some()
    }
}

/// The runs of an image, as long as there is room for them.
pub(super) struct Places {
    runs: Vec<Run>,
    /// How many there are, remembered or not.
    count: u64,
    most: usize,
    file_len: u64,
}

/// Space that nothing names.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Whole clusters of the file.
    pub(super) gaps: Vec<Piece>,
    /// Clusters in other gaps, of which there are too many to be remembered.
    pub(super) more: u64,
    /// Behind the last byte in use.
    pub(super) end: u64,
}

impl Places {
    pub(super) fn new(limits: &Limits, file_len: u64) -> Self {
        let most = (limits.table_cache / size_of::<Run>()).max(1 << 10);
        Self { runs: Vec::new(), count: 0, most, file_len }
    }

    /// Takes the next run, in the order of the disk.
    pub(super) fn gather(&mut self, run: Run) {
        let joined = self.runs.last_mut().is_some_and(|last| last.join(&run));
        if !joined {
            self.count += 1;
            if self.runs.len() < self.most {
                self.runs.push(run);
            }
        }
    }

    /// Tells what is in use twice, and returns what is not in use.
    pub(super) fn compare(mut self, walk: &Walk<'_>, teller: &mut Teller<'_>) -> Result<Lost> {
        let mut lost = Lost::default();
        let cluster = walk.image().geometry.cluster();
        if self.count <= self.most as u64 {
            let whole = Piece { at: 0, end: u64::MAX };
            compare_window(&mut self.runs, walk, whole, self.file_len, &mut lost, teller);
            return Ok(lost);
        }
        // Twice as many as would do if runs lay evenly.
        let windows = self.count.div_ceil(self.most as u64) * 2;
        if windows > MOST_WINDOWS {
            let what = "runs of clusters, for the memory that a check may take".into();
            let limit = self.most as u64 * MOST_WINDOWS / 2;
            return Err(Error::Limit { format: NAME, what, found: self.count, limit });
        }
        let step = self.file_len.div_ceil(windows).next_multiple_of(cluster);
        for number in 0..windows {
            let end = if number + 1 == windows { u64::MAX } else { (number + 1) * step };
            let window = Piece { at: number * step, end };
            self.gather_window(walk, window)?;
            compare_window(&mut self.runs, walk, window, self.file_len, &mut lost, teller);
        }
        Ok(lost)
    }

    fn gather_window(&mut self, walk: &Walk<'_>, window: Piece) -> Result<()> {
        self.runs.clear();
        self.count = 0;
        walk.again(&mut |run| {
            if run.place.at < window.end && run.place.end > window.at {
                self.gather(run);
            }
        })?;
        match self.count > self.most as u64 {
            false => Ok(()),
            true => {
                let what = "runs of clusters in one part of the file".into();
                let (found, limit) = (self.count, self.most as u64);
                Err(Error::Limit { format: NAME, what, found, limit })
            }
        }
    }
}

/// Compares the runs of one window with each other and with the metadata.
fn compare_window(
    runs: &mut Vec<Run>,
    walk: &Walk<'_>,
    window: Piece,
    file_len: u64,
    lost: &mut Lost,
    teller: &mut Teller<'_>,
) {
    let inside = |run: &Run| run.place.at < window.end && run.place.end > window.at;
    runs.extend(walk.metadata().filter(inside));
    runs.sort_unstable_by_key(|run| (run.place.at, !run.is_metadata));
    let cluster = walk.image().geometry.cluster();
    // The run that reaches farthest so far.
    let mut last: Option<Run> = None;
    for run in runs.iter() {
        let end = last.map_or(window.at, |last| last.place.end);
        let behind = last.map_or(window.at, |last| last.end_of_padding());
        lost.note(behind, run.place.at.max(window.at), cluster, file_len);
        // What began before the window was told there.
        if let Some(last) = last.filter(|_| run.place.at < end && run.place.at >= window.at) {
            tell_shared(walk, &last, run, teller);
        }
        if run.place.end > end || last.is_none() {
            last = Some(*run);
        }
    }
    let behind = last.map_or(window.at, |last| last.end_of_padding());
    lost.note(behind, window.end.min(file_len), cluster, file_len);
    lost.end = lost.end.max(last.map_or(0, |last| last.end_of_padding()));
}

impl Lost {
    /// Nothing is in use between the two: the whole clusters between are lost.
    fn note(&mut self, from: u64, to: u64, cluster: u64, file_len: u64) {
        let gap =
            Piece { at: from.next_multiple_of(cluster), end: to.min(file_len) / cluster * cluster };
        if gap.at < gap.end {
            match self.gaps.len() < MOST_GAPS {
                true => self.gaps.push(gap),
                false => self.more += (gap.end - gap.at) / cluster,
            }
        }
    }
}

fn tell_shared(walk: &Walk<'_>, first: &Run, second: &Run, teller: &mut Teller<'_>) {
    let at = HostOffset(second.place.at);
    let what = |run: &Run| if run.is_metadata { "metadata" } else { "a cluster" };
    let (kind, guest) = match (first.is_metadata, second.is_metadata) {
        (false, false) => ("cluster-shared", second.guest),
        _ => ("metadata-overlap", first.guest.or(second.guest)),
    };
    let (one, other) = (what(second), what(first));
    let text = format!(
        "{one} at {at}, named at {}, lies on {other} named at {}",
        second.entry, first.entry
    );
    teller.corrupt(kind, second.entry, guest, text);
    for (one, other) in [(first, second), (second, first)] {
        if one.is_l1() {
            let (at, entry) = (other.place.at(), other.entry);
            let what = format!("{} at {at}, named at {entry}", what(other));
            teller.doubt_header(walk.image(), &what);
        }
    }
}
