//! What keeps a file from being opened at all, made anew from what the file says elsewhere.
//!
//! | kind of finding | made from |
//! |---|---|
//! | `header-field`: a wrong bit in grainSize or numGTEsPerGT | directories and tables, or the footer |
//! | `footer-lost`: a stream has no end | what stands before its grains |
//! | `descriptor-lost`: zeroes where the text was | nothing |
//!
//! A check tells it and a repair writes it.

mod header;
mod stream;
mod text;

use anydisk_core::{Finding, HostOffset, Limits, Result, Severity, Storage};
use zerocopy::IntoBytes;

use self::header::FlippedBit;
use self::stream::Headless;
use self::text::LostText;

/// Tells what is wrong, and writes it anew if `repairs`. Whether the file may be opened now.
///
/// # Errors
/// Those of the store, and `Limit`.
pub(crate) fn check(
    store: &dyn Storage,
    limits: &Limits,
    repairs: bool,
    tell: &mut dyn FnMut(Finding),
) -> Result<bool> {
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
            stream.rebuild()?;
        }
        finding.repaired = repairs;
        tell(finding);
        if !repairs {
            return Ok(false);
        }
    }
    match LostText::of(store, limits)? {
        Some(lost) => {
            tell(corruption("descriptor-lost", lost.at, LostText::WHY.to_owned()));
            Ok(false)
        }
        None => Ok(true),
    }
}
