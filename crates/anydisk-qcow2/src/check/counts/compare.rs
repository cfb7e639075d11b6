//! Whether refcounts and references agree.

use anydisk_core::Result;

use super::reader::{Reader, Units};
use super::{Blocks, State};
use crate::check::progress::Progress;
use crate::check::references::{PAGE, References};
use crate::check::roots::tell_unreadable;
use crate::check::subject::Subject;
use crate::check::trouble::{Teller, Trouble};
use crate::guard::Clusters;

impl Blocks {
    /// Notes which refcounts are exactly one.
    pub(in crate::check) fn note_ones(
        &self,
        subject: &Subject,
        references: &References,
        teller: &mut Teller<'_>,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let mut reader = Reader::new(subject, self);
        for unit in Units::of(subject, references) {
            match reader.read(unit) {
                Ok(Some(counts)) => references.note_ones(unit.first, counts),
                Ok(None) => {}
                Err(error) => tell_unreadable(teller, subject.offset(unit.first), &error),
            }
            if unit.first % PAGE == 0 {
                progress.step(0)?;
            }
        }
        Ok(())
    }

    /// Compares refcounts with references. Returns the end of what is in use.
    pub(in crate::check) fn compare(
        &self,
        subject: &Subject,
        references: &References,
        teller: &mut Teller<'_>,
    ) -> u64 {
        let mut reader = Reader::new(subject, self);
        let (mut page, mut page_at, mut end) = (Vec::new(), None, 0);
        let mut named_in_page = false;
        for whole in Units::of(subject, references) {
            let unit = Clusters::new(whole.first, whole.count.min(subject.end() - whole.first));
            let first = unit.first - unit.first % PAGE;
            if page_at != Some(first) {
                named_in_page = references.page_counts(first, &mut page).is_some();
                page_at = Some(first);
            }
            let within = usize::try_from(unit.first - first).unwrap_or(0);
            let len = usize::try_from(unit.count).unwrap_or(0);
            let named = named_in_page.then(|| &page[within..within + len]);
            let state = self.state(subject, unit.first);
            // That a block cannot be read was told when its ones were noted.
            let counts = reader.read(whole).unwrap_or_default().map(|counts| &counts[..len]);
            let pairs = Pairs { unit, named, counts };
            end = end.max(pairs.end());
            if state.is_readable() && !pairs.are_equal() {
                pairs.tell(subject, references, state, teller);
            }
            if named.is_some() && references.page_overlaps(first) {
                tell_overlaps(subject, references, &pairs, teller);
            }
        }
        end
    }

    /// Tells of refcounts of clusters behind the end of the file.
    pub(in crate::check) fn tell_past_end(&self, subject: &Subject, teller: &mut Teller<'_>) {
        let mut reader = Reader::new(subject, self);
        for unit in self.units_past_end(subject) {
            let Ok(Some(counts)) = reader.read(unit) else { continue };
            let past = (unit.first..).zip(counts).filter(|(at, _)| *at >= subject.end());
            past.for_each(|(cluster, count)| tell_leak(subject, cluster, (*count, 0), teller));
        }
    }
}

/// References and refcounts of some clusters; `None`: all 0.
struct Pairs<'a> {
    unit: Clusters,
    named: Option<&'a [u64]>,
    counts: Option<&'a [u64]>,
}

impl Pairs<'_> {
    fn get(&self, index: usize) -> (u64, u64) {
        let of = |all: Option<&[u64]>| all.map_or(0, |all| all[index]);
        (of(self.counts), of(self.named))
    }

    fn are_equal(&self) -> bool {
        let zero = |all: &[u64]| all.iter().all(|count| *count == 0);
        match (self.counts, self.named) {
            (Some(counts), Some(named)) => counts == named,
            (counts, named) => counts.is_none_or(zero) && named.is_none_or(zero),
        }
    }

    /// Behind the last cluster that is counted or named.
    fn end(&self) -> u64 {
        let last = |all: Option<&[u64]>| all?.iter().rposition(|count| *count != 0);
        let last = last(self.counts).max(last(self.named));
        last.map_or(0, |last| self.unit.first + last as u64 + 1)
    }

    fn tell(
        &self,
        subject: &Subject,
        references: &References,
        state: State,
        teller: &mut Teller<'_>,
    ) {
        let len = usize::try_from(self.unit.count).unwrap_or(0);
        for (cluster, index) in (self.unit.first..).zip(0..len) {
            let (count, named) = self.get(index);
            if count > named {
                tell_leak(subject, cluster, (count, named), teller);
            } else if count < named && !references.overlaps(cluster) {
                tell_low(subject, cluster, (count, named), state, teller);
            }
        }
    }
}

fn tell_leak(subject: &Subject, cluster: u64, (count, named): (u64, u64), teller: &mut Teller<'_>) {
    if count > named {
        teller.tell(Trouble::Leak, subject.offset(cluster), || {
            format!(
                "the refcount of cluster {cluster} is {count}, expected {named}: it is lost space"
            )
        });
    }
}

fn tell_low(
    subject: &Subject,
    cluster: u64,
    (count, named): (u64, u64),
    state: State,
    teller: &mut Teller<'_>,
) {
    let trouble = match state {
        _ if named > subject.width.max() => Trouble::RefcountOverflow,
        State::Good => Trouble::RefcountLow,
        _ => Trouble::RefcountMissing,
    };
    teller.tell(trouble, subject.offset(cluster), || {
        format!("the refcount of cluster {cluster} is {count}, expected {named}")
    });
}

fn tell_overlaps(
    subject: &Subject,
    references: &References,
    pairs: &Pairs<'_>,
    teller: &mut Teller<'_>,
) {
    let Some(named) = pairs.named else { return };
    for (index, (cluster, named)) in (pairs.unit.first..).zip(named).enumerate() {
        if *named > 1 && references.overlaps(cluster) {
            let (count, _) = pairs.get(index);
            teller.tell(Trouble::Overlap, subject.offset(cluster), || {
                format!("cluster {cluster} holds metadata and is named {named} times, as something else too; its refcount is {count}")
            });
        }
    }
}
