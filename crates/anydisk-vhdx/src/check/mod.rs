//! Looking for damage in an image, which need not be one that opens, and repairing it.
//!
//! | finding | repair |
//! |---|---|
//! | `header-damaged`, `headers-same-number`: one of two is enough | both are written anew |
//! | `region-table-damaged`: one of two is enough | the other one is written there |
//! | `region-tables-differ`: the first one counts | |
//! | `log-to-replay` | it is replayed |
//! | `log-without-entry`: nothing was ever written to it | it is forgotten |
//! | `log-damaged` | |
//! | `reserved-not-zero`, `sector-size`, `locator-unused`, `parent-linkage-missing` | |
//! | `metadata-overlap`: items lie on each other | |
//! | `block-behind-end`, `block-on-metadata`: the data is lost | a zero block, if nothing is left over |
//! | `block-cut`: the file ends in the block | the file is filled up with zeroes |
//! | `block-shared`, `bitmap-shared` | it gets a copy of its own |
//! | `bitmap-behind-end`, `bitmap-cut`, `bitmap-on-metadata`, `bitmap-missing` | |
//! | `bitmap-without-parent` | cleared, if nothing is left over |
//! | `entry-state`: there is no such state, or not here | |
//! | `entry-reserved-bits` | cleared |
//! | `place-without-block`: an entry keeps a place and says that nothing is there | |
//! | `file-not-aligned`: it ends in a MiB | it is made longer |
//! | `space-unnamed` | the end of the file is cut off, if nothing else is wrong |
//! | `table-lost`: nothing names most of the file | |
//!
//! What is left over is space that no entry names and that holds something: it may be the data of the
//! entry that is damaged. Where an entry stays that names a place behind the end of the file, the file is
//! made no longer: nothing is filled up or copied to there.

mod entries;
mod head;
mod mend;

use std::sync::Arc;

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, HostOffset, Repair, Result, Severity, Storage,
};

use crate::guard::read_only;
use crate::header::{Header, Regions};
use crate::image::{head, parent_of, read, table_of};
use crate::metadata::{Items, Metadata};
use crate::state::HeaderState;
use crate::table::Shape;

/// What is known of an image while it is checked.
struct Check<'a> {
    /// The file.
    file: Arc<dyn Storage>,
    /// The file with its log replayed.
    store: Arc<dyn Storage>,
    state: HeaderState,
    repair: Repair,
    progress: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
    /// Something is damaged, or was until now, that could have named space.
    has_doubt: bool,
    /// The headers are to be written anew; without a log, if it says so.
    headers: Option<Headers>,
    /// The region table is to be written to this place.
    region_table: Option<(HostOffset, Vec<u8>)>,
}

/// What is to be done to the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Headers {
    Renew,
    ForgetLog,
}

/// The check of the format.
///
/// # Errors
/// What headers, regions and metadata say where they cannot be trusted, and those of the store.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let file = Arc::clone(&request.open.store);
    if request.repair != Repair::Nothing && !file.is_writable() {
        return Err(read_only("its file was opened for reading"));
    }
    let bytes = head(&*file)?;
    let header = Header::parse(&bytes, file.len()?)?;
    let mut check = Check {
        store: Arc::clone(&file),
        file,
        state: HeaderState::new(&header, false),
        repair: request.repair,
        progress: request.progress,
        report: CheckReport::default(),
        found,
        has_doubt: false,
        headers: None,
        region_table: None,
    };
    check.look_at_headers(&bytes);
    let is_known = check.look_at_log(&header)?;
    check.put_headers()?;
    if is_known {
        let (metadata, shape) = check.look_at_metadata(&header, request)?;
        check.put_region_table()?;
        check.look_at_file_end(&shape);
        check.look_at_entries(&metadata, &shape)?;
    }
    Ok(check.report)
}

impl Check<'_> {
    /// Whether all that can be mended is to be.
    fn mends(&self) -> bool {
        self.repair == Repair::All
    }

    fn tell(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }

    /// Something odd that costs nothing.
    fn note(&mut self, kind: &'static str, at: HostOffset, text: impl Into<String>) {
        self.tell(Finding::new(Severity::Note, kind, at, text.into()));
    }

    /// Something odd that costs nothing, and is mended.
    fn note_mended(
        &mut self,
        kind: &'static str,
        at: HostOffset,
        text: impl Into<String>,
        remedy: &'static str,
    ) {
        let mut finding = Finding::new(Severity::Note, kind, at, text.into()).mended_by(remedy);
        finding.repaired = self.mends();
        self.tell(finding);
    }

    /// What regions and metadata say, as it is with the log replayed.
    fn look_at_metadata(
        &mut self,
        header: &Header,
        request: &CheckRequest<'_>,
    ) -> Result<(Metadata, Shape)> {
        let (bytes, len) = (head(&*self.store)?, self.store.len()?);
        let regions = Regions::parse(&bytes, header, len)?;
        self.look_at_region_tables(&bytes);
        let table = read(&*self.store, table_of(regions.metadata))?;
        let items = Items::parse(&table, regions.metadata)?;
        self.look_at_items(&items, &table, regions.metadata);
        let metadata = items.read(|place| read(&*self.store, place))?;
        let below = parent_of(&items, &metadata, &*self.store, request.open.limits)?;
        self.look_at_parent(&items, &metadata, below.as_ref());
        let shape = Shape::of(&metadata, &regions, header.log, HostOffset(len))?;
        Ok((metadata, shape))
    }

    fn go_on(&self, done: u64, all: u64) -> Result<()> {
        match self.progress {
            Some(progress) if !progress(done, all) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}
