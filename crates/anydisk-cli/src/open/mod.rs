//! How disks are opened.

mod file;
mod opening;
mod part;
mod warnings;

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk::node::{Below, Node};
use anydisk::storage::{LockMode, name};
use anydisk::{
    Access, Checked, Checking, Chosen, Compacted, Disk, Error, Feature, Finding, Layer, Limits,
    Located, Location, OpenDisk, OptionSpec, Policy, Role, SecretProblem, descriptor_in,
};

use self::opening::{Opening, check_drivers};
pub(crate) use self::warnings::Warnings;
use crate::args::Reading;
use crate::failure::Failure;
use crate::naming::{self, Key};
use crate::{output, stream};

impl Reading {
    /// Opens a disk with the chain below it; `direct`: past the page cache.
    pub(crate) fn disk(
        &self,
        name: &OsStr,
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        let opening = self.opening(name, format)?;
        let disk = opening.disk(self.options().direct(direct))?;
        if !self.may_lack_secrets {
            self.check_unlocked(name, &disk)?;
        }
        tell_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// As [`disk`](Self::disk), for writing; the chain below it is only read.
    pub(crate) fn disk_to_write(
        &self,
        name: &OsStr,
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        let opening = self.opening_to_write(name, format)?;
        let disk = opening.disk(self.options_to_write().direct(direct));
        // In a chain that comes back to its top that file is locked: by this process.
        let disk = disk.map_err(|failure| self.loop_of(&opening).unwrap_or(failure))?;
        self.check_unlocked(name, &disk)?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// Why a chain does not open, if it comes back to itself.
    fn loop_of(&self, opening: &Opening<'_>) -> Option<Failure> {
        let options = self.options_with_locks().lock(LockMode::ForceShare);
        let file = opening.file(&options).ok()?;
        let error = opening.of_format(options).located(file).err()?;
        let is_loop = matches!(error.kind(), Error::Loop(_));
        is_loop.then(|| opening.failed_below(opening.failure(error)))
    }

    /// Opens the top image alone, to see what it says of itself: a file that holds its data is not
    /// opened.
    pub(crate) fn top(&self, name: &OsStr, format: Option<&str>) -> Result<Layer, Failure> {
        let layer = self.opening(name, format)?.top(self.options().without_data(true))?;
        tell_if_guessed(&layer);
        Ok(layer)
    }

    /// Opens the top image alone, for writing.
    pub(crate) fn top_to_write(
        &self,
        name: &OsStr,
        format: Option<&str>,
        direct: bool,
    ) -> Result<Layer, Failure> {
        let options = self.options_to_write().direct(direct);
        let layer = self.opening_to_write(name, format)?.top(options)?;
        warn_if_guessed(&layer);
        Ok(layer)
    }

    /// What lies below the image that `node` names, which was opened as `layer`, to be read.
    pub(crate) fn node_below(&self, node: &Node, layer: &Layer) -> Result<Option<Node>, Failure> {
        self.node_below_for(node, layer, false)
    }

    /// The same, to be written to if `write` says so: then it must be clear which file is meant.
    pub(crate) fn node_below_for(
        &self,
        node: &Node,
        layer: &Layer,
        write: bool,
    ) -> Result<Option<Node>, Failure> {
        match &node.backing {
            Below::AsNamed => self.named_below(layer, write),
            Below::Nothing => Ok(None),
            Below::Node(below) => Ok(Some((**below).clone())),
            Below::Further(further) => match self.named_below(layer, write)? {
                Some(named) => {
                    let node = further.clone().about(named);
                    node.map(Some).map_err(|error| Failure::new(error.to_string()))
                }
                None => Ok(None),
            },
        }
    }

    /// What an image names below itself.
    fn named_below(&self, layer: &Layer, write: bool) -> Result<Option<Node>, Failure> {
        let Some(reference) = &layer.backing else { return Ok(None) };
        if self.untrusted {
            let why = "files named inside an image are not followed here";
            return Err(Failure::from(reference.denied(why)));
        }
        let name = match reference.nameless() {
            Some(_) => self.path_below(layer, write)?.into(),
            None => naming::name_below(reference, &layer.location)?,
        };
        self.of_names_inside().node(&name, reference.format.as_deref()).map(Some)
    }

    /// Where the image is that `above` names by a number alone, if the policy allows it to be looked
    /// for.
    fn path_below(&self, above: &Layer, write: bool) -> Result<PathBuf, Failure> {
        let options = self.options();
        if write
            && let Err(error) = options.clone().write(true).file_below(above)
            && matches!(error.kind(), Error::Denied { .. })
        {
            return Err(error.into());
        }
        match options.below(above)?.map(|below| below.location) {
            Some(Location::Path(path)) => Ok(path),
            _ => Err(Failure::new("The image below is in no file")),
        }
    }

    /// The file that `above` names by a number alone, if it is found.
    pub(crate) fn found_below(&self, above: &Layer) -> Option<PathBuf> {
        above.backing.as_ref()?.nameless()?;
        match self.options().file_below(above) {
            Ok(Some(Located { location: Location::Path(path), .. })) => Some(path),
            _ => None,
        }
    }

    /// Changes options of an image. Those that end in `-secret` name secrets.
    pub(crate) fn amend(
        &self,
        name: &OsStr,
        format: Option<&str>,
        direct: bool,
        given: &[(String, String)],
        force: bool,
    ) -> Result<(), Failure> {
        let opening = self.opening_to_write(name, format)?;
        let file = opening.file(&self.options_to_write().direct(direct))?;
        let mut keys = opening.keys()?;
        for (option, id) in given.iter().filter(|(option, _)| option.ends_with("-secret")) {
            let secret = opening.secret(OsStr::new(id))?.clone();
            keys.given.push(Key { option: option.clone(), location: None, secret });
        }
        let options = opening.of_format(self.options()).secrets(Arc::new(keys));
        let options =
            opening.with_parts(options, &self.options_to_write().direct(direct), &file)?;
        self.warn_of(&options, &file);
        let amended = options.amend_located(file.clone(), given, force);
        amended.map_err(|error| match error.kind() {
            Error::Unsupported { format, feature: Feature::Amend } => {
                Failure::new(format!("Format driver '{format}' does not support option amendment"))
            }
            Error::Option { option, .. } if option == "backing_file" || option == "backing_fmt" => {
                let advice = format!("You can use '{} rebase' instead.", output::program());
                Failure::new("Cannot amend the backing file").with_advice(&advice)
            }
            Error::Option { format, option, .. } if is_for_creation(format, option) => {
                Failure::from(error)
                    .after_first_line("This option is only supported for image creation")
            }
            Error::Option { .. } => Failure::from(error),
            // It opened, and what was asked for cannot be.
            Error::Unusable { why, .. } => Failure::new(&**why).about(name),
            _ => opening.failure_of_image(&file, error),
        })
    }

    /// Checks an image, and repairs it if asked to.
    pub(crate) fn check(
        &self,
        name: &OsStr,
        format: Option<&str>,
        direct: bool,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked, Failure> {
        let (opening, options) = match how.access() {
            Access::Read => (self.opening(name, format)?, self.options()),
            Access::ReadWrite => (self.opening_to_write(name, format)?, self.options_to_write()),
        };
        let options = options.direct(direct);
        let file = opening.file(&options)?;
        let own = opening.of_format(options.clone()).secrets(Arc::new(opening.keys()?));
        let own = opening.with_parts(own, &options, &file)?;
        self.warn_of(&own.clone().write(false).without_data(true), &file);
        let checked = own.check_located(file.clone(), how, found);
        checked.map_err(|error| match error.kind() {
            Error::Unsupported { feature: Feature::Check, .. } => Failure::from_check(error),
            Error::Storage(_)
            | Error::Invalid(_)
            | Error::Limit { .. }
            | Error::Unsupported { .. } => opening.failure_of_image(&file, error),
            _ => Failure::from_check(error),
        })
    }

    /// Says what should be known of the images of a disk.
    fn say_warnings(&self, disk: &Disk) {
        disk.layers().iter().for_each(|layer| self.warnings.say(layer));
    }

    /// Says what should be known of the image in `file`, if it opens.
    fn warn_of(&self, options: &OpenDisk, file: &Located) {
        if let Ok(layer) = options.top_located(file.clone()) {
            self.warnings.say(&layer);
        }
    }

    /// Makes the file of an image as short as what it holds.
    pub(crate) fn compact(
        &self,
        name: &OsStr,
        format: Option<&str>,
        progress: &(dyn Fn(u64, u64) -> bool + Sync),
    ) -> Result<Compacted, Failure> {
        let opening = self.opening_to_write(name, format)?;
        let file = opening.file(&self.options_to_write())?;
        let options = opening.of_format(self.options_to_write()).secrets(Arc::new(opening.keys()?));
        self.warn_of(&options, &file);
        options.compact_located(file, progress).map_err(|error| match error.kind() {
            Error::Unsupported { .. } => Failure::from(error).about(name),
            _ => opening.failure(error),
        })
    }

    /// Opens one of the nodes that `name` is made of, alone, to see what it says of itself.
    pub(crate) fn top_of(&self, name: &OsStr, node: &Node) -> Result<Layer, Failure> {
        self.opening_of(name, node.clone())?.top(self.options().without_data(true))
    }

    /// Opens one of the nodes that `name` is made of, alone, to read it.
    pub(crate) fn layer_of(&self, name: &OsStr, node: &Node) -> Result<Layer, Failure> {
        self.opening_of(name, node.clone())?.top(self.options())
    }

    /// The same for writing.
    pub(crate) fn layer_to_write_of(
        &self,
        name: &OsStr,
        node: &Node,
        direct: bool,
    ) -> Result<Layer, Failure> {
        self.opening_of(name, node.clone())?.top(self.options_to_write().direct(direct))
    }

    /// Opens one of the nodes that `name` is made of for writing; the chain below it is only read.
    pub(crate) fn disk_to_write_of(
        &self,
        name: &OsStr,
        node: &Node,
        direct: bool,
    ) -> Result<Disk, Failure> {
        let disk = self.opening_of(name, node.clone())?;
        let disk = disk.disk(self.options_to_write().direct(direct))?;
        self.check_unlocked(name, &disk)?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// What a name stands for; `format`: instead of the driver that it names.
    pub(crate) fn node(&self, name: &OsStr, format: Option<&str>) -> Result<Node, Failure> {
        self.naming.node(name, format)
    }

    /// The same for names that are those of files, whatever is said of others.
    pub(crate) fn of_files(&self) -> Self {
        let mut reading = self.clone();
        reading.naming.image_opts = false;
        reading
    }

    /// The same for those who read nothing that is encrypted, and need no passphrases.
    pub(crate) fn of_locked(&self) -> Self {
        Self { may_lack_secrets: true, ..self.clone() }
    }

    /// The same for those who want what can be read, and the rest told.
    pub(crate) fn to_salvage(&self) -> Self {
        Self { bears_loss: true, ..self.clone() }
    }

    /// The same for names that an image gives.
    pub(crate) fn of_names_inside(&self) -> Self {
        let mut reading = self.of_files();
        reading.naming.plain = true;
        reading
    }

    fn opening<'a>(
        &'a self,
        name: &'a OsStr,
        format: Option<&str>,
    ) -> Result<Opening<'a>, Failure> {
        self.opening_of(name, self.naming.node(name, format)?)
    }

    fn opening_of<'a>(&'a self, name: &'a OsStr, node: Node) -> Result<Opening<'a>, Failure> {
        check_drivers(name, &node)?;
        Ok(Opening { reading: self, name, node, objects: self.naming.objects()? })
    }

    /// As [`opening`](Self::opening), for writing.
    fn opening_to_write<'a>(
        &'a self,
        name: &'a OsStr,
        format: Option<&str>,
    ) -> Result<Opening<'a>, Failure> {
        if stream::is_meant(name) {
            return Err(Failure::new("Standard input cannot be changed")
                .with_advice("Write the image into a file first."));
        }
        if self.force_share {
            let why = "force-share=on can only be used with read-only images";
            return Err(naming::cannot_open(name, why));
        }
        let opening = self.opening(name, format)?;
        let path = Path::new(opening.node.path());
        if path.is_dir() && descriptor_in(path).is_none() {
            let why = format!("Could not open '{}': Is a directory", name::of(path));
            return Err(naming::cannot_open(name, &why));
        }
        Ok(opening)
    }

