//! An image on its way to be opened: the names of its files, its keys, and why it does not open.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anydisk::node::{Below, Child, NameError, Node, null_store};
use anydisk::storage::name;
use anydisk::{Detail, DetailValue, Disk, Error, Layer, Located, Location, OpenDisk, Registry};

use super::{check_format, file};
use crate::args::Reading;
use crate::failure::Failure;
use crate::naming::{self, Key, Keys, Objects};
use crate::stream;

/// An image on its way to be opened.
pub(super) struct Opening<'a> {
    pub(super) reading: &'a Reading,
    /// As it stands on the command line.
    pub(super) name: &'a OsStr,
    pub(super) node: Node,
    pub(super) objects: &'a Objects,
}

impl Opening<'_> {
    /// Opens the disk.
    pub(super) fn disk(&self, options: OpenDisk) -> Result<Disk, Failure> {
        if let Some(node) = self.shown_whole() {
            return self.of(node).disk(options);
        }
        let file = self.file(&options)?;
        let own = self.of_format(options.clone()).secrets(Arc::new(self.keys()?));
        let own = self.with_parts(own, &options, &file)?;
        if self.node.backing == Below::AsNamed {
            let disk = own.located(file.clone());
            let disk = disk.map_err(|error| self.failure_in_chain(&own, file, error))?;
            self.check_said(&disk.layers()[0])?;
            self.reading.say_warnings(&disk);
            return Ok(disk);
        }
        let top = own.top_located(file.clone());
        let top = top.map_err(|error| self.failure_of_image(&file, error))?;
        self.check_said(&top)?;
        self.reading.warnings.say(&top);
        let below = self.reading.node_below(&self.node, &top);
        let below = below.and_then(|node| match node {
            Some(node) => Ok(self.of(&node).disk(options.write(false))?.layers().to_vec()),
            None => Ok(Vec::new()),
        });
        let below = match below {
            Err(failure) if self.reading.bears_loss => {
                vec![Layer::missing_below(&top, &lost_below(failure))]
            }
            other => other.map_err(|failure| self.failed_below(failure))?,
        };
        let layers = std::iter::once(top).chain(below).collect();
        Ok(Disk::from_layers(layers, &self.reading.limits()).unpadded_but_for_last_unit())
    }

    /// The image that a raw disk is all of: it is the same disk, and tells where its data is.
    fn shown_whole(&self) -> Option<&Node> {
        let Child::Node(image) = &self.node.child else { return None };
        let is_all = self.node.driver.as_deref() == Some("raw")
            && self.node.backing == Below::AsNamed
            && self.node.strong_options().next().is_none();
        (is_all && !image.is_file()).then_some(&**image)
    }

    /// Opens the image alone.
    pub(super) fn top(&self, options: OpenDisk) -> Result<Layer, Failure> {
        let file = self.file(&options)?;
        let own = self.of_format(options.clone()).secrets(Arc::new(self.keys()?));
        let layer = self.with_parts(own, &options, &file)?.top_located(file.clone());
        let layer = layer.map_err(|error| self.failure_of_image(&file, error))?;
        self.check_encryption(&layer)?;
        self.reading.warnings.say(&layer);
        Ok(layer)
    }

    /// The same with the header or the data of the image in `file`, where that lies apart; they are
    /// opened as `options` say.
    pub(super) fn with_parts(
        &self,
        own: OpenDisk,
        options: &OpenDisk,
        file: &Located,
    ) -> Result<OpenDisk, Failure> {
        let mut own = own;
        if let Some(header) = &self.node.header {
            own = own.header_apart(file.location.clone(), self.of(header).file(options)?);
        }
        if let Some(data) = &self.node.data_file {
            own = own.data_file(file.location.clone(), self.of(data).file(options)?);
        }
        Ok(own)
    }

    /// Fails if the options say more of the image than it has.
    fn check_said(&self, layer: &Layer) -> Result<(), Failure> {
        let has_data_file =
            || layer.image.info().details.iter().any(|it| it.name == "data-file-raw");
        if self.node.data_file.is_some() && !has_data_file() {
            let why = "'data-file' can only be set for images with an external data file";
            return Err(self.refused(why));
        }
        self.check_encryption(layer)
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
    pub(super) fn file(&self, options: &OpenDisk) -> Result<Located, Failure> {
        let unclear = |error: NameError| match error {
            NameError::Unclear(why) => self.refused(&why),
            NameError::Storage(error) => self.failure(error.into()),
        };
        if let Some(null) = self.node.as_null().map_err(unclear)? {
            return Ok(null);
        }
        let located = match &self.node.child {
            Child::File(path) => self.open_file(path, options)?,
            // A raw disk is what it lies in, or the part that its options name.
            Child::Node(node) if node.is_file() || node.driver.as_deref() == Some("raw") => {
                self.of(node).file(options)?
            }
            Child::Node(node) => {
                let disk = self.of(node).disk(options.clone())?;
                let location = Location::Path(PathBuf::from(node.path()));
                Located { store: Arc::new(disk), location }
            }
        };
        self.node.window(located).map_err(unclear)
    }

    pub(super) fn open_file(&self, path: &OsStr, options: &OpenDisk) -> Result<Located, Failure> {
        if stream::is_meant(path) {
            let store = self.reading.naming.input()?;
            return Ok(Located { store, location: location(path) });
        }
        if path.is_empty() {
            return Err(self.refused("The 'file' block driver requires a file name"));
        }
        if file::has_no_bytes(Path::new(path)) {
            let store = null_store(0);
            return Ok(Located { store, location: location(path) });
        }
        if self.node.is_device() && file::is_no_device(Path::new(path)) {
            let driver = self.node.driver.as_deref().unwrap_or_default();
            return Err(self.refused(&format!(
                "'{driver}' driver requires '{}' to be either a character or block device",
                name::of(path)
            )));
        }
        let options = match self.node.flag("cache.direct") {
            true => options.clone().direct(true),
            false => options.clone(),
        };
        options.file(path).map_err(|error| self.failure(error))
    }

    /// Reads it as what the name says it is. A file without more is a raw disk.
    pub(super) fn of_format(&self, options: OpenDisk) -> OpenDisk {
        match self.node.driver.as_deref() {
            _ if self.node.is_file() => options.format("raw"),
            Some(driver) => options.format(driver),
            None => options,
        }
    }

    /// The secrets that the options of this node name, for its image alone, and those that images
    /// below may name.
    pub(super) fn keys(&self) -> Result<Keys, Failure> {
        // All that can be told of an encrypted DMG is inside.
        let is_sealed = self.node.driver.as_deref() == Some("dmg");
        let may_lack = self.reading.may_lack_secrets;
        if may_lack && !is_sealed {
            return Ok(Keys { may_lack, ..Keys::default() });
        }
        let location = location(self.node.path());
        let key = |(option, id): (&str, &OsStr)| {
            let secret = self.secret(id)?.clone();
            Ok(Key { option: option.to_owned(), location: Some(location.clone()), secret })
        };
        let given = self.node.secrets().map(key).collect::<Result<_, Failure>>()?;
        Ok(Keys { given, objects: self.objects.clone(), may_lack })
    }

    pub(super) fn secret(&self, id: &OsStr) -> Result<&anydisk::Secret, Failure> {
        self.objects.secret(id).map_err(|why| self.refused(&why))
    }

    pub(super) fn of(&self, node: &Node) -> Self {
        Self { node: node.clone(), ..*self }
    }

    pub(super) fn refused(&self, why: &str) -> Failure {
        naming::cannot_open(self.name, why)
    }

    pub(super) fn failure(&self, error: Error) -> Failure {
        self.reading.failure(self.name, error)
    }

    /// Why the image in `file` does not open: first of all, because it is another format.
    pub(super) fn failure_of_image(&self, file: &Located, error: Error) -> Failure {
        let found = match error.kind() {
            Error::Invalid(invalid) => (invalid.field.to_string(), invalid.found.to_string()),
            _ => Default::default(),
        };
        let failure = self.failure(error);
        // What lies apart from its header may be anything.
        let format = self.node.driver.as_deref().filter(|_| self.node.header.is_none());
        match format.and_then(|name| anydisk::formats().by_name(name).ok()) {
            Some(format) if Registry::new(&[format]).probe_store(&*file.store).is_err() => {
                let cause = failure.cause_of_open(self.name).text;
                let name = format.name();
                let is_older = name == "qcow2" && cause.ends_with("version 1 is not supported");
                let why = match is_older {
                    true => "Unsupported qcow2 version 1".into(),
                    false => not_in_format(name, self.node.path(), &found),
                };
                self.refused(&why).with_advice(&shortened(&cause))
            }
            _ => failure,
        }
    }

    /// Why a chain does not open: because of its top, or of what lies below.
    pub(super) fn failure_in_chain(
        &self,
        options: &OpenDisk,
        file: Located,
        error: Error,
    ) -> Failure {
        if options.top_located(file.clone()).is_err() {
            return self.failure_of_image(&file, error);
        }
        self.failed_below(self.failure(error))
    }

    /// What lies below does not open.
    pub(super) fn failed_below(&self, failure: Failure) -> Failure {
        let cause = failure.cause_of_open(self.name).text;
        let failure = self.refused(&format!("Could not open backing file: {cause}"));
        match cause.ends_with("No such file or directory") {
            true => failure.with_advice(
                "If it is elsewhere now, say where: anydisk rebase -u -b NAME -F FORMAT FILE",
            ),
            false => failure,
        }
    }
}

