//! Making the file of an image as short as what it holds.
//!
//! What lies at the end of the file moves into gaps before it, all of it at once:
//!
//! ```text
//!   refcounts of the new places raised                              flush
//!   data, streams and bits of bitmaps copied                        flush
//!   entries that name them, in L2 tables and tables of bitmaps      flush
//!   L2 tables, refcount blocks and tables of bitmaps copied         flush
//!   entries that name them, in L1 tables, refcount table, directory of bitmaps     flush
//!   these copied, then named in the snapshot table; that copied     flush after each
//!   the header names what has moved
//!   refcounts of the old places lowered                             flush
//! ```
//!
//! So after a power failure each thing is named where it is whole, and at worst space is lost. Then
//! everything is looked at again, as long as something can move: what was large may fit now. Memory
//! goes with what moves, and with a bit for each cluster of the file; where more moves than fits,
//! the end of the file moves first. The header and a crypto header stay; the file ends behind the
//! last thing that is in the way.
//!
//! | module | |
//! |---|---|
//! | `free` | which clusters are free |
//! | `atlas` | what lies where, at the end of the file |
//! | `plan` | where it goes; pure |
//! | `act` | copying and naming, in order |
//! | `pace` | who is told, and who is waited for |

mod act;
mod atlas;
mod free;
mod pace;
mod plan;

use std::sync::Arc;

use anydisk_core::{Error, Limits, Repair, Result, Storage};

use self::act::Act;
use self::atlas::Atlas;
use self::free::Free;
pub(crate) use self::pace::Pace;
use self::plan::Plan;
use super::progress::Progress;
use super::references::{PAGE, References};
use super::repair::repair;
use super::subject::Subject;
use super::trouble::Teller;
use super::{Named, Settings, Window, refuse_damage, survey};
use crate::NAME;

/// Looks at everything, at most. One is enough where what moves fits in memory, and others move what
/// was too large for the gaps then.
const PASSES: usize = 1 << 10;

/// Makes the file of an image, to which nobody writes, as short as what it holds, and returns the
/// bytes by which it became shorter. What the disk and its snapshots hold stays as it is, also after
/// a power failure on the way. `data`: what the disk holds, by the places of the file, where that is
/// not what the file holds.
///
/// # Errors
/// [`Error::NeedsRepair`] for an image that is not in order (lost space is given back);
/// [`Error::Limit`] for a file of which not even a bit for each cluster fits in memory;
/// [`Error::Cancelled`]; those of the store.
pub(crate) fn compact(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    data: Option<&dyn Storage>,
    pace: &Pace<'_>,
) -> Result<u64> {
    let settings = Settings { threads: 1, memory: limits.table_cache, ..Settings::default() };
    let before = store.len()?;
    if !is_clean(store, limits)? {
        give_back(store, limits, settings, &Progress::new(None))?;
        refuse_damage(store, limits)?;
    }
    for number in 1.. {
        pace.settle()?;
        pace.step(0)?;
        let subject = Subject::open(store, limits)?;
        let image = Named::find_surely(&subject, settings)?;
        let free = free(&image, settings)?;
        let end = free.end;
        if number > PASSES || !pass(&image, free, data, settings, pace)? {
            cut(&subject, end)?;
            break;
        }
    }
    Ok(before.saturating_sub(store.len()?))
}

/// Moves what can move now; whether there was something.
fn pass(
    image: &Named<'_>,
    free: Free,
    data: Option<&dyn Storage>,
    settings: Settings,
    pace: &Pace<'_>,
) -> Result<bool> {
    let subject = image.subject;
    let references = &counted(image, &free, settings)?;
    let moves_data = data.is_some() || subject.header.crypt_method != 2;
    let mut atlas = Atlas::draw(image, (references, free), moves_data, settings.memory)?;
    let plan = Plan::new(&mut atlas, &subject.geometry, subject.width.max());
    if plan.is_empty() {
        return Ok(false);
    }
    pace.expect(plan.len(subject.bits()));
    let data = data.unwrap_or(&*subject.store);
    Act { image, references, atlas: &atlas, plan: &plan, data, pace }.perform()?;
    Ok(true)
}

/// Which clusters are free.
fn free(image: &Named<'_>, settings: Settings) -> Result<Free> {
    let (found, limit) = (Free::len(image.subject.end()), settings.memory as u64);
    if found > limit {
        let what = "bytes for which clusters of the file are free".into();
        return Err(Error::Limit { format: NAME, what, found, limit });
    }
    Free::of(image)
}

/// Lowers the refcounts of what is not named any more.
pub(super) fn give_back(
    store: &Arc<dyn Storage>,
    limits: &Limits,
    settings: Settings,
    progress: &Progress<'_>,
) -> Result<()> {
    let subject = Subject::open(store, limits)?;
    repair(&subject, Repair::Leaks, settings, progress, &mut |_| {}).map(drop)
}

/// How often each cluster at the end of the file is named: of those behind as many as are in use,
/// and of no more of them than fit in memory.
fn counted(image: &Named<'_>, free: &Free, settings: Settings) -> Result<References> {
    // The file is cut at last: behind what is in use lies what has moved.
    let (end, size) = (free.end.min(image.subject.end()), image.touched.window(0).end);
    let first = free.used.max(end.saturating_sub(size));
    let first = first.min(end) / PAGE * PAGE;
    let references = References::new(first..end.next_multiple_of(PAGE));
    let window = Window { image, references, first: true, settings };
    window.count_surely(settings.threads, &Progress::new(None))?;
    Ok(window.references)
}

/// Cuts the file before cluster `end`, from which on nothing is in use.
fn cut(subject: &Subject, end: u64) -> Result<()> {
    let end = subject.offset(end.max(1)).get();
    if end < subject.file_len {
        subject.store.flush()?;
        subject.store.set_len(end)?;
    }
    Ok(subject.store.flush()?)
}

/// Whether nothing is to be repaired.
fn is_clean(store: &Arc<dyn Storage>, limits: &Limits) -> Result<bool> {
    let subject = Subject::open(store, limits)?;
    let mut teller = Teller::quiet();
    survey(&subject, Settings::of(limits), &Progress::new(None), &mut teller)?;
    Ok(teller.report.is_clean())
}
