//! `anydisk snapshot`.

mod more;

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use anydisk::{Disk, Error, Feature, Image, NewSnapshot, SnapshotRef, Snapshots};
use clap::{ArgAction, Args};

use crate::args::{Form, Part, Reading, any_name};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::{json, snapshots};

const EXAMPLES: &str = "\
Examples:
  anydisk snapshot -c before-upgrade disk.qcow2
  anydisk snapshot -l disk.qcow2
  anydisk snapshot -a before-upgrade disk.qcow2
  anydisk snapshot --rename before-upgrade spring disk.qcow2
  anydisk snapshot --export before-upgrade -O qcow2 disk.qcow2 old.qcow2
  anydisk snapshot --diff before-upgrade disk.qcow2               (to the disk as it is now)
  anydisk snapshot --diff before-upgrade --to after --output=json disk.qcow2";

/// Lists, makes, applies, renames and deletes the snapshots inside an image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Snapshot {
    /// List the snapshots; also if nothing else is asked for
    #[arg(short, long, action = ArgAction::Count)]
    list: u8,
    /// Keep the present state of the disk under this name
    #[arg(short, long, value_name = "NAME", value_parser = any_name())]
    create: Vec<String>,
    /// Make the disk what it was in this snapshot; what was written since then is lost
    #[arg(short, long, value_name = "SNAPSHOT", value_parser = any_name())]
    apply: Vec<String>,
    /// Forget this snapshot
    #[arg(short, long, value_name = "SNAPSHOT", value_parser = any_name())]
    delete: Vec<String>,
    /// Give this snapshot another name
    #[arg(long, num_args = 2, value_names = ["SNAPSHOT", "NAME"], value_parser = any_name())]
    #[arg(conflicts_with_all = ["list", "create", "apply", "delete", "export", "diff"])]
    rename: Option<Vec<String>>,
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// What to print, of a list or differences; JSON also lists the snapshots that a change leaves
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// The image, or with --member the disks of one machine; with --export the new image is last
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    more: more::More,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Snapshot {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        match (&self.create[..], &self.apply[..], &self.delete[..]) {
            _ if self.list > 1 => return Err(mixed()),
            ([], [], []) if self.rename.is_some() => self.rename(),
            ([], [], []) if self.more.is_asked() => {
                let (files, target) = self.more.split(&self.files);
                let disk = self.disk(files)?;
                return self.more.run(disk, target, &self);
            }
            ([], [], []) => return self.list(),
            _ if self.list > 0 => return Err(mixed()),
            _ if self.part.member.is_some() => {
                return Err(Failure::new("What lies in the members of a disk is only read"));
            }
            ([name], [], []) => self.change(create, "create", name),
            ([], [name], []) => self.change(apply, "apply", name),
            ([], [], [name]) => self.change(delete, "delete", name),
            _ => return Err(mixed()),
        }?;
        match self.output {
            Form::Human => Ok(0),
            // What there is afterwards.
            Form::Json => self.list(),
        }
    }

    fn rename(&self) -> Result<(), Failure> {
        let Some([snapshot, name]) = self.rename.as_deref() else { return Ok(()) };
        let rename =
            |snapshots: &dyn Snapshots, snapshot: &str| snapshots.rename(&which(snapshot), name);
        self.change(rename, "rename", snapshot)
    }

    fn disk(&self, files: &[OsString]) -> Result<Disk, Failure> {
        self.reading.part(&self.part, files, self.format.as_deref(), false)
    }

    /// The image that is listed or changed.
    fn file(&self) -> Result<&OsString, Failure> {
        match &self.files[..] {
            [file] => Ok(file),
            _ => {
                let failure = Failure::new("Expecting one image file name");
                Err(failure.with_advice(&output::where_help_is()))
            }
        }
    }

    fn list(&self) -> Outcome {
        let list = match self.part.member {
            Some(_) => listed(self.disk(&self.files)?.top())?,
            None => listed(&*self.reading.top(self.file()?, self.format.as_deref())?.image)?,
        };
        let text = match self.output {
            Form::Human => snapshots::table(&list),
            Form::Json => json::document(&snapshots::list(&list)),
        };
        output::print(&text)?;
        Ok(0)
    }

    fn change(
        &self,
        change: impl Fn(&dyn Snapshots, &str) -> Result<(), Error>,
        verb: &str,
        name: &str,
    ) -> Result<(), Failure> {
        if self.part.member.is_some() {
            return Err(Failure::new("What lies in the members of a disk is only read"));
        }
        let disk: Disk = self.reading.disk_to_write(self.file()?, self.format.as_deref(), false)?;
        let refused =
            |why: &str| Failure::new(format!("Could not {verb} snapshot '{name}': {why}"));
        let Some(snapshots) = disk.top().snapshots() else {
            let failure = refused(match verb {
                "apply" => "Block driver does not support snapshots",
                "delete" => "snapshot not found",
                _ => "Operation not supported",
            });
            return Err(failure.with_advice(
                "Images of this format keep none. An image over it keeps what changes: anydisk create \
                 -f qcow2 -b FILE -F FORMAT NEW",
            ));
        };
        match change(snapshots, name) {
            Ok(()) => Ok(()),
            Err(Error::NotFound { .. }) if verb == "apply" => {
                Err(refused("Failed to load snapshot: No such file or directory"))
            }
            Err(Error::NotFound { .. }) => {
                let failure = refused("snapshot not found");
                let list = snapshots.list()?;
                Err(match list.into_iter().find(|one| one.id == name) {
                    Some(one) => failure.with_advice(&format!(
                        "It is the ID of one. Here only names count, and its name is '{}'.",
                        one.name
                    )),
                    None => failure,
                })
            }
            Err(error) => Err(refused(&Failure::from(error).text)),
        }
    }
}