/// As much of a text as is of use: what a file has in place of a format may be anything.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// qemu-img's words for a file that is not in the format that it was said to be in.
fn not_in_format(format: &str, path: &OsStr, (field, found): &(String, String)) -> String {
    let number = || u32::from_str_radix(found.trim_start_matches("0x"), 16).ok();
    match (format, field.as_str()) {
        ("vdi", "signature") if number().is_some() => {
            let number = number().unwrap_or_default();
            format!("Image not in VDI format (bad signature {number:08x})")
        }
        ("qcow", "version") => format!(
            "qcow (v1) does not support qcow version {found}\nTry the 'qcow2' driver instead."
        ),
        _ => not_in(format, path),
    }
}

fn not_in(format: &str, path: &OsStr) -> String {
    match format {
        "vhdx" => format!("Could not open '{}': Invalid argument", name::of(path)),
        "qcow" => "Image not in qcow format".into(),
        "qed" => "Image not in QED format".into(),
        "parallels" => "Image not in Parallels format".into(),
        "vmdk" => "invalid VMDK image descriptor".into(),
        "vpc" => "invalid VPC image".into(),
        "dmg" => "Could not locate UDIF trailer in dmg file".into(),
        "luks" => "Volume is not in LUKS format".into(),
        _ => format!("Image is not in {format} format"),
    }
}

/// Why an image below is lost that the command line names.
fn lost_below(failure: Failure) -> Error {
    let (what, name) = ("image below", "of the command line".into());
    Error::Unusable { what, name, why: failure.text.into() }
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

/// Refuses formats that are not there, of an image or of what it lies in.
pub(super) fn check_drivers(path: &OsStr, node: &Node) -> Result<(), Failure> {
    if let Some(driver) = node.driver.as_deref().filter(|_| !node.is_file()) {
        check_format(path, driver)?;
    }
    match &node.child {
        Child::File(_) => Ok(()),
        Child::Node(child) => check_drivers(path, child),
    }
}
