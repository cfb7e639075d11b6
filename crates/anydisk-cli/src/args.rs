//! The command line, and the options that several commands share.

use std::ffi::OsStr;
use std::path::PathBuf;

use anydisk::storage::name;
use clap::builder::{FalseyValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::{
    amend, bench, bitmap, check, commit, compact, compare, completions, convert, create, dd, info,
    inspect, man, map, measure, members, rebase, resize, salvage, serve, snapshot,
};
use crate::failure::{Failure, Outcome};
use crate::naming::Naming;
use crate::open::Warnings;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  anydisk info disk.qcow2
  anydisk convert -p -O qcow2 -c disk.raw disk.qcow2
  anydisk create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
  anydisk map --picture disk.qcow2
  anydisk inspect upload.img               (a stranger's file: is it to be taken?)

Sizes are bytes, or have a suffix k, M, G, T, P or E (powers of 1024).";

/// Virtual disk images: create, convert, inspect, compare.
#[derive(Debug, Parser)]
#[command(name = "anydisk", version = version(), after_help = after_help())]
#[command(disable_help_subcommand = true, infer_long_args = true)]
// As with getopt: of an option that is given twice the last one counts.
#[command(args_override_self = true)]
pub(crate) struct CommandLine {
    /// Taken for qemu-img's sake: there are no such events to trace
    #[arg(short = 'T', long, value_name = "PATTERN", hide = true)]
    trace: Vec<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new, empty image
    Create(create::Create),
    /// Copy disks into a new image of any format
    Convert(convert::Convert),
    /// Read or write a disk and tell how long it takes
    Bench(bench::Bench),
    /// Copy a part of a disk into a new image
    Dd(dd::Dd),
    /// Keep account of what is written: add, remove and change dirty bitmaps
    Bitmap(bitmap::Bitmap),
    /// Show what an image is
    Info(info::Info),
    /// Tell whether to take a stranger's image: what it is, needs, costs, and could be taken for
    Inspect(inspect::Inspect),
    /// Show which parts of a disk hold data, and where
    Map(map::Map),
    /// Change options of an image
    Amend(amend::Amend),
    /// Tell whether an image is in order, and repair it
    Check(check::Check),
    /// Make the file of an image as short as what it holds
    Compact(compact::Compact),
    /// Copy what can be read of a damaged image, and tell what is lost
    Salvage(salvage::Salvage),
    /// Offer a disk over NBD: to mount it, to copy it, to run a machine from it
    Serve(serve::Serve),
    /// Tell whether two disks hold the same
    Compare(compare::Compare),
    /// Tell how large an image would become
    Measure(measure::Measure),
    /// Change the virtual size of an image
    Resize(resize::Resize),
    /// List, make, apply and delete the snapshots inside an image
    Snapshot(snapshot::Snapshot),
    /// Write what an image holds into the one below it
    Commit(commit::Commit),
    /// Put an image over another one
    Rebase(rebase::Rebase),
    /// List what lies in disks: packages, partitions, volume groups
    Members(members::Members),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Write the manual pages into a folder
    Man(man::Man),
}

/// What `--version` says behind the program's name. Under qemu-img's name it is that of the
/// qemu-img whose options and output these are, which scripts look for.
fn version() -> String {
    let own = env!("CARGO_PKG_VERSION");
    match output::program().as_str() {
        "qemu-img" => format!("version 10.0.0 (anydisk {own})"),
        _ => own.to_owned(),
    }
}

/// What stands below the commands; programs look for the formats there.
fn after_help() -> String {
    let mut names: Vec<&str> = anydisk::formats().formats().map(|format| format.name()).collect();
    names.sort_unstable();
    format!("{EXAMPLES}\n\nSupported formats: {}", names.join(" "))
}

/// A name that need not be text, as text without loss.
pub(crate) fn any_name() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|name| name::of(&name).into_owned())
}

/// How files are named and opened.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reading {
    /// Read although another program may be writing
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,
    /// The files are strangers': open no file they name, guess nothing, keep limits strict
    #[arg(long, env = "ANYDISK_UNTRUSTED", hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(crate) untrusted: bool,
    /// Nothing that is encrypted is read.
    #[arg(skip)]
    pub(crate) may_lack_secrets: bool,
    /// Parts of images that cannot be had are told when they are read.
    #[arg(skip)]
    pub(crate) bears_loss: bool,
    /// What is said of the images that are opened.
    #[arg(skip)]
    pub(crate) warnings: Warnings,
    /// A host device, or a file, that an image may name as a part of itself; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_device: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) naming: Naming,
}

/// What a command says of the image that it made or changed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// Print text, or what `info` says of the image afterwards, as JSON
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

impl Telling {
    pub(crate) fn form(self) -> Form {
        self.output
    }

    /// Whether the command prints its usual text.
    pub(crate) fn is_text(self) -> bool {
        self.output == Form::Human
    }

    /// Tells what the image has become, if that was asked for. Nobody may have it open.
    pub(crate) fn tell(self, reading: &Reading, name: &OsStr, format: Option<&str>) -> Outcome {
        if !self.is_text() {
            output::print(&info::json(reading, name, format)?)?;
        }
        Ok(0)
    }
}

/// A part of what files hold.
#[derive(Args, Clone, Debug)]
pub(crate) struct Part {
    /// What lies in the files, as `anydisk members` lists it; several files are the disks of one
    /// machine
    #[arg(long, value_name = "NAME")]
    pub(crate) member: Option<String>,
    /// The format of what the member holds, where that is no raw disk
    #[arg(long, value_name = "FORMAT", requires = "member")]
    pub(crate) member_format: Option<String>,
}

/// Whether to print JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Text for people.
    #[default]
    Human,
    /// JSON as qemu-img prints it.
    Json,
}

/// How the host caches a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cache {
    /// Past the page cache.
    None,
    /// Through the page cache.
    Writeback,
    /// Through the page cache, and never flushed.
    Unsafe,
    /// Past the page cache, every write durable.
    Directsync,
    /// Through the page cache, every write durable.
    Writethrough,
}

impl Cache {
    /// Whether the page cache is passed by.
    pub(crate) fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Whether success means that everything is on stable storage.
    pub(crate) fn is_durable(self) -> bool {
        self != Self::Unsafe
    }
}

/// Refuses the first option of the list that was given.
pub(crate) fn refuse(options: &[(&str, bool)]) -> Result<(), Failure> {
    match options.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::new(format!("the option {name} is not supported"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_every_option_tells_what_it_is_for() {
        let mut command = CommandLine::command();
        command.build();
        let mut silent = Vec::new();
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            if below.get_about().is_none() {
                silent.push(below.get_name().to_owned());
            }
            let shown = below.get_arguments().filter(|arg| !arg.is_hide_set());
            let without =
                shown.filter(|arg| arg.get_help().is_none_or(|help| help.to_string().is_empty()));
            silent.extend(without.map(|arg| format!("{} {}", below.get_name(), arg.get_id())));
        }
        assert!(silent.is_empty(), "without help: {silent:?}");
    }
}
