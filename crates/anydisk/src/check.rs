//! Checking a file, repairing it, and changing what it is.

use std::path::Path;
use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, CheckReport, CheckRequest, Error, Feature, Finding, Located, Options,
    PassphraseChange, Preallocation, Repair, Result,
};
use anydisk_storage::Scratch;

use crate::OpenDisk;

/// Bytes of changes that trying out a repair may keep in memory: refcounts of some terabytes.
const CHANGES: usize = 256 << 20;

/// How an image is checked.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Checking<'a> {
    /// What is mended.
    pub repair: Repair,
    /// The data is read too, and what is packed is unpacked; see [`CheckRequest::data`].
    pub data: bool,
    /// Nothing is written: the findings and the report are those of a repair that is only tried
    /// out, with its changes kept in memory. The file is opened for reading.
    pub dry_run: bool,
    /// Threads that may be used.
    pub threads: usize,
    /// Is told bytes done and bytes in all, now and then; answers whether to go on.
    pub progress: Option<&'a (dyn Fn(u64, u64) -> bool + Sync)>,
}

impl Default for Checking<'_> {
    fn default() -> Self {
        Self { repair: Repair::Nothing, data: false, dry_run: false, threads: 1, progress: None }
    }
}

impl Checking<'_> {
    /// How the image is opened.
    #[must_use]
    pub fn access(&self) -> Access {
        match self.repair {
            Repair::Leaks | Repair::All if !self.dry_run => Access::ReadWrite,
            _ => Access::Read,
        }
    }

    /// The access that the format is told of.
    fn access_told(&self) -> Access {
        if self.repair == Repair::Nothing { Access::Read } else { Access::ReadWrite }
    }
}

impl std::fmt::Debug for Checking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { repair, data, dry_run, threads, .. } = self;
        f.debug_struct("Checking")
            .field("repair", repair)
            .field("data", data)
            .field("dry_run", dry_run)
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

/// The option of amending that concerns the whole disk.
const SIZE: &str = "size";

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
        mut file: Located,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked> {
        let mut trial = None;
        if how.dry_run {
            let scratch = Arc::new(Scratch::over(file.store, CHANGES)?);
            file.store = scratch.clone();
            trial = Some(scratch);
        }
        let access = how.access_told();
        self.with_opener_for(trial, |opener| {
            let (format, _) = opener.format(&file, self.format_of(&file)?)?;
            let mut request = CheckRequest::new(opener.request(&file, access));
            request.repair = how.repair;
            request.data = how.data;
            request.threads = how.threads;
            request.progress = how.progress;
            let report = opener.check(format, &file, &request, found)?;
            Ok(Checked { format: format.name(), report })
        })
    }

    /// Changes options of the image at `path`, given as names and values; see
    /// [`Format::amend`](crate::Format::amend). The size is that of the whole disk: what lies below
    /// does not show in what is new. `force`: also what makes data unreadable for ever.
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
    /// Size and other options change together or, where one of them is refused, not at all: they are
    /// tried in memory first, as far as that is not too much of it.
    ///
    /// # Errors
    /// As [`amend`](Self::amend).
    pub fn amend_located(
        &self,
        file: Located,
        given: &[(String, String)],
        force: bool,
    ) -> Result<()> {
        let sizes = given.iter().filter(|(option, _)| option == SIZE).count();
        if (1..given.len()).contains(&sizes) {
            let scratch = Arc::new(Scratch::over(Arc::clone(&file.store), CHANGES)?);
            let tried = Located { store: scratch.clone(), location: file.location.clone() };
            let answer = self.amend_all(tried, Some(Arc::clone(&scratch)), given, force);
            answer.or_else(|error| if scratch.was_short() { Ok(()) } else { Err(error) })?;
        }
        self.amend_all(file, None, given, force)
    }

    fn amend_all(
        &self,
        file: Located,
        trial: Option<Arc<Scratch>>,
        given: &[(String, String)],
        force: bool,
    ) -> Result<()> {
        let wanted = self.amend_image(&file, trial.clone(), given, force)?;
        let Some(size) = wanted.number(SIZE) else { return Ok(()) };
        let format = self.format_of(&file)?;
        let disk = self.with_opener_for(trial, |opener| {
            opener.open(file.clone(), format, Access::ReadWrite)
        })?;
        disk.resize(size, Preallocation::Off)?;
        disk.flush()
    }

    /// Changes all but the size. Answers all that is wanted.
    fn amend_image(
        &self,
        file: &Located,
        trial: Option<Arc<Scratch>>,
        given: &[(String, String)],
        force: bool,
    ) -> Result<Options> {
        self.with_opener_for(trial, |opener| {
            let (format, _) = opener.format(file, self.format_of(file)?)?;
            if format.amend_options().is_empty() {
                let feature = Feature::Amend;
                return Err(Error::Unsupported { format: format.name(), feature });
            }
            let name = file.location.to_string();
            let (mut all, mut options) = (Options::to_amend(format), Options::to_amend(format));
            for (option, value) in given {
                all.set(option, value).map_err(|error| error.within(&name))?;
                if option != SIZE {
                    options.set(option, value)?;
                }
            }
            if given.iter().all(|(option, _)| option == SIZE) && !given.is_empty() {
                return Ok(all);
            }
            let open = opener.request(file, Access::ReadWrite);
            let amended = format.amend(AmendRequest { open, options: &options, force });
            amended.map(|()| all).map_err(|error| error.within(&name))
        })
    }

    /// Adds or removes passphrases of the encrypted image at `path`; see
    /// [`Format::change_passphrases`](crate::Format::change_passphrases).
    ///
    /// ```no_run
    /// use anydisk::{OpenDisk, PassphraseChange, Secret};
    ///
    /// let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    /// let change = PassphraseChange::add(secret("old"), secret("new"));
    /// OpenDisk::new().change_passphrases("vm.qcow2", &change, false)?;
    /// # Ok::<(), anydisk::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there, and as [`path`](Self::path).
    pub fn change_passphrases(
        &self,
        path: impl AsRef<Path>,
        change: &PassphraseChange,
        force: bool,
    ) -> Result<()> {
        let file = self.file_at(path.as_ref(), Access::ReadWrite)?;
        self.with_opener(|opener| {
            let (format, _) = opener.format(&file, self.format_of(&file)?)?;
            let request = opener.request(&file, Access::ReadWrite);
            let changed = format.change_passphrases(&request, change, force);
            changed.map_err(|error| error.within(&file.location.to_string()))
        })
    }
}
