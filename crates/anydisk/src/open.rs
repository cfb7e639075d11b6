//! Opening a disk by the path of its top image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk_core::{
    Access, BearingLoss, Chosen, Disk, Error, Layer, Limits, Located, Location, NoReferences,
    NoSecrets, Opener, Registry, Resolver, Result, Secrets,
};
use anydisk_storage::{FileStorage, LockMode, Scratch};

use crate::resolve::{Trying, WithDevices, WithParts, WithoutData};
use crate::{LikeQemu, SameFolder, file, formats};

/// The file that a folder stands for which is a disk (a bundle of Parallels).
const BUNDLE: &str = "DiskDescriptor.xml";

/// Which files named inside an image are opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Policy {
    /// None. An image that needs another file is refused.
    Nothing,
    /// Plain file names in the image's own folder; no paths, no links, no devices.
    #[default]
    SameFolder,
    /// Whatever the image says, as qemu-img does. Only for images that are trusted.
    LikeQemu,
    /// What this resolver decides.
    Custom(Arc<dyn Resolver>),
}

/// How a disk is opened. Cautious where nothing is said: read-only, formats recognised but raw
/// never guessed, references followed in the image's own folder only.
///
/// ```no_run
/// use anydisk::{OpenDisk, Policy};
///
/// let disk = OpenDisk::new().write(true).policy(Policy::LikeQemu).path("vm.qcow2")?;
/// # Ok::<(), anydisk::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct OpenDisk {
    format: Option<String>,
    access: Access,
    policy: Policy,
    limits: Limits,
    secrets: Arc<dyn Secrets>,
    guess_raw: bool,
    follow_backing: bool,
    without_data: bool,
    bears_loss: bool,
    pads_cut_off: bool,
    header: Option<(Location, Located)>,
    data_file: Option<(Location, Located)>,
    file: anydisk_storage::OpenOptions,
    registry: Registry,
    scratch: Option<PathBuf>,
    devices: Vec<PathBuf>,
}

/// The file that stands for a folder where that is an image: the descriptor of a Parallels bundle.
pub fn descriptor_in(path: &Path) -> Option<PathBuf> {
    let inside = path.join(BUNDLE);
    (path.is_dir() && inside.is_file()).then_some(inside)
}

impl Default for OpenDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenDisk {
    /// The cautious way.
    pub fn new() -> Self {
        Self {
            format: None,
            access: Access::Read,
            policy: Policy::default(),
            limits: Limits::default(),
            secrets: Arc::new(NoSecrets),
            guess_raw: false,
            follow_backing: true,
            without_data: false,
            bears_loss: false,
            pads_cut_off: false,
            header: None,
            data_file: None,
            file: anydisk_storage::OpenOptions::new().block_devices(true),
            registry: formats(),
            scratch: Some(std::env::temp_dir()),
            devices: Vec::new(),
        }
    }

    /// For an image from a stranger: no file but this one is opened, limits are strict, raw is not
    /// guessed, nothing is unpacked into files.
    pub fn untrusted() -> Self {
        Self::new().policy(Policy::Nothing).limits(Limits::strict()).scratch(None)
    }

    /// The folder for files, without a name, into which members of packages are unpacked that are
    /// too large for memory; that of the system, if nothing is said. `None`: they are refused.
    pub fn scratch(mut self, folder: Option<PathBuf>) -> Self {
        self.scratch = folder;
        self
    }

    /// The format of the top image, instead of looking at its bytes.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// Whether to open the top image for writing. The images below are only read.
    pub fn write(mut self, yes: bool) -> Self {
        self.access = if yes { Access::ReadWrite } else { Access::Read };
        self
    }

    /// Which files named inside the images are opened.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Host devices that an image may name as a part of itself (VMDK's fullDevice and
    /// partitionedDevice, extents of others), by these very names and whatever the
    /// [policy](Self::policy); none, if nothing is said. A file may stand in the place of a device.
    /// Such an image shows what is on the device, and writes to it.
    pub fn devices(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.devices = paths.into_iter().collect();
        self
    }

    /// What it may cost.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Who is asked for the passphrases of encrypted images.
    pub fn secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// Whether a top image that no format recognises is taken for raw. Then any file is a disk.
    pub fn guess_raw(mut self, yes: bool) -> Self {
        self.guess_raw = yes;
        self
    }

