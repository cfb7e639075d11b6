//! Checking and repairing an image: findings as data, and counts as the field counts them.

use std::borrow::Cow;
use std::fmt;

use anydisk_storage::HostOffset;

use crate::{Error, GuestRange, OpenRequest, Result};

/// What [`Format::check`](crate::Format::check) is given. The image need not be one that opens.
#[derive(Clone)]
#[non_exhaustive]
pub struct CheckRequest<'a> {
    /// The image. Repairing needs [`Access::ReadWrite`](crate::Access::ReadWrite).
    pub open: OpenRequest<'a>,
    /// What to mend.
    pub repair: Repair,
    /// Read the data too, and unpack what is packed: finds what tables alone do not show. Takes as
    /// long as reading all of it. Where [`Format::checks_data`](crate::Format::checks_data) says no,
    /// such a check is refused.
    pub data: bool,
    /// Threads that may be used, at least 1.
    pub threads: usize,
    /// Is told bytes done and bytes in all, now and then; answers whether to go on.
    pub progress: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
}

impl<'a> CheckRequest<'a> {
    /// A check of the image, which changes nothing, on one thread.
    #[must_use]
    pub fn new(open: OpenRequest<'a>) -> Self {
        Self { open, repair: Repair::Nothing, data: false, threads: 1, progress: None }
    }

    /// The same, mending what `repair` says.
    #[must_use]
    pub fn repairing(mut self, repair: Repair) -> Self {
        self.repair = repair;
        self
    }

    /// Refuses a repair, for a format whose images cannot be mended.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if one is asked for.
    pub fn without_repair(&self, format: &'static str) -> Result<()> {
        match self.repair {
            Repair::Nothing => Ok(()),
            _ => Err(Error::Unsupported { format, feature: "repairing an image".into() }),
        }
    }

    /// The same, reading the data too.
    #[must_use]
    pub fn reading_data(mut self) -> Self {
        self.data = true;
        self
    }
}

impl fmt::Debug for CheckRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckRequest")
            .field("open", &self.open)
            .field("repair", &self.repair)
            .field("data", &self.data)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// What a check is to mend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// Nothing: the findings say what would be done.
    #[default]
    Nothing,
    /// Space that nothing names is given back.
    Leaks,
    /// All that can be mended without turning good data into bad.
    All,
}

/// Bytes that a crash may leave without a name, however little is named.
const OF_A_CRASH: u64 = 16 << 20;

/// Whether `unnamed` bytes in a file whose map names `named` can be what a crash left: fewer than
/// those, or few at all. More of them look like the data of a table that was lost, and must neither be
/// told as space without use nor given back.
///
/// Where discarding leaves space without a name, 0 should be asked for, if no table is named at all.
#[must_use]
pub fn can_be_leaks(unnamed: u64, named: u64) -> bool {
    unnamed < named || unnamed <= OF_A_CRASH
}

/// Blocks that may be on their way when power fails, however large they are.
const AT_WORK: u64 = 4;

/// As [`can_be_leaks`], of bytes in blocks of `block` each: a few may have been given out before any was
/// named.
#[must_use]
pub fn can_be_leaked_blocks(unnamed: u64, named: u64, block: u64) -> bool {
    unnamed <= block.saturating_mul(AT_WORK) || can_be_leaks(unnamed, named)
}

/// One inconsistency.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind, for programs: words with hyphens, the same for ever (`refcount-too-low`).
    pub kind: &'static str,
    /// Where it is in the file.
    pub at: HostOffset,
    /// What was found and what was expected, for people.
    pub text: String,
    /// The part of the disk it costs or endangers, if it is known.
    pub guest: Option<GuestRange>,
    /// What a repair does about it; `None`: nothing can be done.
    pub remedy: Option<Cow<'static, str>>,
    /// It was mended.
    pub repaired: bool,
}

impl Finding {
    /// A finding of this kind at this place, not mended.
    #[must_use]
    pub fn new(severity: Severity, kind: &'static str, at: HostOffset, text: String) -> Self {
        Self { severity, kind, at, text, guest: None, remedy: None, repaired: false }
    }

    /// The same, costing this part of the disk.
    #[must_use]
    pub fn costing(mut self, guest: GuestRange) -> Self {
        self.guest = Some(guest);
        self
    }

    /// The same, with what a repair does about it.
    #[must_use]
    pub fn mended_by(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Breaks a rule of the format and endangers nothing.
    Note,
    /// Space that nothing names.
    Leak,
    /// Data is wrong or lost, or the next write may make it so.
    Corruption,
    /// A part could not be checked, because it could not be read.
    Unreadable,
}

impl Severity {
    /// The word for it, for programs: `note`, `leak`, `corruption`, `unreadable`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Leak => "leak",
            Self::Corruption => "corruption",
            Self::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Corruptions that are still there.
    pub corruptions: u64,
    /// Leaked units that are still there.
    pub leaks: u64,
    /// Parts that could not be checked.
    pub check_errors: u64,
    /// Corruptions that were mended.
    pub corruptions_fixed: u64,
    /// Leaked units that were given back.
    pub leaks_fixed: u64,
    /// Units of the disk, if the format counts them.
    pub total_clusters: Option<u64>,
    /// Units that have space.
    pub allocated_clusters: Option<u64>,
    /// Units that do not lie directly behind the one before.
    pub fragmented_clusters: Option<u64>,
    /// Units that are stored packed.
    pub compressed_clusters: Option<u64>,
    /// Behind the last byte in use.
    pub image_end: Option<HostOffset>,
}

impl CheckReport {
    /// Whether nothing is wrong any more.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0 && self.check_errors == 0
    }

    /// Counts `finding`.
    pub fn count(&mut self, finding: &Finding) {
        self.count_times(finding, 1);
    }

    /// Counts `finding`, which is so many inconsistencies: a thing that several others name may be
    /// one for each of them.
    pub fn count_times(&mut self, finding: &Finding, times: u64) {
        let count = match (finding.severity, finding.repaired) {
            (Severity::Note, _) => return,
            (Severity::Leak, false) => &mut self.leaks,
            (Severity::Leak, true) => &mut self.leaks_fixed,
            (Severity::Corruption, false) => &mut self.corruptions,
            (Severity::Corruption, true) => &mut self.corruptions_fixed,
            (Severity::Unreadable, _) => &mut self.check_errors,
        };
        *count = count.saturating_add(times);
    }
}
