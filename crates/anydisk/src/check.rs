//! Checking a file, repairing it, and changing what it is.

use std::path::Path;

use anydisk_core::{
    Access, AmendRequest, CheckReport, CheckRequest, Finding, Located, Options, Repair, Result,
};

use crate::OpenDisk;

/// How an image is checked.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Checking<'a> {
    /// What is mended.
    pub repair: Repair,
    /// Threads that may be used.
    pub threads: usize,
    /// Is told bytes done and bytes in all, now and then; answers whether to go on.
    pub progress: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
}

impl Default for Checking<'_> {
    fn default() -> Self {
        Self { repair: Repair::Nothing, threads: 1, progress: None }
    }
}

impl Checking<'_> {
    /// How the image is opened.
    #[must_use]
    pub fn access(&self) -> Access {
        if self.repair == Repair::Nothing { Access::Read } else { Access::ReadWrite }
    }
}

impl std::fmt::Debug for Checking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { repair, threads, .. } = self;
        f.debug_struct("Checking")
            .field("repair", repair)
            .field("threads", threads)
            .finish_non_exhaustive()
    }
}

/// What came out of a check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// Name of the format.
    pub format: &'static str,
    /// What was counted.
    pub report: CheckReport,
}

impl OpenDisk {
    /// Checks the image at `path`, which need not be one that opens, and whether the chain below
    /// it comes back to itself. Repairing opens it for writing. Each finding is told to `found`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the format has no check; as
    /// [`path`](Self::path).
    pub fn check(
        &self,
        path: impl AsRef<Path>,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked> {
        let file = self.file_at(path.as_ref(), how.access())?;
        self.check_located(file, how, found)
    }

    /// As [`check`](Self::check), of the image in `file`, which is writable if it is to be repaired.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_located(
        &self,
        file: Located,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked> {
        let access = how.access();
        self.with_opener(|opener| {
            let (format, _) = opener.format(&file, self.format_of(&file)?)?;
            let mut request = CheckRequest::new(opener.request(&file, access));
            request.repair = how.repair;
            request.threads = how.threads;
            request.progress = how.progress;
            let report = opener.check(format, &file, &request, found)?;
            Ok(Checked { format: format.name(), report })
        })
    }

    /// Changes options of the image at `path`, given as names and values; see
    /// [`Format::amend`](crate::Format::amend). `force`: also what makes data unreadable for ever.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for what the image cannot become; as
    /// [`path`](Self::path).
    pub fn amend(
        &self,
        path: impl AsRef<Path>,
        given: &[(String, String)],
        force: bool,
    ) -> Result<()> {
        self.amend_located(self.file_at(path.as_ref(), Access::ReadWrite)?, given, force)
    }

    /// As [`amend`](Self::amend), of the image in `file`, which is writable.
    ///
    /// # Errors
    /// As [`amend`](Self::amend).
    pub fn amend_located(
        &self,
        file: Located,
        given: &[(String, String)],
        force: bool,
    ) -> Result<()> {
        self.with_opener(|opener| {
            let (format, _) = opener.format(&file, self.format_of(&file)?)?;
            let mut options = Options::to_amend(format);
            let name = file.location.to_string();
            for (option, value) in given {
                options.set(option, value).map_err(|error| error.within(&name))?;
            }
            let open = opener.request(&file, Access::ReadWrite);
            let amended = format.amend(AmendRequest { open, options: &options, force });
            amended.map_err(|error| error.within(&name))
        })
    }
}