    /// Whether the images below are opened (yes, if nothing is said). Without them the disk shows
    /// zeroes where the top image has nothing; a write to a part of a unit there is refused, because
    /// the rest of the unit lies below.
    pub fn follow_backing(mut self, yes: bool) -> Self {
        self.follow_backing = yes;
        self
    }

    /// Whether to pass the page cache by.
    pub fn direct(mut self, yes: bool) -> Self {
        self.file = self.file.direct(yes);
        self
    }

    /// Which lock to hold on the files instead of what the access needs.
    pub fn lock(mut self, mode: LockMode) -> Self {
        self.file = self.file.lock(mode);
        self
    }

    /// These formats instead of the built-in ones.
    pub fn formats(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Opens the disk whose top image is the file or block device at `path`.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] for a file no format recognises (see
    /// [`guess_raw`](Self::guess_raw)), [`Error::Denied`] for a reference the policy forbids, and
    /// what files and formats say. Whoever acts on them matches [`Error::kind`], which leaves out the
    /// name of the file around them.
    pub fn path(&self, path: impl AsRef<Path>) -> Result<Disk> {
        self.located(self.file_at(path.as_ref(), self.access)?)
    }

    /// Opens the disk whose top image is in `file`.
    ///
    /// # Errors
    /// As [`path`](Self::path).
    pub fn located(&self, file: Located) -> Result<Disk> {
        let disk = self.with_opener(|opener| {
            let format = self.format_of(&file)?;
            if self.follow_backing {
                return opener.open(file, format, self.access);
            }
            let layer = opener.open_one(file, format, self.access)?;
            Ok(Disk::from_layers(vec![layer], opener.limits()))
        });
        disk.map(|disk| self.padded_as_asked(disk))
    }

    pub(crate) fn padded_as_asked(&self, disk: Disk) -> Disk {
        if self.pads_cut_off { disk } else { disk.unpadded_but_for_last_unit() }
    }

    /// Whether an external data file (qcow2), which holds what the guest wrote and nothing else, is
    /// left alone, whatever the policy: for those who want to know what an image is. All that
    /// should be read from it reads as zero.
    pub fn without_data(mut self, yes: bool) -> Self {
        self.without_data = yes;
        self
    }

    /// Whether a disk is opened of which parts cannot be had: an image below, a file that holds data,
    /// one of several extents. Reading such a part fails and tells why: for
    /// [salvaging](crate::convert::salvage).
    pub fn bear_loss(mut self, yes: bool) -> Self {
        self.bears_loss = yes;
        self
    }

    /// Whether what lies behind the end of a file that was cut off reads as zeroes, as some programs have
    /// it. If nothing is said, reading it is an error; zeroes is only what a format lets a writer leave out
    /// of the last unit.
    pub fn pad_cut_off(mut self, yes: bool) -> Self {
        self.pads_cut_off = yes;
        self
    }

    /// The header of the image at `image`, which lies apart from it (LUKS).
    pub fn header_apart(mut self, image: Location, header: Located) -> Self {
        self.header = Some((image, header));
        self
    }

    /// The data of the image at `image`, in place of the data file that it names (qcow2), whatever the
    /// [policy](Self::policy).
    pub fn data_file(mut self, image: Location, data: Located) -> Self {
        self.data_file = Some((image, data));
        self
    }

    /// Opens the top image alone.
    ///
    /// # Errors
    /// As [`path`](Self::path).
    pub fn top(&self, path: impl AsRef<Path>) -> Result<Layer> {
        self.top_located(self.file_at(path.as_ref(), self.access)?)
    }

    /// Opens the image in `file` alone.
    ///
    /// # Errors
    /// As [`path`](Self::path).
    pub fn top_located(&self, file: Located) -> Result<Layer> {
        self.with_opener(|opener| {
            opener.open_one(file.clone(), self.format_of(&file)?, self.access)
        })
    }

    /// Opens the file or block device at `path`, and no image in it: for those who make a store of
    /// it first, a [`Window`](anydisk_storage::Window) or what is decrypted.
    ///
    /// # Errors
    /// What the file system says.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<Located> {
        self.file_at(path.as_ref(), self.access)
    }