    /// The way that was asked for.
    fn options(&self) -> OpenDisk {
        let options = self.options_with_locks();
        if self.force_share { options.lock(LockMode::ForceShare) } else { options }
    }

    /// Who writes shares with nobody.
    fn options_to_write(&self) -> OpenDisk {
        self.options_with_locks().write(true)
    }

    fn options_with_locks(&self) -> OpenDisk {
        let options = match self.untrusted {
            true => OpenDisk::untrusted(),
            false => OpenDisk::new().guess_raw(true).policy(Policy::LikeQemu),
        };
        options.devices(self.allow_device.iter().cloned()).bear_loss(self.bears_loss)
    }

    /// What opening may cost.
    pub(crate) fn limits(&self) -> Limits {
        if self.untrusted { Limits::strict() } else { Limits::default() }
    }

    /// Fails if an image of the chain is encrypted and its passphrase was not given.
    fn check_unlocked(&self, name: &OsStr, disk: &Disk) -> Result<(), Failure> {
        let locked = |layer: &Layer| layer.image.info().locked;
        let Some(place) = disk.layers().iter().position(|layer| locked(layer).is_some()) else {
            return Ok(());
        };
        let option = locked(&disk.layers()[place]).unwrap_or_default();
        let why = SecretProblem::Missing("the passphrase of the image");
        let failure = self.failure(name, Error::Secret { option, why });
        if place == 0 {
            return Err(failure);
        }
        let cause = failure.cause_of_open(name).text;
        Err(naming::cannot_open(name, &format!("Could not open backing file: {cause}")))
    }

