//! `anydisk create`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anydisk::convert::{NewImage, Settings, Sources, Unwatched, copy_to_file};
use anydisk::node::{Node, is_null};
use anydisk::storage::name;
use anydisk::{Disk, Error, Format, Layer, Location, Reference, Role, path_like_qemu};
use clap::Args;

use crate::args::{Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::options::{self, Given};
use crate::{naming, open, option_help, output};

const EXAMPLES: &str = "\
Examples:
  anydisk create disk.raw 10G
  anydisk create -f qcow2 -o cluster_size=128k,lazy_refcounts=on disk.qcow2 10G
  anydisk create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
  anydisk create -f qcow2 -o help";

/// Makes an image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    /// The format of the new image
    #[arg(short, long, default_value = "raw")]
    format: String,
    /// The image below: the new one shows it where it has nothing itself
    #[arg(short, long)]
    backing: Option<OsString>,
    /// The format of the image below
    #[arg(short = 'F', long)]
    backing_format: Option<String>,
    /// Do not look at the image below
    #[arg(short = 'u', long = "backing-unsafe", alias = "unsafe")]
    unchecked: bool,
    /// Options of the format, name=value,...; `help` lists them
    #[arg(short = 'o', long)]
    options: Vec<OsString>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// The file that is made
    #[arg(required_unless_present = "options")]
    file: Option<OsString>,
    /// Virtual size; that of the image below if it is not given
    size: Option<String>,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Create {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let registry = anydisk::formats();
        let format = registry.by_name(&self.format).map_err(|_| match &self.file {
            Some(file) => unknown(&self.format).in_file(file),
            None => unknown(&self.format),
        })?;
        if options::asks_for_help(&self.options)? {
            output::print(&option_help::creation(format, self.file.is_some()))?;
            return Ok(0);
        }
        let file = self.file.as_deref().ok_or_else(|| {
            Failure::new("Expecting image file name").with_advice(&output::where_help_is())
        })?;
        self.reading.naming.objects()?;
        let size = self.size.as_deref().map(options::size).transpose()?;
        self.create(format, file, size).map_err(|failure| failure.in_file(file))?;
        self.telling.tell(&self.reading, file, Some(format.name()))
    }

    fn create(&self, format: &dyn Format, file: &OsStr, size: Option<u64>) -> Result<(), Failure> {
        if format.create_options().is_empty() {
            let feature = "creating an image".into();
            return Err(Error::Unsupported { format: format.name(), feature }.into());
        }
        let path = naming::new_file(file)?;
        let mut given = Given::parse(&self.options, format)?;
        given.backing_file = self.backing.clone().or(given.backing_file);
        given.backing_format = self.backing_format.clone().or(given.backing_format);
        let mut backing =
            backing(&given, format).map_err(|failure| self.with_detected(failure, file, &given))?;
        if let Some(reference) = &backing {
            refuse_same_file(reference, Path::new(&path))?;
        }
        // Open until the new image is there, of which no file takes the place of one of these.
        let below = match &mut backing {
            Some(reference) if !self.unchecked => {
                // Its size is wanted, which is no secret.
                let reading = self.reading.of_locked();
                Some(look_below(reference, Path::new(file), &reading)?)
            }
            _ => None,
        };
        let size = match (size, given.size) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("The image size must be specified only once"));
            }
            // A header that lies apart is made without what it is for.
            _ if given.options.flag("detached-header") => size.or(given.size).or(Some(0)),
            (size, option) => size.or(option).or(below.as_ref().map(Disk::size)),
        };
        let size = size.ok_or_else(|| {
            let failure = Failure::new("Image creation needs a size parameter");
            failure.with_advice("It stands behind the name: anydisk create -f FORMAT FILE 10G")
        })?;
        if !self.quiet && self.telling.is_text() {
            let name = name::of(file);
            output::print(&options::formatting(&name, format, &given, size))?;
        }
        if backing.is_none() && given.backing_format.is_some() {
            return Err(Failure::new("Backing format cannot be used without backing file"));
        }
        let keys = given.keys(&self.reading.naming)?;
        // The options may say a size too; that it is the same was made sure of.
        let image = NewImage { backing: backing.as_ref(), ..given.image(format, size, &keys) };
        // Nothing is copied, so that formats that are written in one pass are made as well.
        let nothing = Sources::concatenated([]);
        copy_to_file(&nothing, Path::new(&path), &image, &Settings::default(), &Unwatched)?;
        drop(below);
        if backing.is_some() && !self.unchecked && !self.quiet {
            self.warn_if_lost(Path::new(&path), format.name());
        }
        Ok(())
    }

    /// Says that the new image does not find the one below: where that is named by a number alone, it is
    /// sought in the folder.
    fn warn_if_lost(&self, path: &Path, format: &str) {
        let reading = self.reading.of_locked().of_names_inside();
        let Ok(layer) = reading.top(path.as_os_str(), Some(format)) else { return };
        let is_nameless = layer.backing.as_ref().is_some_and(|below| below.nameless().is_some());
        if is_nameless && reading.found_below(&layer).is_none() {
            output::warn(&format!(
                "{}: names the image below by its UUID alone, and finds it in its own folder only: it is \
                 not there",
                layer.location
            ));
        }
    }
}

