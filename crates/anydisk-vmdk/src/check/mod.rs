//! Checking an image, and mending what can be mended.
//!
//! | kind of finding | mended by |
//! |---|---|
//! | `flat-extent-cut` | |
//! | `extent-size`: the header says less or more than the descriptor | |
//! | `unclean` | clearing the flag |
//! | `header-field`, `footer-lost`, `descriptor-lost` | see [`mend`](crate::mend) |
//! | `directory-lost` | taking the other one as the only one |
//! | `directory-entry` | a new table, made from the second one; else none, but for deltas |
//! | `directory-copy` | a new second table, made from the first one |
//! | `metadata-overlap` | |
//! | `table-entry` | the second table's entry; else none, but for deltas |
//! | `first-grain`: an entry names a free place before that of the first grain | |
//! | `entry-behind-end` | clearing it |
//! | `copies-differ` | copying the first tables over the second |
//! | `grain-used-twice` | a copy of the grain for the second entry that names it |
//! | `grain-cut`: the file ends in the grain | filling the file up with zeroes |
//! | `packed-grain` | |
//! | `leak` | cutting the file, or punching a hole |
//! | `unnamed`: as `leak`, where it holds data or anything else was found | |
//!
//! What may be written, and what counts where the two sets of tables differ: see [`sparse`].
//!
//! Memory: a bit for each sector of a window of the file. A file too long for one window is looked at
//! in several, each with a walk of its own over the tables.

mod occupied;
mod sparse;
mod table;

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, GuestOffset, GuestRange, HostOffset, OpenRequest,
    Repair, Result, Role, Severity, Storage, StorageExt,
};

use self::sparse::SparseCheck;
use crate::codec;
use crate::extent::{Body, Flat, Part};
use crate::mend;
use crate::open;

/// Tells findings, and counts them.
struct Teller<'a> {
    found: &'a mut dyn FnMut(Finding),
    report: CheckReport,
    /// The name of the file that is looked at, if it is not the one that was opened.
    file: Option<String>,
}

impl Teller<'_> {
    fn tell(&mut self, mut finding: Finding) {
        if let Some(file) = &self.file {
            finding.text = format!("{file}: {}", finding.text);
        }
        self.report.count(&finding);
        (self.found)(finding);
    }
}

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    if request.repair != Repair::Nothing && !request.open.is_writable()? {
        return Err(Error::ReadOnly { why: "it was opened for reading".into() });
    }
    let mut teller = Teller { found, report: CheckReport::default(), file: None };
    let (repairs, open) = (request.repair == Repair::All, &request.open);
    let mut can_open = |part, store: &dyn Storage| {
        mend::check(part, store, open.limits, repairs, &mut |finding| teller.tell(finding))
    };
    if !can_open(mend::Part::Whole, &*open.store)? {
        return Ok(teller.report);
    }
    for extent in extents(open)? {
        if !can_open(mend::Part::Extent, &*extent)? {
            return Ok(teller.report);
        }
    }
    let assembly = open::assemble(&request.open)?;
    let all = assembly.parts.iter().map(SparseCheck::work).sum();
    let mut progress = Progress { told: request.progress, done: 0, all };
    for part in &assembly.parts {
        let file = part.file().filter(|file| *file != 0);
        teller.file = file.and_then(|file| Some(assembly.files.get(file)?.name.clone()));
        match &part.body {
            Body::Zero => {}
            Body::Flat(flat) => check_flat(part, flat, &mut teller),
            Body::Sparse(sparse) => {
                let check = SparseCheck::new(request, &assembly, part, sparse);
                check.run(&mut teller, &mut progress)?;
            }
        }
    }
    Ok(teller.report)
}

/// The files of the extents, as far as they can be had.
fn extents(open: &OpenRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
    let named = open::references(open)?.into_iter();
    let extents = named.filter(|reference| reference.role == Role::Extent);
    let files = extents.map(|it| open.resolver.resolve(&it, open.location, open.access));
    Ok(files.flatten().map(|located| located.store).collect())
}

/// How far a check has come.
struct Progress<'a> {
    told: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
    done: u64,
    all: u64,
}

impl Progress<'_> {
    /// So many bytes more were looked at.
    fn step(&mut self, len: u64) -> Result<()> {
        self.done += len;
        let all = self.all.max(self.done);
        match self.told.is_none_or(|told| told(self.done, all)) {
            true => Ok(()),
            false => Err(Error::Cancelled),
        }
    }
}

/// The bytes that a flat extent promises must be in its file.
fn check_flat(part: &Part, flat: &Flat, teller: &mut Teller<'_>) {
    let there = flat.end().checked_since(flat.at).unwrap_or(0);
    if there >= part.range().len() {
        return;
    }
    let text = format!(
        "the file of a flat extent ends at {}, {} bytes too early",
        flat.end(),
        part.range().len() - there
    );
    let finding = Finding::new(Severity::Corruption, "flat-extent-cut", flat.end(), text);
    teller.tell(finding.costing(part.range().skip(there)));
}

/// What is wrong with a packed grain, its place and length being `packed`, of which the extent has
/// `stored` bytes, where whole ones have `grain`.
pub(crate) fn unpack(
    store: &dyn Storage,
    packed: (HostOffset, usize),
    stored: u64,
    grain: u64,
) -> Result<Option<String>> {
    let mut bytes = vec![0; packed.1];
    store.read_padded_at(packed.0, &mut bytes)?;
    let mut out = vec![0; usize::try_from(stored).expect("the limit of a unit")];
    let decoded = codec::of_grain(stored, grain).decode(&bytes, &mut out);
    Ok(decoded.err().map(|error| error.to_string()))
}

/// A part of the disk: `len` bytes from `from_start` on in `part`, cut at its end.
fn guest(part: &Part, from_start: u64, len: u64) -> GuestRange {
    let start = GuestOffset(part.range().start().get().saturating_add(from_start));
    let end = GuestOffset(start.get().saturating_add(len));
    GuestRange::between(start, end).before(part.range().end())
}

/// A place as a sector.
fn sector(at: HostOffset) -> u64 {
    at.get() / crate::layout::SECTOR
}