    fn failure(&self, name: &OsStr, error: Error) -> Failure {
        let path = naming::without_protocol(name);
        if error.io_kind() == Some(ErrorKind::NotFound)
            && let Some(protocol) = naming::protocol(&path).filter(|word| *word != "json")
        {
            return naming::unknown_protocol(&path, protocol);
        }
        let is_denied = matches!(error.kind(), Error::Denied { .. });
        let failure = Failure::from_open(&error, &path).of_image(&path, name);
        if let Error::Denied { role, name, .. } = error.kind()
            && *role == Role::Device.name()
        {
            let advice = format!("If the image may use it: --allow-device {name}");
            return failure.with_advice(&advice);
        }
        if is_denied && self.untrusted {
            return failure.with_advice("If you trust the image, leave out --untrusted.");
        }
        failure
    }
}

/// Refuses a format that is not there, and tells those that are.
fn check_format(path: &OsStr, format: &str) -> Result<(), Failure> {
    if anydisk::formats().by_name(format).is_ok() {
        return Ok(());
    }
    let why = format!("Unknown driver '{format}'");
    Err(naming::cannot_open(path, &why).with_advice(&known_formats()))
}

/// Whether an option can be given when an image is made, and not changed later.
fn is_for_creation(format: &str, option: &str) -> bool {
    let has = |specs: &[OptionSpec]| specs.iter().any(|spec| spec.name == option);
    let format = anydisk::formats().by_name(format);
    format.is_ok_and(|format| has(format.create_options()) && !has(format.amend_options()))
}

/// A line that lists the formats.
pub(crate) fn known_formats() -> String {
    let names: Vec<&str> = anydisk::formats().formats().map(|format| format.name()).collect();
    format!("Formats: {}", names.join(", "))
}

/// As [`warn_if_guessed`], of a disk that is only read. qemu-img is silent then, and scripts take
/// its standard error for a part of its JSON.
fn tell_if_guessed(layer: &Layer) {
    if !output::is_qemu_img() {
        warn_if_guessed(layer);
    }
}

/// Whoever writes the first sector of a raw disk chooses what it is taken for next time.
fn warn_if_guessed(layer: &Layer) {
    if layer.chosen == Chosen::Guessed {
        output::warn(&format!(
            "{}: no format recognises it, so it is taken for raw; say so with -f raw",
            layer.location
        ));
    }
}
