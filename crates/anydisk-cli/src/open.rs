//! How disks are opened.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use anydisk::inspect::{Inspection, Rules};
use anydisk::node::{Below, Child, NameError, Node};
use anydisk::storage::{LockMode, name};
use anydisk::{
    Access, Checked, Checking, Chosen, Compacted, Detail, DetailValue, Disk, Error, Feature,
    Finding, GuestRange, Inside, Layer, Limits, Located, Location, OpenDisk, OptionSpec, Policy,
    Registry, Source,
};

use crate::args::{Part, Reading};
use crate::failure::Failure;
use crate::naming::{self, Key, Keys, Objects};
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
        check_unlocked(&disk).map_err(|error| self.failure(name, error))?;
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
        let disk = opening.disk(self.options_to_write().direct(direct))?;
        warn_if_guessed(&disk.layers()[0]);
        Ok(disk)
    }

    /// Opens the disks of one machine, to see what lies in them.
    pub(crate) fn inside(
        &self,
        paths: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Inside, Failure> {
        // A stranger's disk is not looked into further than was asked for.
        self.inside_to(paths, format, None, !self.untrusted, direct)
    }

    fn inside_to(
        &self,
        paths: &[OsString],
        format: Option<&str>,
        member: Option<&str>,
        deep: bool,
        direct: bool,
    ) -> Result<Inside, Failure> {
        if self.naming.image_opts {
            return Err(Failure::new("--image-opts cannot be used to look inside disks"));
        }
        let paths: Vec<OsString> =
            paths.iter().map(|path| naming::without_protocol(path)).collect();
        let Some(first) = paths.first() else {
            return Err(Failure::new("Expecting one image file name"));
        };
        let mut options = self.options().direct(direct);
        if let Some(format) = format {
            check_format(first, format)?;
            options = options.format(format);
        }
        let inside = match member {
            Some(member) => options.inside_for(&paths, member, deep),
            None => options.inside(&paths, deep),
        };
        let inside = inside.map_err(|error| self.failure(first, error))?;
        inside.disks().for_each(|disk| tell_if_guessed(&disk.layers()[0]));
        Ok(inside)
    }

    /// Opens the disk that is the only file, or a part of what the files hold.
    pub(crate) fn part(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        match (&part.member, files) {
            (None, [file]) => self.disk(file, format, direct),
            (None, _) => {
                let failure = Failure::new("Expecting one image file name");
                Err(failure.with_advice(&output::where_help_is()))
            }
            (Some(member), files) => {
                let deep = !self.untrusted;
                let inside = self.inside_to(files, format, Some(member), deep, direct)?;
                let disk = inside.disk(member, part.member_format.as_deref());
                disk.map_err(|error| about_member(part, error))
            }
        }
    }

    /// Inspects the only file, or a part of what the files hold. No file that one of them names is
    /// opened; a part is looked for as deep as it takes, unless the files are said to be untrusted.
    pub(crate) fn inspect(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        rules: &Rules,
    ) -> Result<Inspection, Failure> {
        let stranger = Self { untrusted: true, ..self.clone() };
        match (&part.member, files) {
            (None, [file]) => {
                let opening = stranger.opening(file, format)?;
                let file = opening.file(&stranger.options())?;
                let options = opening.of_format(stranger.options());
                options.inspect_located(&file, rules).map_err(|error| opening.failure(error))
            }
            (None, _) => Err(Failure::new("Expecting one image file name")),
            (Some(_), files) => {
                let file = stranger.member(part, files, format, !self.untrusted)?;
                let options = stranger.of_member(part)?;
                let inspected = options.inspect_located(&file, rules);
                inspected.map_err(|error| about_member(part, error))
            }
        }
    }

    /// Checks a part of what the files hold.
    pub(crate) fn check_member(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked, Failure> {
        let file = self.member(part, files, format, !self.untrusted)?;
        let checked = self.of_member(part)?.check_located(file, how, found);
        let name = OsStr::new(part.member.as_deref().unwrap_or_default());
        checked.map_err(|error| Failure::from_check(error).about(name))
    }

    /// The bytes of a part of what the files hold.
    fn member(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        deep: bool,
    ) -> Result<Located, Failure> {
        let member = part.member.as_deref().unwrap_or_default();
        let inside = self.inside_to(files, format, Some(member), deep, false)?;
        let store = anydisk::Members::open(&inside, member);
        let store = store.map_err(|error| about_member(part, error))?;
        Ok(Located { store, location: Location::Other(member.to_owned()) })
    }

    /// Reads a part as what it is said to be.
    fn of_member(&self, part: &Part) -> Result<OpenDisk, Failure> {
        let Some(format) = &part.member_format else { return Ok(self.options()) };
        check_format(OsStr::new(part.member.as_deref().unwrap_or_default()), format)?;
        Ok(self.options().format(format))
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

    /// Where the image is that `above` names by a number alone, if the policy allows it to be looked
    /// for.
    pub(crate) fn path_below(&self, above: &Layer) -> Result<PathBuf, Failure> {
        match self.options().below(above)?.map(|below| below.location) {
            Some(Location::Path(path)) => Ok(path),
            _ => Err(Failure::new("The image below is in no file")),
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
            keys.0.push(Key { option: option.clone(), location: None, secret });
        }
        let options = opening.of_format(self.options()).secrets(Arc::new(keys));
        let amended = options.amend_located(file, given, force);
        amended.map_err(|error| match error.kind() {
            Error::Unsupported { format, feature: Feature::Amend } => {
                Failure::new(format!("Format driver '{format}' does not support option amendment"))
            }
            Error::Option { format, option, .. } if is_for_creation(format, option) => {
                Failure::from(error)
                    .after_first_line("This option is only supported for image creation")
            }
            Error::Option { .. } => Failure::from(error),
            _ => self.failure(name, error),
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
        let options = opening.of_format(options).secrets(Arc::new(opening.keys()?));
        let checked = options.check_located(file.clone(), how, found);
        checked.map_err(|error| match error.kind() {
            Error::Storage(_) | Error::Invalid(_) => opening.failure_of_image(&file, error),
            _ => Failure::from_check(error),
        })
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
        options.compact_located(file, progress).map_err(|error| match error.kind() {
            Error::Unsupported { .. } => Failure::from(error).about(name),
            _ => opening.failure(error),
        })
    }

    /// Opens one of the nodes that `name` is made of, alone.
    pub(crate) fn top_of(&self, name: &OsStr, node: &Node) -> Result<Layer, Failure> {
        let (node, objects) = (node.clone(), self.naming.objects()?);
        Opening { reading: self, name, node, objects }.top(self.options().without_data(true))
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
        let node = self.naming.node(name, format)?;
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
        self.opening(name, format)
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
        match self.untrusted {
            true => OpenDisk::untrusted(),
            false => OpenDisk::new().guess_raw(true).policy(Policy::LikeQemu),
        }
    }

    /// What opening may cost.
    pub(crate) fn limits(&self) -> Limits {
        if self.untrusted { Limits::strict() } else { Limits::default() }
    }

    fn failure(&self, name: &OsStr, error: Error) -> Failure {
        let path = naming::without_protocol(name);
        if error.io_kind() == Some(ErrorKind::NotFound)
            && let Some(protocol) = naming::protocol(&path).filter(|word| *word != "json")
        {
            return naming::unknown_protocol(&path, protocol);
        }
        let is_denied = matches!(error.kind(), Error::Denied { .. });
        let failure = Failure::from_open(&error, &path);
        if is_denied && self.untrusted {
            return failure.with_advice("If you trust the image, leave out --untrusted.");
        }
        failure
    }
}

/// An image on its way to be opened.
struct Opening<'a> {
    reading: &'a Reading,
    /// As it stands on the command line.
    name: &'a OsStr,
    node: Node,
    objects: &'a Objects,
}

impl Opening<'_> {
    /// Opens the disk.
    fn disk(&self, options: OpenDisk) -> Result<Disk, Failure> {
        let file = self.file(&options)?;
        let own = self.of_format(options.clone()).secrets(Arc::new(self.keys()?));
        let below = match &self.node.backing {
            Below::AsNamed => {
                let disk = own.located(file.clone());
                let disk = disk.map_err(|error| self.failure_in_chain(&own, file, error))?;
                self.check_encryption(&disk.layers()[0])?;
                return Ok(disk);
            }
            Below::Nothing => Vec::new(),
            Below::Node(node) => {
                let disk = self.of(node).disk(options.write(false))?;
                disk.layers().to_vec()
            }
        };
        let top = own.top_located(file.clone());
        let top = top.map_err(|error| self.failure_of_image(&file, error))?;
        self.check_encryption(&top)?;
        let layers = std::iter::once(top).chain(below).collect();
        Ok(Disk::from_layers(layers, &self.reading.limits()))
    }

    /// Opens the image alone.
    fn top(&self, options: OpenDisk) -> Result<Layer, Failure> {
        let file = self.file(&options)?;
        let options = self.of_format(options).secrets(Arc::new(self.keys()?));
        let layer = options.top_located(file.clone());
        let layer = layer.map_err(|error| self.failure_of_image(&file, error))?;
        self.check_encryption(&layer)?;
        Ok(layer)
    }

    /// Fails if the options say another encryption than the image has.
    fn check_encryption(&self, layer: &Layer) -> Result<(), Failure> {
        let Some(wanted) = self.node.text("encrypt.format") else { return Ok(()) };
        let info = layer.image.info();
        let found = info.details.iter().find_map(encryption);
        match found {
            Some(found) if wanted == found => Ok(()),
            Some(found) => Err(self.refused(&format!(
                "Header reported '{found}' encryption format but options specify '{}'",
                name::of(wanted)
            ))),
            // Of some formats nothing is told but that they are encrypted.
            None if info.encrypted => Ok(()),
            None => Err(self.refused(&format!(
                "No encryption in image header, but options specified format '{}'",
                name::of(wanted)
            ))),
        }
    }

    /// Opens what the image lies in.
    fn file(&self, options: &OpenDisk) -> Result<Located, Failure> {
        let located = match &self.node.child {
            Child::File(path) => self.open_file(path, options)?,
            Child::Node(node) if node.is_file() => self.of(node).file(options)?,
            Child::Node(node) => {
                let disk = self.of(node).disk(options.clone())?;
                let location = Location::Path(PathBuf::from(node.path()));
                Located { store: Arc::new(disk), location }
            }
        };
        self.node.window(located).map_err(|error| match error {
            NameError::Unclear(why) => self.refused(&why),
            NameError::Storage(error) => self.failure(error.into()),
        })
    }

    fn open_file(&self, path: &OsStr, options: &OpenDisk) -> Result<Located, Failure> {
        if stream::is_meant(path) {
            return Ok(Located { store: stream::spooled_input()?, location: location(path) });
        }
        let options = match self.node.flag("cache.direct") {
            true => options.clone().direct(true),
            false => options.clone(),
        };
        options.file(path).map_err(|error| self.failure(error))
    }

    /// Reads it as what the name says it is. A file without more is a raw disk.
    fn of_format(&self, options: OpenDisk) -> OpenDisk {
        match self.node.driver.as_deref() {
            _ if self.node.is_file() => options.format("raw"),
            Some(driver) => options.format(driver),
            None => options,
        }
    }

    /// The secrets that the options of this node name, for its image alone.
    fn keys(&self) -> Result<Keys, Failure> {
        let location = location(self.node.path());
        let key = |(option, id): (&str, &OsStr)| {
            let secret = self.secret(id)?.clone();
            Ok(Key { option: option.to_owned(), location: Some(location.clone()), secret })
        };
        self.node.secrets().map(key).collect::<Result<_, _>>().map(Keys)
    }

    fn secret(&self, id: &OsStr) -> Result<&anydisk::Secret, Failure> {
        self.objects.secret(id).map_err(|why| self.refused(&why))
    }

    fn of(&self, node: &Node) -> Self {
        Self { node: node.clone(), ..*self }
    }

    fn refused(&self, why: &str) -> Failure {
        naming::cannot_open(self.name, why)
    }

    fn failure(&self, error: Error) -> Failure {
        self.reading.failure(self.name, error)
    }

    /// Why the image in `file` does not open: first of all, because it is another format.
    fn failure_of_image(&self, file: &Located, error: Error) -> Failure {
        let failure = self.failure(error);
        let format = self.node.driver.as_deref();
        match format.and_then(|name| anydisk::formats().by_name(name).ok()) {
            Some(format) if Registry::new(&[format]).probe_store(&*file.store).is_err() => {
                let cause = failure.cause_of_open(self.name).text;
                let name = format.name();
                self.refused(&format!("Image is not in {name} format")).with_advice(&cause)
            }
            _ => failure,
        }
    }

    /// Why a chain does not open: because of its top, or of what lies below.
    fn failure_in_chain(&self, options: &OpenDisk, file: Located, error: Error) -> Failure {
        if options.top_located(file.clone()).is_err() {
            return self.failure_of_image(&file, error);
        }
        let cause = self.failure(error).cause_of_open(self.name).text;
        self.refused(&format!("Could not open backing file: {cause}"))
    }
}

/// The kind of encryption, where a format tells it.
fn encryption(detail: &Detail) -> Option<&str> {
    let DetailValue::Map(members) = &detail.value else { return None };
    if detail.name != "encrypt" {
        return None;
    }
    members.iter().find_map(|member| match &member.value {
        DetailValue::Text(text) if member.name == "format" => Some(&**text),
        _ => None,
    })
}

/// Where the file of this name is.
fn location(path: &OsStr) -> Location {
    match stream::is_meant(path) {
        true => Location::Other("standard input".into()),
        false => Location::Path(path.into()),
    }
}

/// Fails if an image is encrypted and its passphrase was not given: its first data is read.
fn check_unlocked(disk: &Disk) -> Result<(), Error> {
    if !disk.layers().iter().any(|layer| layer.image.info().encrypted) {
        return Ok(());
    }
    let mut rest = GuestRange::whole(disk.size());
    while !rest.is_empty() {
        let extent = disk.map(rest)?.extent;
        if matches!(extent.source, Source::Data { .. } | Source::Encoded(_)) {
            break;
        }
        let len = extent.len;
        rest = rest.skip(len);
    }
    let mut sector = vec![0; usize::try_from(rest.len().min(512)).unwrap_or(512)];
    disk.read(rest.start(), &mut sector)
}

fn about_member(part: &Part, error: Error) -> Failure {
    Failure::from(error).about(OsStr::new(part.member.as_deref().unwrap_or_default()))
}

/// Refuses formats that are not there, of an image or of what it lies in.
fn check_drivers(path: &OsStr, node: &Node) -> Result<(), Failure> {
    if let Some(driver) = node.driver.as_deref().filter(|_| !node.is_file()) {
        check_format(path, driver)?;
    }
    match &node.child {
        Child::File(_) => Ok(()),
        Child::Node(child) => check_drivers(path, child),
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
    if output::program() != "qemu-img" {
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
