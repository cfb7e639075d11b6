//! What a stranger's image is, and whether to take it.
//!
//! ```text
//!   bytes --> marks          which formats could these bytes be taken for
//!     |
//!     +-----> look           open it by itself: names, sizes, map, check; all of it bounded
//!                |
//!   Rules -----> judge       remarks, and the verdict: the worst of them
//! ```
//!
//! Nothing but the file that was given is opened, whatever it names and whatever the
//! [policy](crate::Policy) for opening it would be.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("upload.img");
//! # std::fs::write(&path, vec![0; 1 << 16])?;
//! use anydisk::OpenDisk;
//! use anydisk::inspect::{Judgement, Rules};
//!
//! let rules = Rules::default().taking(["qcow2", "vmdk"]).up_to(1 << 40);
//! let inspection = OpenDisk::untrusted().inspect(&path, &rules)?;
//! assert_eq!(inspection.verdict(), Judgement::Refuse); // Nothing recognises it.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod judge;
mod look;
mod marks;

use std::time::Duration;

use anydisk_core::{CheckReport, Finding, ImageInfo, Reference};

use crate::MemberFinding;

pub use marks::{Mark, MarkKind};

/// What is taken, and how much work a look may cost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// Names of the formats that are taken; if there are none, all that their bytes tell.
    pub formats: Vec<String>,
    /// An image that needs other files is taken too.
    pub references: bool,
    /// Largest virtual size in bytes.
    pub size: Option<u64>,
    /// Largest ratio of the disk's data to the length of the file.
    pub inflation: Option<u64>,
    /// Largest number of snapshots.
    pub snapshots: Option<usize>,
    /// Whether the image's tables are checked.
    pub check: bool,
    /// How long walking the map and checking may take together.
    pub time: Duration,
    /// So many findings of the check are kept; the others are counted.
    pub findings: usize,
    /// Threads that the check may use.
    pub threads: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            formats: Vec::new(),
            references: false,
            size: None,
            inflation: None,
            snapshots: None,
            check: true,
            time: Duration::from_secs(10),
            findings: 100,
            threads: 1,
        }
    }
}

impl Rules {
    /// The same, taking these formats only.
    #[must_use]
    pub fn taking<N: Into<String>>(mut self, formats: impl IntoIterator<Item = N>) -> Self {
        self.formats = formats.into_iter().map(Into::into).collect();
        self
    }

    /// The same, taking disks of at most `size` bytes.
    #[must_use]
    pub fn up_to(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }
}

/// Whether to take an image. The worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    /// Nothing speaks against it.
    Accept,
    /// A person should look at it.
    Doubt,
    /// It breaks a rule.
    Refuse,
}

/// What was found, and what it means for the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remark {
    /// What it means; [`Accept`](Judgement::Accept) for something to know.
    pub judgement: Judgement,
    /// Its kind, for programs: words with hyphens, the same for ever (`two-formats`).
    pub kind: &'static str,
    /// For people. Names that the image gives stand in it escaped.
    pub text: String,
}

/// How it is known which format an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The caller said so.
    Named,
    /// By its magic.
    Magic,
    /// By text that begins as the format's does.
    Likely,
    /// By nothing: anything may be a raw disk.
    Nothing,
}

/// What is known of an image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Name of the format.
    pub format: &'static str,
    /// How it is known.
    pub certainty: Certainty,
    /// What else its bytes could be taken for.
    pub marks: Vec<Mark>,
    /// The files it names, none of which was opened.
    pub references: Vec<Reference>,
    /// Length of the file in bytes.
    pub len: u64,
    /// Bytes that the file has on its medium, if that is known.
    pub allocated: Option<u64>,
    /// Virtual size in bytes, if the image opens.
    pub size: Option<u64>,
    /// Bytes of the disk that the file holds data for, as they are once they are unpacked; `None`
    /// where the map could not be walked to its end.
    pub data: Option<u64>,
    /// What the image says of itself, if it opens.
    pub info: Option<ImageInfo>,
    /// Snapshots inside.
    pub snapshots: usize,
    /// Dirty bitmaps inside.
    pub bitmaps: usize,
    /// What the check came to, if there was one and it came to its end.
    pub check: Option<CheckReport>,
    /// What the check found first.
    pub findings: Vec<Finding>,
    /// What should be known of the package that it lies in, and of its place there.
    pub package: Vec<MemberFinding>,
    /// What is to be said of it, the worst first.
    pub remarks: Vec<Remark>,
}

impl Inspection {
    /// The same of a member of a package, of which this should be known.
    #[must_use]
    pub fn in_package<'a>(mut self, findings: impl IntoIterator<Item = &'a MemberFinding>) -> Self {
        self.package = findings.into_iter().cloned().collect();
        self.remarks.extend(self.package.iter().map(judge::package_remark));
        self.remarks.sort_by_key(|remark| std::cmp::Reverse(remark.judgement));
        self
    }

    /// Whether to take it: the worst of the remarks.
    #[must_use]
    pub fn verdict(&self) -> Judgement {
        self.remarks.iter().map(|remark| remark.judgement).max().unwrap_or(Judgement::Accept)
    }
}

impl Judgement {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Doubt => "doubt",
            Self::Refuse => "refuse",
        }
    }
}

impl Certainty {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Magic => "magic",
            Self::Likely => "likely",
            Self::Nothing => "none",
        }
    }
}