fn create(snapshots: &dyn Snapshots, name: &str) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = (now.as_secs(), now.subsec_nanos());
    snapshots.create(&NewSnapshot { name: name.to_owned(), date }).map(drop)
}

fn apply(snapshots: &dyn Snapshots, name: &str) -> Result<(), Error> {
    snapshots.apply(&which(name))
}

/// As in qemu-img only a name counts here: who deletes what may be gone already shall not meet the
/// ID of another one.
fn delete(snapshots: &dyn Snapshots, name: &str) -> Result<(), Error> {
    snapshots.delete(&SnapshotRef::Name(name.to_owned()))
}

fn which(name: &str) -> SnapshotRef {
    SnapshotRef::IdOrName(name.to_owned())
}

/// The snapshots of an image; none if its format has no such thing.
pub(crate) fn listed(image: &dyn Image) -> Result<Vec<anydisk::SnapshotInfo>, Failure> {
    match image.snapshots() {
        Some(snapshots) => Ok(snapshots.list()?),
        None => Ok(Vec::new()),
    }
}

/// What `-l` of a command that reads one snapshot names: an ID or a name, or
/// `snapshot.id=...,snapshot.name=...`.
pub(crate) fn named(text: &str) -> Result<SnapshotRef, Failure> {
    if !text.starts_with("snapshot.") {
        return Ok(which(text));
    }
    let (mut id, mut name) = (None, None);
    for item in text.split(',') {
        match item.split_once('=').unwrap_or((item, "")) {
            ("snapshot.id", value) => id = Some(value.to_owned()),
            ("snapshot.name", value) => name = Some(value.to_owned()),
            (other, _) => {
                output::error(&format!("Invalid parameter '{other}'"));
                return Err(Failure::new(format!("Failed in parsing snapshot param '{text}'")));
            }
        }
    }
    Ok(match (id, name) {
        (Some(id), Some(name)) => SnapshotRef::IdAndName { id, name },
        (Some(id), None) => SnapshotRef::Id(id),
        (None, name) => SnapshotRef::Name(name.unwrap_or_default()),
    })
}

/// A disk as it was at a snapshot.
pub(crate) fn disk_at(disk: Disk, snapshot: Option<&str>) -> Result<Disk, Failure> {
    let Some(text) = snapshot else { return Ok(disk) };
    disk.at_snapshot(&named(text)?).map_err(|error| match error {
        Error::NotFound { .. } => Failure::new("Failed to load snapshot: Can't find snapshot")
            .with_advice("What there is, tells: anydisk snapshot -l FILE"),
        Error::Unsupported { format, feature: Feature::Snapshots } => Failure::new(format!(
            "Failed to load snapshot: Block format '{format}' used by device '' does not \
                 support temporarily loading internal snapshots"
        )),
        other => Failure::new(format!("Failed to load snapshot: {}", Failure::from(other).text)),
    })
}

fn mixed() -> Failure {
    Failure::new("Cannot mix '-l', '-a', '-c', '-d'").with_advice(&output::where_help_is())
}
