//! `anydisk commit`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anydisk::convert::{self, Settings};
use anydisk::node::Below;
use anydisk::storage::name;
use anydisk::{Disk, Layer, Reference};
use clap::Args;

use crate::args::{Cache, Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::{naming, options, output};

const EXAMPLES: &str = "\
Examples:
  anydisk commit overlay.qcow2
  anydisk commit -d overlay.qcow2
  anydisk commit -b base.qcow2 overlay.qcow2";

/// Writes what an image holds into the one below it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Commit {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// How the host caches the files
    #[arg(short = 't', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// The image of the chain to write into; the one below if it is not given. Those between are
    /// not valid afterwards
    #[arg(short, long)]
    base: Option<OsString>,
    /// Do not empty the image afterwards
    #[arg(short, long)]
    drop: bool,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Bytes that are written in a second at most
    #[arg(short, long)]
    rate: Option<String>,
    /// The image
    file: OsString,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Commit {
    pub(crate) fn run(self) -> Outcome {
        let mut settings = Settings::default();
        settings.rate = options::rate(self.rate.as_deref())?;
        if self.reading.node(&self.file, self.format.as_deref())?.backing != Below::AsNamed {
            let failure = Failure::new("Cannot commit into another image than the file names");
            return Err(
                failure.with_advice("Leave out backing, or put the image over it: rebase -u")
            );
        }
        let direct = self.cache.is_direct();
        let top = self.reading.top_to_write(&self.file, self.format.as_deref(), direct)?;
        if top.backing.is_none() {
            return Err(Failure::new("Image does not have a backing file"));
        }
        let (above, base) = self.chain(top)?;
        let progress = Progress::new(self.progress, self.quiet)?;
        convert::commit(&above, &base, &settings, &progress)?;
        progress.finish();
        drop(progress);
        // With images between, it would not be valid over any of them.
        if !self.drop && self.base.is_none() {
            let layers = above.into_iter().chain(base.layers().iter().cloned()).collect();
            convert::empty(&Disk::from_layers(layers, &self.reading.limits()))?;
        }
        if !self.quiet && self.telling.is_text() {
            output::print("Image committed.\n")?;
        }
        self.telling.tell(&self.reading, &self.file, self.format.as_deref())
    }

    /// The images above the base, and the base, open for writing.
    fn chain(&self, top: Layer) -> Result<(Vec<Layer>, Disk), Failure> {
        let below = self.reading.of_names_inside();
        let mut above = vec![top];
        loop {
            let lowest = above.last().expect("the top is there");
            let Some(reference) = lowest.backing.clone() else {
                let (base, file) = (self.base.clone().unwrap_or_default(), &self.file);
                let (base, file) = (name::of(&base), name::of(file));
                return Err(Failure::new(format!(
                    "Did not find '{base}' in the backing chain of '{file}'"
                )));
            };
            if self.reading.untrusted {
                let why = "files named inside an image are not followed here";
                return Err(Failure::from(reference.denied(why)).about(&self.file));
            }
            let path = match reference.nameless() {
                None => {
                    let name = naming::name_below(&reference, &lowest.location);
                    PathBuf::from(name.map_err(|failure| {
                        self.below(Path::new(OsStr::from_bytes(&reference.name)), failure)
                    })?)
                }
                Some(_) => {
                    let found = self.reading.path_below(lowest);
                    found.map_err(|failure| failure.about(&self.file))?
                }
            };
            if above.len() > self.reading.limits().chain {
                return Err(Failure::new("The chain of backing files is too long"));
            }
            let format = reference.format.as_deref();
            let file = PathBuf::from(below.node(path.as_os_str(), format)?.path());
            if self.base.as_deref().is_none_or(|base| is_meant(base, &reference, &file)) {
                let direct = self.cache.is_direct();
                let base = below.disk_to_write(path.as_os_str(), format, direct);
                return Ok((above, base.map_err(|failure| self.below(&path, failure))?));
            }
            let layer = below.top(path.as_os_str(), format);
            above.push(layer.map_err(|failure| self.below(&path, failure))?);
        }
    }
}

impl Commit {
    /// Why an image below does not open.
    fn below(&self, path: &Path, failure: Failure) -> Failure {
        let (file, why) = (name::of(&self.file), failure.cause_of_open(path.as_os_str()).text);
        Failure::new(format!("Could not open '{file}': Could not open backing file: {why}"))
    }
}

/// Whether the base that was named is this one: by the name in the image, or as a file.
fn is_meant(base: &OsStr, reference: &Reference, path: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let base = PathBuf::from(base);
    reference.name == base.as_os_str().as_bytes()
        || base == path
        || id(&base).is_some_and(|one| Some(one) == id(path))
}
