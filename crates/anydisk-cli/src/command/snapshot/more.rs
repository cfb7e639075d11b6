//! What qemu-img's `snapshot` cannot: a snapshot as an image of its own, and what has changed.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anydisk::Disk;
use anydisk::convert::{Settings, Sources, copy_to_file, differences};
use clap::Args;

use super::{Snapshot, disk_at};
use crate::args::{Form, any_name};
use crate::command::{create, info};
use crate::failure::Outcome;
use crate::options::Given;
use crate::output::ranges::Ranges;
use crate::progress::Progress;
use crate::{naming, output};

/// What is done with snapshots besides.
#[derive(Args, Debug)]
pub(super) struct More {
    /// Copy this snapshot into a new image
    #[arg(long, value_name = "SNAPSHOT", value_parser = any_name())]
    #[arg(conflicts_with_all = ["list", "create", "apply", "delete"])]
    export: Option<String>,
    /// With --export: the format of the new image
    #[arg(short = 'O', long, requires = "export", default_value = "raw")]
    target_format: String,
    /// With --export: options of that format, name=value,...
    #[arg(short = 'o', long, requires = "export")]
    options: Vec<OsString>,
    /// Show which parts of the disk are not what they were in this snapshot
    #[arg(long, value_name = "SNAPSHOT", value_parser = any_name())]
    #[arg(conflicts_with_all = ["list", "create", "apply", "delete", "export"])]
    diff: Option<String>,
    /// With --diff: what they are in this one, instead of now
    #[arg(long, value_name = "SNAPSHOT", value_parser = any_name(), requires = "diff")]
    to: Option<String>,
}

impl More {
    /// Whether there is anything to do here.
    pub(super) fn is_asked(&self) -> bool {
        self.export.is_some() || self.diff.is_some()
    }

    /// What is read, and the new image if there is to be one.
    pub(super) fn split<'f>(
        &self,
        files: &'f [OsString],
    ) -> (&'f [OsString], Option<&'f OsString>) {
        match files.split_last() {
            Some((target, sources)) if self.export.is_some() => (sources, Some(target)),
            _ => (files, None),
        }
    }

    pub(super) fn run(&self, disk: Disk, target: Option<&OsString>, how: &Snapshot) -> Outcome {
        match (&self.export, target, &self.diff) {
            (Some(snapshot), Some(target), _) => self.export(disk, snapshot, target, how),
            (_, _, Some(snapshot)) => self.diff(disk, snapshot, how),
            _ => Ok(0),
        }
    }

    fn export(&self, disk: Disk, snapshot: &str, target: &OsStr, how: &Snapshot) -> Outcome {
        let registry = anydisk::formats();
        let format = registry
            .by_name(&self.target_format)
            .map_err(|_| create::unknown(&self.target_format))?;
        let given = Given::parse(&self.options, format)?;
        given.refuse_backing()?;
        let keys = given.keys(&how.reading.naming)?;
        let disk = disk_at(disk, Some(snapshot))?;
        let image = given.image(format, disk.size(), &keys);
        let progress = Progress::new(false, how.quiet)?;
        let (sources, target) = (Sources::one(&disk), naming::new_file(target)?);
        copy_to_file(&sources, Path::new(&target), &image, &Settings::default(), &progress)?;
        drop((progress, disk));
        match how.output {
            Form::Human => {}
            Form::Json => {
                output::print(&info::json(&how.reading.of_files(), &target, Some(format.name()))?)?;
            }
        }
        Ok(0)
    }

    fn diff(&self, disk: Disk, snapshot: &str, how: &Snapshot) -> Outcome {
        let now = Disk::from_layers(disk.layers().to_vec(), &how.reading.limits());
        let now = now.unpadded_but_for_last_unit();
        let (then, now) = (disk_at(disk, Some(snapshot))?, disk_at(now, self.to.as_deref())?);
        let progress = Progress::new(false, how.quiet)?;
        let mut ranges = Ranges::begin(how.output)?;
        differences(&then, &now, &mut |range| ranges.row(range), &progress)?;
        ranges.end("differ")?;
        Ok(0)
    }
}