impl Create {
    /// Tells which format the image below has, where that was not said.
    fn with_detected(&self, failure: Failure, file: &OsStr, given: &Given) -> Failure {
        let (Some(name), None) = (&given.backing_file, &given.backing_format) else {
            return failure;
        };
        let reference = Reference::new(Role::Backing, name.as_bytes());
        let name = naming::name_below(&reference, &Location::Path(file.into()));
        match name.and_then(|name| self.reading.of_names_inside().top(&name, None)) {
            Ok(layer) => {
                let format = layer.image.info().format;
                failure.after_first_line(&format!("Detected format of {format}."))
            }
            Err(_) => failure,
        }
    }
}

/// The image below, as it will stand in the new one.
pub(crate) fn backing(given: &Given, format: &dyn Format) -> Result<Option<Reference>, Failure> {
    let takes = |option| format.create_options().iter().any(|spec| spec.name == option);
    let refused =
        |what| Failure::new(format!("{what} not supported for file format '{}'", format.name()));
    if given.backing_file.is_some() && !takes("backing_file") {
        return Err(refused("Backing file"));
    }
    if given.backing_format.is_some() && !takes("backing_fmt") {
        return Err(refused("Backing file format"));
    }
    let Some(name) = &given.backing_file else { return Ok(None) };
    if name.is_empty() {
        return Err(Failure::new("Expected backing file name, got empty string"));
    }
    if given.backing_format.is_none() {
        return Err(Failure::new("Backing file specified without backing format").with_advice(
            "Name it with -F; whoever writes to the file could choose it otherwise.",
        ));
    }
    let mut reference = Reference::new(Role::Backing, name.as_bytes());
    reference.format = given.backing_format.clone();
    Ok(Some(reference))
}

/// Fails if the image below is the file that the new one would replace.
pub(crate) fn refuse_same_file(reference: &Reference, file: &Path) -> Result<(), Failure> {
    let from = Location::Path(file.to_owned());
    let path = match Node::in_image(&reference.name, None) {
        Ok(Some(node)) => node.path().to_owned(),
        _ => path_like_qemu(reference, &from).into(),
    };
    match is_same_file(Path::new(&path), file) {
        true => Err(Failure::new(
            "Error: Trying to create an image with the same filename as the backing file",
        )),
        false => Ok(()),
    }
}

/// Whether two paths are those of one file, that is there or is to be made.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    one == other || id(one).is_some_and(|one| Some(one) == id(other))
}

/// Opens the disk that a new image at `file` will have below it, and notes the state of its content
/// in the reference.
pub(crate) fn look_below(
    reference: &mut Reference,
    file: &Path,
    reading: &Reading,
) -> Result<Disk, Failure> {
    let from = Location::Path(file.to_owned());
    let told = |failure: Failure, name: &OsStr| {
        failure.cause_of_open(name).with_advice("Could not open backing image.")
    };
    let name = naming::name_below(reference, &from)
        .map_err(|failure| told(failure, OsStr::from_bytes(&reference.name)))?;
    let disk = reading.of_names_inside().disk(&name, reference.format.as_deref(), false);
    let disk = disk.map_err(|failure| told(failure, &name))?;
    let is_replaced = |layer: &Layer| match &layer.location {
        Location::Path(path) => is_same_file(path, file),
        _ => false,
    };
    if disk.layers().iter().any(is_replaced) {
        return Err(Failure::new(
            "Error: Trying to create an image over a file in the chain of its backing file",
        ));
    }
    let below = disk.top().info();
    (reference.id, reference.content_id) = (below.id, below.content_id);
    Ok(disk)
}

/// What is no format, or none that images are made in.
pub(crate) fn unknown(format: &str) -> Failure {
    if is_null(format) {
        return Failure::new(format!("Format driver '{format}' does not support image creation"));
    }
    Failure::new(format!("Unknown file format '{format}'")).with_advice(&open::known_formats())
}
