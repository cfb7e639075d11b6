//! The commands, one file each.

pub(crate) mod amend;
pub(crate) mod bitmap;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod map;
pub(crate) mod measure;
pub(crate) mod members;
pub(crate) mod rebase;
pub(crate) mod resize;
pub(crate) mod salvage;
pub(crate) mod snapshot;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::args::{Command, CommandLine};
use crate::failure::Outcome;
use crate::output;

/// Runs the command that the arguments name; the first of them is the program.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) => return usage(&error, arguments.get(1)),
    };
    match perform(line.command) {
        Ok(code) => code.into(),
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error(&failure.text);
            }
            failure.code.into()
        }
    }
}

fn perform(command: Command) -> Outcome {
    match command {
        Command::Create(create) => create.run(),
        Command::Bitmap(bitmap) => bitmap.run(),
        Command::Convert(convert) => convert.run(),
        Command::Info(info) => info.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Map(map) => map.run(),
        Command::Amend(amend) => amend.run(),
        Command::Check(check) => check.run(),
        Command::Compact(compact) => compact.run(),
        Command::Salvage(salvage) => salvage.run(),
        Command::Compare(compare) => compare.run(),
        Command::Measure(measure) => measure.run(),
        Command::Resize(resize) => resize.run(),
        Command::Snapshot(snapshot) => snapshot.run(),
        Command::Commit(commit) => commit.run(),
        Command::Rebase(rebase) => rebase.run(),
        Command::Members(members) => members.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

/// Help and version are no errors; what cannot be understood is.
fn usage(error: &clap::Error, command: Option<&OsString>) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Where the text cannot be printed, the exit code still tells.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let name = command.map(|name| name.to_string_lossy()).unwrap_or_default();
    let text = match error.kind() {
        ErrorKind::InvalidSubcommand if OF_QEMU_IMG.contains(&&*name) => {
            format!("The command {name} of qemu-img is not supported yet")
        }
        ErrorKind::InvalidSubcommand => format!("Command not found: {name}"),
        _ => complaint(error),
    };
    let is_command = CommandLine::command().get_subcommands().any(|known| known.get_name() == name);
    let of_command = if is_command { format!(" {name}") } else { String::new() };
    let program = output::program();
    output::error(&format!("{text}\nTry '{program}{of_command} --help' for more info"));
    ExitCode::FAILURE
}

/// Commands of qemu-img that are known and not done here.
const OF_QEMU_IMG: &[&str] = &["bench", "dd"];

/// What the parser says is wrong, without the usage that follows.
fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let about = text.split("\nUsage:").next().unwrap_or(text);
    let about = about.split("\nFor more information").next().unwrap_or(about);
    let lines: Vec<&str> = about.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}
