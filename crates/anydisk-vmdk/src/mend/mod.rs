//! What keeps a file from being opened at all, made anew from what the file says elsewhere.
//!
//! | kind of finding | made from |
//! |---|---|
//! | `header-field`: a wrong bit in grainSize or numGTEsPerGT | directories and tables, or the footer |
//! | `footer-lost`: a stream has no end | what stands before its grains |
//! | `descriptor-lost`: zeroes where the text was | nothing, but the disk can be salvaged |
//!
//! A check tells it and a repair writes it. Whoever salvages reads the file as it would be, in memory.

mod header;
mod stream;
mod text;

use std::sync::Arc;

use anydisk_core::{Finding, HostOffset, Limits, Result, Severity, Storage};
use anydisk_storage::Scratch;
use zerocopy::IntoBytes;

use self::header::FlippedBit;
use self::stream::{CutOff, Headless};
use self::text::LostText;

/// Memory for what is made anew for a salvage: the tables of a stream of some TiB.
const MEMORY: usize = 256 << 20;

/// What a file is to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The one that is opened: all of it, or its descriptor.
    Whole,
    /// An extent, named by the descriptor of another file; one of its own, which some programs leave room
    /// for, does not count.
    Extent,
}

/// Tells what is wrong with a part, and writes it anew if `repairs`. Whether the file may be opened now.
///
/// # Errors
/// Those of the store, and `Limit`.
pub(crate) fn check(
    part: Part,
    store: &dyn Storage,
    limits: &Limits,
    repairs: bool,
    tell: &mut dyn FnMut(Finding),
) -> Result<bool> {
    mend(part, store, limits, repairs.then_some(CutOff::Zero), tell)
}

/// As [`check`]; `repairs`: what becomes of what a cut may have taken away.
fn mend(
    part: Part,
    store: &dyn Storage,
    limits: &Limits,
    repairs: Option<CutOff>,
    tell: &mut dyn FnMut(Finding),
) -> Result<bool> {
    let (cut_off, repairs) = (repairs.unwrap_or(CutOff::Zero), repairs.is_some());
    let corruption = |kind, at, text: String| Finding::new(Severity::Corruption, kind, at, text);
    if let Some(flipped) = FlippedBit::of(store, limits)? {
        let finding = corruption("header-field", flipped.at, flipped.why.clone());
        let mut finding = finding.mended_by(flipped.remedy.clone());
        if repairs {
            store.write_at(HostOffset::ZERO, flipped.mended.as_bytes())?;
            store.flush()?;
        }
        finding.repaired = repairs;
        tell(finding);
        if !repairs {
            return Ok(false);
        }
    }
    if let Some(stream) = Headless::of(store, limits)? {
        let finding = corruption("footer-lost", HostOffset(store.len()?), stream.why.clone());
        let mut finding = finding.mended_by("tables and footer are made anew from the grains");
        if repairs {
            stream.rebuild(cut_off)?;
        }
        finding.repaired = repairs;
        tell(finding);
        if !repairs {
            return Ok(false);
        }
    }
    match LostText::of(store, limits)?.filter(|_| part == Part::Whole) {
        Some(lost) => {
            tell(corruption("descriptor-lost", lost.at, LostText::WHY.to_owned()));
            Ok(false)
        }
        None => Ok(true),
    }
}

/// The file as it would be with all of this made anew, for whoever salvages it; as it is, if nothing is
/// wrong with it. What was wrong is added to `notes`.
///
/// # Errors
/// As [`check`].
pub(crate) fn for_salvage(
    part: Part,
    store: Arc<dyn Storage>,
    limits: &Limits,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn Storage>> {
    let mended = Scratch::over(Arc::clone(&store), MEMORY)?;
    let before = notes.len();
    let lost = Some(CutOff::Lost);
    mend(part, &mended, limits, lost, &mut |finding| notes.push(finding.text))?;
    if let Some(lost) = LostText::of(&mended, limits)?.filter(|_| part == Part::Whole) {
        mended.write_at(lost.at, &lost.in_its_place())?;
    }
    Ok(if notes.len() > before { Arc::new(mended) } else { store })
}
