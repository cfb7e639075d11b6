//! `anydisk rebase`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anydisk::convert::{self, Settings};
use anydisk::storage::name;
use anydisk::{Disk, Layer, Reference, Role};
use clap::Args;

use crate::args::{Cache, Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::{naming, open};

const EXAMPLES: &str = "\
Examples:
  anydisk rebase -b newbase.qcow2 -F qcow2 overlay.qcow2
  anydisk rebase -b '' overlay.qcow2          (into an image of its own)
  anydisk rebase -u -b moved.qcow2 -F qcow2 overlay.qcow2";

/// Puts an image over another one; what it shows stays the same.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rebase {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The new image below; empty for none
    #[arg(short, long, default_value = "", hide_default_value = true)]
    #[arg(required_unless_present = "unchecked")]
    backing: OsString,
    /// The format of the new image below
    #[arg(short = 'F', long)]
    backing_format: Option<String>,
    /// Only change the name, whatever the image shows then
    #[arg(short = 'u', long = "backing-unsafe", alias = "unsafe")]
    unchecked: bool,
    /// Compress what is copied
    #[arg(short, long)]
    compress: bool,
    /// How the host caches the image
    #[arg(short = 't', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// How the host caches the images below
    #[arg(short = 'T', long, alias = "backing-cache", value_enum, default_value = "writeback")]
    source_cache: Cache,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// The image
    file: OsString,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Rebase {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let mut reference = self.reference()?;
        if let Some(format) = &self.backing_format
            && anydisk::formats().by_name(format).is_err()
        {
            return Err(Failure::new(format!("Invalid format name: '{format}'"))
                .with_advice(&open::known_formats()));
        }
        let direct = self.cache.is_direct();
        let format = self.format.as_deref();
        // Only the images below may be shared.
        let reading = Reading { force_share: false, ..self.reading.clone() };
        if self.unchecked {
            let top = reading.top_to_write(&self.file, format, direct)?;
            if let Some(reference) = &mut reference {
                self.note_ids(reference, &top);
            }
            set_backing(&top, reference.as_ref())?;
            drop(top);
            return self.telling.tell(&self.reading, &self.file, format);
        }
        let progress = Progress::new(self.progress, self.quiet)?;
        let disk = reading.disk_to_write(&self.file, format, direct)?;
        let new =
            reference.as_mut().map(|reference| self.open_new(reference, &disk)).transpose()?;
        let mut settings = Settings::default();
        settings.compress = self.compress;
        convert::rebase(&disk, new.as_ref(), &settings, &progress)?;
        progress.finish();
        set_backing(&disk.layers()[0], reference.as_ref())?;
        drop((progress, new, disk));
        self.telling.tell(&self.reading, &self.file, format)
    }

    /// The new image below, as it will stand in the file.
    fn reference(&self) -> Result<Option<Reference>, Failure> {
        if self.backing.is_empty() {
            return Ok(None);
        }
        if self.backing_format.is_none() {
            let name = name::of(&self.backing);
            return Err(Failure::new(format!(
                "Could not change the backing file to '{name}': backing format must be specified"
            )));
        }
        let mut reference = Reference::new(Role::Backing, self.backing.as_bytes());
        reference.format = self.backing_format.clone();
        Ok(Some(reference))
    }

    /// Notes which image the new one is, if it is there: formats whose links keep such a number are
    /// told it. Who wants nothing checked may name a file that does not exist.
    fn note_ids(&self, reference: &mut Reference, top: &Layer) {
        let Ok(name) = naming::name_below(reference, &top.location) else { return };
        let below = self.reading.of_names_inside().top(&name, reference.format.as_deref());
        if let Ok(below) = below {
            let info = below.image.info();
            (reference.id, reference.content_id) = (info.id, info.content_id);
        }
    }

    /// Opens the new image below, and notes which one it is.
    fn open_new(&self, reference: &mut Reference, disk: &Disk) -> Result<Disk, Failure> {
        let told = |failure: Failure, name: &OsStr| {
            let why = failure.cause_of_open(name).text;
            Failure::new(format!("Could not open new backing file '{}': {why}", name::of(name)))
        };
        let name = naming::name_below(reference, &disk.layers()[0].location)
            .map_err(|failure| told(failure, &self.backing))?;
        let (below, direct) = (self.reading.of_names_inside(), self.source_cache.is_direct());
        let new = below.disk(&name, reference.format.as_deref(), direct);
        let new = new.map_err(|failure| told(failure, &name))?;
        let info = new.top().info();
        (reference.id, reference.content_id) = (info.id, info.content_id);
        Ok(new)
    }
}

fn set_backing(top: &Layer, reference: Option<&Reference>) -> Result<(), Failure> {
    match top.image.backing_link() {
        Some(link) => Ok(link.set_backing(reference)?),
        None => {
            let format = top.image.info().format;
            let name = reference.map(Reference::display_name).unwrap_or_default();
            let failure = Failure::new(format!(
                "Could not change the backing file to '{name}': Operation not supported"
            ));
            Err(failure.with_advice(&format!("Images of the format {format} have none.")))
        }
    }
}
