//! The commands, one file each.

pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod info;
pub(crate) mod map;
pub(crate) mod measure;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Command, CommandLine};
use crate::failure::Outcome;
use crate::output;

/// Runs the command that the arguments name; the first of them is the program.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => return usage(&error),
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
        Command::Convert(convert) => convert.run(),
        Command::Info(info) => info.run(),
        Command::Map(map) => map.run(),
        Command::Compare(compare) => compare.run(),
        Command::Measure(measure) => measure.run(),
        Command::Completions(completions) => completions.run(),
    }
}

/// Help and version are no errors; what cannot be understood is.
fn usage(error: &clap::Error) -> ExitCode {
    // Where the text cannot be printed, the exit code still tells.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