    /// Opens the image that `above` says lies below it, alone, where the policy allows it; `None` if
    /// it names none. Its content may be another than `above` was made for: see
    /// [`Opener::open_next`].
    ///
    /// # Errors
    /// As [`path`](Self::path).
    pub fn below(&self, above: &Layer) -> Result<Option<Layer>> {
        self.with_opener(|opener| opener.open_next(above, self.access))
    }

    /// The file of the image that `above` says lies below it, where the policy allows it; `None` if it
    /// names none. See [`Opener::file_below`].
    ///
    /// # Errors
    /// Those of the policy and of opening the file.
    pub fn file_below(&self, above: &Layer) -> Result<Option<Located>> {
        self.with_opener(|opener| opener.file_below(above, self.access))
    }

    /// The disk whose top image is `top`, with the chain below it.
    ///
    /// # Errors
    /// As [`path`](Self::path).
    pub fn complete(&self, top: Layer) -> Result<Disk> {
        let disk = self.with_opener(|opener| opener.complete(top.clone()));
        disk.map(|disk| self.padded_as_asked(disk))
    }

    pub(crate) fn file_at(&self, path: &Path, access: Access) -> Result<Located> {
        let path = descriptor_in(path).unwrap_or_else(|| path.to_owned());
        let store = FileStorage::open(&path, &file::with_access(&self.file, access))?;
        Ok(Located { store: Arc::new(store), location: Location::Path(path) })
    }

    /// The format to open with: the one named, else `None` after making sure that the bytes tell.
    pub(crate) fn format_of(&self, file: &Located) -> Result<Option<&str>> {
        if let Some(name) = &self.format {
            return Ok(Some(name));
        }
        let (_, chosen) = self.registry.probe_store(&*file.store)?;
        if chosen == Chosen::Guessed && !self.guess_raw {
            let what = format!(
                "no format recognises {}; name the format raw to take it for a raw disk",
                file.location
            );
            return Err(Error::UnknownFormat(what));
        }
        Ok(None)
    }

    pub(crate) fn with_opener<R>(&self, run: impl FnOnce(&Opener<'_>) -> Result<R>) -> Result<R> {
        self.with_opener_for(None, run)
    }

    /// As [`with_opener`](Self::with_opener); if it is a trial of changes to an image that is read
    /// through this store, those to other files are kept beside it too.
    pub(crate) fn with_opener_for<R>(
        &self,
        trial: Option<Arc<Scratch>>,
        run: impl FnOnce(&Opener<'_>) -> Result<R>,
    ) -> Result<R> {
        self.with_resolver(|resolver| {
            let trying = trial.map(|store| Trying::new(resolver, store));
            let resolver = trying.as_ref().map_or(resolver, |trying| trying as &dyn Resolver);
            run(&Opener::new(&self.registry, resolver)
                .with_limits(self.limits.clone())
                .with_secrets(&*self.secrets))
        })
    }

    pub(crate) fn with_resolver<R>(
        &self,
        run: impl FnOnce(&dyn Resolver) -> Result<R>,
    ) -> Result<R> {
        let nothing = NoReferences;
        let same_folder = SameFolder::new(self.file.clone());
        let like_qemu = LikeQemu::new(self.file.clone());
        let resolver: &dyn Resolver = match &self.policy {
            Policy::Nothing => &nothing,
            Policy::SameFolder => &same_folder,
            Policy::LikeQemu => &like_qemu,
            Policy::Custom(resolver) => &**resolver,
        };
        let with_devices =
            WithDevices { others: resolver, devices: &self.devices, open: self.file.clone() };
        let (header, data_file) = (self.header.as_ref(), self.data_file.as_ref());
        let with_parts = WithParts { others: &with_devices, header, data_file };
        match (self.without_data, self.bears_loss) {
            (true, _) => run(&WithoutData(&with_parts)),
            (false, true) => run(&BearingLoss(&with_parts)),
            (false, false) => run(&with_parts),
        }
    }

    /// The format that was named.
    pub(crate) fn said_format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn scratch_folder(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    pub(crate) fn limits_in_force(&self) -> &Limits {
        &self.limits
    }
}
