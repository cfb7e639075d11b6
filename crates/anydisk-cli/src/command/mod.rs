//! The commands, one file each.

pub(crate) mod amend;
pub(crate) mod bench;
pub(crate) mod bitmap;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod dd;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod map;
pub(crate) mod measure;
pub(crate) mod members;
pub(crate) mod rebase;
pub(crate) mod resize;
pub(crate) mod salvage;
pub(crate) mod serve;
pub(crate) mod snapshot;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches};

use crate::args::{Command, CommandLine};
use crate::failure::Outcome;
use crate::output;

/// Runs the command that the arguments name; the first of them is the program.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let line = match parsed(&arguments) {
        Ok(line) => line,
        Err(error) => return usage::exit(&error, &arguments),
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

/// The command line, of a program of the name by which it was called.
fn parsed(arguments: &[OsString]) -> Result<CommandLine, clap::Error> {
    let command = CommandLine::command().display_name(output::program());
    let mut command = command.mut_subcommands(|command| command.mut_args(as_getopt));
    // As with getopt, the end of the options may be told before the command as well.
    let arguments =
        arguments.iter().enumerate().filter(|(place, word)| *place != 1 || *word != "--");
    let mut matches = command.try_get_matches_from_mut(arguments.map(|(_, word)| word))?;
    let line = CommandLine::from_arg_matches_mut(&mut matches);
    line.map_err(|error| error.format(&mut command))
}

/// The word behind an option that takes a value is that value, whatever it looks like.
fn as_getopt(arg: Arg) -> Arg {
    let takes_value = !arg.is_positional()
        && arg.get_action().takes_values()
        && arg.get_num_args().is_none_or(|count| count.takes_values());
    if takes_value { arg.allow_hyphen_values(true) } else { arg }
}

fn perform(command: Command) -> Outcome {
    match command {
        Command::Create(create) => create.run(),
        Command::Bench(bench) => bench.run(),
        Command::Bitmap(bitmap) => bitmap.run(),
        Command::Convert(convert) => convert.run(),
        Command::Dd(dd) => dd.run(),
        Command::Info(info) => info.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Map(map) => map.run(),
        Command::Amend(amend) => amend.run(),
        Command::Check(check) => check.run(),
        Command::Compact(compact) => compact.run(),
        Command::Salvage(salvage) => salvage.run(),
        Command::Serve(serve) => serve.run(),
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
