//! `anydisk commit`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use anydisk::convert::{self, Error, Settings};
use anydisk::node::{Below, Node};
use anydisk::storage::{LockMode, OpenOptions, name};
use anydisk::{Disk, FilesBeside, Layer, Location, Reference};
use clap::Args;

use crate::args::{Cache, Reading, Telling};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::{options, output};

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
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let mut settings = Settings::default();
        settings.rate = options::rate(self.rate.as_deref())?;
        let node = self.reading.node(&self.file, self.format.as_deref())?;
        let direct = self.cache.is_direct();
        let progress = Progress::new(self.progress, self.quiet)?;
        let top = self.reading.top_to_write(&self.file, self.format.as_deref(), direct)?;
        if top.backing.is_none() || node.backing == Below::Nothing {
            if self.base.is_some() {
                return Err(self.no_such_base());
            }
            return Err(Failure::new("Image does not have a backing file"));
        }
        let (above, base) = self.chain(top, node)?;
        // With images between, it would not be valid over any of them.
        let empties = !self.drop && self.base.is_none();
        if empties {
            self.check_emptying(&above)?;
        }
        match &base.layers()[0].location {
            // A split base gets more files when it grows.
            Location::Path(path) => {
                let beside = FilesBeside::new(path, OpenOptions::new().lock(LockMode::Writer));
                convert::commit_with(&above, &base, &beside, &settings, &progress)?;
            }
            _ => {
                convert::commit(&above, &base, &settings, &progress)?;
            }
        }
        progress.finish();
        drop(progress);
        if empties {
            let layers = above.into_iter().chain(base.layers().iter().cloned()).collect();
            match convert::empty(&Disk::from_layers(layers, &self.reading.limits())) {
                // It holds what the image below holds now, which is no harm.
                Err(Error::Target(anydisk::Error::Unsupported { .. })) => {}
                emptied => emptied?,
            }
        }
        if !self.quiet && self.telling.is_text() {
            output::print("Image committed.\n")?;
        }
        self.telling.tell(&self.reading, &self.file, self.format.as_deref())
    }

    /// Before anything is written.
    fn check_emptying(&self, above: &[Layer]) -> Result<(), Failure> {
        let top = above.first().expect("the top is there");
        convert::check_emptying(&*top.image).map_err(|error| {
            let advice = "With -d it is committed and stays as it is: commit -d";
            Failure::from(error).about(&self.file).with_advice(advice)
        })
    }

    /// The images above the base, and the base, open for writing; `node` names the top.
    fn chain(&self, top: Layer, mut node: Node) -> Result<(Vec<Layer>, Disk), Failure> {
        let mut above = vec![top];
        loop {
            let lowest = above.last().expect("the top is there");
            if above.len() > self.reading.limits().chain {
                return Err(Failure::new("The chain of backing files is too long"));
            }
            let reference = lowest.backing.as_ref().ok_or_else(|| self.no_such_base())?;
            let below = self.below(&node, lowest)?;
            let file = below.path();
            if self.base.as_deref().is_none_or(|base| is_meant(base, reference, file)) {
                let direct = self.cache.is_direct();
                let base = self.reading.disk_to_write_of(file, &below, direct);
                let base = base.map_err(|failure| self.below_failed(file, failure))?;
                if above.len() > 1 {
                    self.make_writable(&mut above, &node, &base)?;
                }
                return Ok((above, base));
            }
            let layer = self.reading.layer_of(file, &below);
            above.push(layer.map_err(|failure| self.below_failed(file, failure))?);
            node = below;
        }
    }

    /// Opens the lowest image, which `node` names, anew for writing, if it knows the content of the base by a
    /// number: that is renewed with it.
    fn make_writable(
        &self,
        above: &mut Vec<Layer>,
        node: &Node,
        base: &Disk,
    ) -> Result<(), Failure> {
        let is_told = |lowest: &Layer| convert::keeps_number(&*lowest.image, base.top());
        let Some(lowest) = above.pop_if(|lowest| is_told(&*lowest)) else { return Ok(()) };
        // Its lock for reading would be in the way.
        drop(lowest);
        let file = node.path();
        let lowest = self.reading.layer_to_write_of(file, node, self.cache.is_direct());
        above.push(lowest.map_err(|failure| self.below_failed(file, failure))?);
        Ok(())
    }

    /// What lies below `layer`, which `node` names. Options may say more about it, but it must be the
    /// image that the file names.
    fn below(&self, node: &Node, layer: &Layer) -> Result<Node, Failure> {
        let named = |backing| {
            let mut node = node.clone();
            node.backing = backing;
            let below = self.reading.node_below_for(&node, layer, true);
            below.map_err(|failure| failure.about(&self.file))
        };
        let other = || {
            let failure = Failure::new("Cannot commit into another image than the file names");
            failure.with_advice("Leave out backing, or put the image over it: rebase -u")
        };
        let below = named(node.backing.clone())?.ok_or_else(other)?;
        match &node.backing {
            Below::Node(_) => {
                let said = named(Below::AsNamed)?.ok_or_else(other)?;
                if is_same(said.path(), below.path()) { Ok(below) } else { Err(other()) }
            }
            _ => Ok(below),
        }
    }

    fn no_such_base(&self) -> Failure {
        let base = self.base.as_deref().unwrap_or_default();
        let (base, file) = (name::of(base), name::of(&self.file));
        Failure::new(format!("Did not find '{base}' in the backing chain of '{file}'"))
    }

    /// Why an image below does not open.
    fn below_failed(&self, path: &OsStr, failure: Failure) -> Failure {
        let (file, why) = (name::of(&self.file), failure.cause_of_open(path).text);
        Failure::new(format!("Could not open '{file}': Could not open backing file: {why}"))
    }
}

/// Whether the base that was named is this one: by the name in the image, or as a file.
fn is_meant(base: &OsStr, reference: &Reference, path: &OsStr) -> bool {
    reference.name == base.as_bytes() || is_same(base, path)
}

/// Whether two paths are those of one file.
fn is_same(one: &OsStr, other: &OsStr) -> bool {
    let id = |path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    one == other || id(one).is_some_and(|one| Some(one) == id(other))
}
