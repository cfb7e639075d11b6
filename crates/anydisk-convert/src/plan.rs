//! The plan: what is to be done, in guest order, without touching payload.

use anydisk_core::{GuestOffset, GuestRange};

use crate::Result;
use crate::shortcut::Shortcuts;
use crate::source::{Content, Sources};

/// Tables are looked at so many times at most before a worker gets something to do.
const LOOKS_PER_STEP: usize = 1 << 14;

/// Bytes that one worker hands over at most before it looks whether the job goes on.
const LONGEST_SAME: u64 = 256 << 20;

/// One step of a job; steps are numbered in guest order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So much of the disk with one content that need not be read.
    Run(Run),
    /// A window of the disk and what its parts hold, without a gap.
    Window { window: GuestRange, parts: Vec<Run> },
}

/// So much of the disk with one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) range: GuestRange,
    pub(crate) content: Content,
}

/// Walks the maps of the source.
#[derive(Debug)]
pub(crate) struct Planner<'a> {
    source: &'a Sources<'a>,
    shortcuts: Shortcuts<'a>,
    window: u64,
    rest: GuestRange,
    /// Zeroes are data too: the target is to be allocated in full.
    full: bool,
}

impl<'a> Planner<'a> {
    /// A plan in windows of `window` bytes, a power of two. With `full`, zeroes are data.
    pub(crate) fn new(
        source: &'a Sources<'a>,
        shortcuts: Shortcuts<'a>,
        window: u64,
        full: bool,
    ) -> Self {
        Self { source, shortcuts, window, rest: GuestRange::whole(source.size()), full }
    }

    fn content(&self, range: GuestRange) -> Result<(Content, u64)> {
        match self.source.content(range, &self.shortcuts)? {
            (Content::Zero, len) if self.full => Ok((Content::Data, len)),
            found => Ok(found),
        }
    }

    /// The next step, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let step = match self.long_run()? {
            Some(step) => step,
            None => self.window()?,
        };
        self.rest = self.rest.skip(step.range().len());
        Ok(Some(step))
    }

    /// A run of at least one whole window that need not be read.
    fn long_run(&self) -> Result<Option<Step>> {
        let (content, mut len) = self.content(self.rest)?;
        let longest = match content {
            Content::Data | Content::Packed => return Ok(None),
            Content::Same => LONGEST_SAME,
            Content::Zero | Content::Below => u64::MAX,
        };
        for _ in 0..LOOKS_PER_STEP {
            let behind = self.rest.skip(len);
            if behind.is_empty() || len >= longest {
                break;
            }
            match self.content(behind)? {
                (next, more) if next == content => len += more,
                _ => break,
            }
        }
        let run = self.rest.first(len.min(longest));
        let range = if run == self.rest { run } else { self.whole_windows(run) };
        Ok((!range.is_empty()).then_some(Step::Run(Run { range, content })))
    }

    fn whole_windows(&self, run: GuestRange) -> GuestRange {
        let end = run.end().get() / self.window * self.window;
        GuestRange::between(run.start(), GuestOffset(end))
    }

    fn window(&self) -> Result<Step> {
        let window = self.rest.first(self.window - self.rest.start().get() % self.window);
        let mut parts = Vec::new();
        let mut rest = window;
        while !rest.is_empty() {
            let (content, len) = self.content(rest)?;
            push_joined(&mut parts, Run { range: rest.first(len), content });
            rest = rest.skip(len);
        }
        Ok(Step::Window { window, parts })
    }
}

impl Step {
    /// The part of the disk the step is about.
    pub(crate) fn range(&self) -> GuestRange {
        match self {
            Self::Run(Run { range, .. }) | Self::Window { window: range, .. } => *range,
        }
    }
}

/// The parts of a window in whole units of the target. A unit whose parts differ is data: all of it
/// will be read.
pub(crate) fn in_units(window: GuestRange, parts: &[Run], unit: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut parts = parts.iter().peekable();
    let mut rest = window;
    while let Some(part) = parts.peek() {
        // As many whole units as lie in this part, else the one unit that several share.
        let whole = rest.before(part.range.end());
        let whole = if part.range.end() == window.end() {
            whole
        } else {
            let end = GuestOffset(whole.end().get() / unit * unit);
            GuestRange::between(rest.start(), end)
        };
        let run = if whole.is_empty() {
            let shared = rest.first(unit - rest.start().get() % unit);
            Run { range: shared, content: Content::Data }
        } else {
            Run { range: whole, content: part.content }
        };
        push_joined(&mut runs, run);
        rest = rest.skip(run.range.len());
        while parts.next_if(|part| part.range.end() <= rest.start()).is_some() {}
    }
    runs
}

/// Adds a run, as one with the last if it follows it with the same content.
fn push_joined(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.content == run.content => {
            last.range = GuestRange::between(last.range.start(), run.range.end());
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(number: u8) -> Content {
        let all = [Content::Data, Content::Zero, Content::Below, Content::Same, Content::Packed];
        all[usize::from(number) % all.len()]
    }

    proptest! {
        #[test]
        fn every_unit_has_the_content_of_its_parts_or_is_data(
            lens in proptest::collection::vec((1u64..40, any::<u8>()), 1..20),
            unit in 1u64..20,
        ) {
            let mut parts = Vec::new();
            let mut at = 0;
            for (len, number) in lens {
                let range = GuestRange::new(GuestOffset(at), len).expect("small");
                push_joined(&mut parts, Run { range, content: content(number) });
                at += len;
            }
            let window = GuestRange::whole(at);
            let runs = in_units(window, &parts, unit);
            let mut end = 0;
            for run in &runs {
                prop_assert_eq!(run.range.start().get(), end);
                end = run.range.end().get();
                prop_assert!(end == at || end % unit == 0);
            }
            prop_assert_eq!(end, at);
            for number in 0..at.div_ceil(unit) {
                let start = number * unit;
                let piece = GuestRange::new(GuestOffset(start), unit).expect("small").before(window.end());
                let inside: Vec<_> = parts.iter().filter(|part| part.range.overlaps(piece)).collect();
                let wanted = if inside.len() == 1 { inside[0].content } else { Content::Data };
                let found = runs.iter().find(|run| run.range.overlaps(piece)).expect("covered");
                prop_assert_eq!(found.content, wanted);
            }
        }
    }
}
