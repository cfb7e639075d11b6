//! What is said of a command line that is not understood: qemu-img's words.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use anydisk::storage::name;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::CommandLine;
use crate::output;

/// Help and version are no errors; what cannot be understood is.
pub(super) fn exit(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Where the text cannot be printed, the exit code still tells.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let name = output::command_of(arguments.iter().cloned()).unwrap_or_default();
    let name = name::of(&name);
    let is_command = CommandLine::command().get_subcommands().any(|known| known.get_name() == name);
    let command = is_command.then_some(&*name);
    let last = arguments.last().map_or(OsStr::new(""), |last| last);
    let complaint = Complaint { error, command, name: &name, last };
    output::note(&complaint.text());
    let is_of_compare = command == Some("compare") && names_a_cache(error);
    ExitCode::from(if is_of_compare && !complaint.lacks_value() { 2 } else { 1 })
}

/// What is wrong with a command line.
struct Complaint<'a> {
    error: &'a clap::Error,
    /// The command, if there is one of this name.
    command: Option<&'a str>,
    name: &'a str,
    last: &'a OsStr,
}

impl Complaint<'_> {
    fn text(&self) -> String {
        let program = output::program();
        let of_command = self.command.map(|name| format!(" {name}")).unwrap_or_default();
        let (is_prefixed, text) = self.words();
        let before = if is_prefixed { format!("{program}{of_command}") } else { program.clone() };
        let mut text = format!("{before}: {text}");
        if !self.is_said_alone() {
            text += &format!("\nTry '{program}{of_command} --help' for more info");
        }
        text
    }

    /// Whether the command's name stands before it, and what is said.
    fn words(&self) -> (bool, String) {
        let argument = self.context(ContextKind::InvalidArg).unwrap_or_default();
        let value = self.context(ContextKind::InvalidValue);
        match self.error.kind() {
            ErrorKind::InvalidSubcommand => (false, format!("Command not found: {}", self.name)),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                (false, "Not enough arguments".into())
            }
            ErrorKind::MissingSubcommand => (false, "Not enough arguments".into()),
            ErrorKind::UnknownArgument if argument.starts_with("--") => {
                (true, format!("unrecognized option '{argument}'"))
            }
            ErrorKind::UnknownArgument if argument.starts_with('-') => {
                (true, format!("invalid option -- '{}'", argument.trim_start_matches('-')))
            }
            ErrorKind::UnknownArgument => (false, self.extra(&argument)),
            ErrorKind::MissingRequiredArgument
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::TooFewValues => (false, self.missing(&argument).to_owned()),
            ErrorKind::InvalidValue if self.lacks_value() => {
                (true, self.without_argument(&argument))
            }
            ErrorKind::InvalidValue => (false, self.refused(&argument, &value.unwrap_or_default())),
            ErrorKind::TooManyValues => {
                let name = argument.split([' ', '=', '[']).next().unwrap_or(&argument);
                (true, format!("option '{name}' doesn't allow an argument"))
            }
            _ => (false, complaint(self.error)),
        }
    }

    /// Whether the last argument is an option that takes a value, and has none.
    fn lacks_value(&self) -> bool {
        let value = self.context(ContextKind::InvalidValue).unwrap_or_default();
        let last = self.last.as_encoded_bytes();
        self.error.kind() == ErrorKind::InvalidValue
            && value.is_empty()
            && last.starts_with(b"-")
            && !last.contains(&b'=')
    }

    fn context(&self, kind: ContextKind) -> Option<String> {
        match self.error.get(kind)? {
            ContextValue::String(text) => Some(text.clone()),
            ContextValue::Strings(texts) => Some(texts.join(" ")),
            _ => None,
        }
    }

    /// What is said of one file too many.
    fn extra(&self, argument: &str) -> String {
        match self.command {
            Some("create") => format!("Unexpected argument: {argument}"),
            Some("resize") => "Extra argument(s) in command line".into(),
            _ => "Expecting one image file name".into(),
        }
    }

    fn missing(&self, argument: &str) -> &'static str {
        match self.command {
            Some("amend") if argument.contains("--options") => "Must specify options (-o)",
            Some("compare") => "Expecting two image file names",
            Some("convert") => "Must specify image file name",
            Some("create") => "Expecting image file name",
            Some("resize") => "Expecting image file name and size",
            Some("measure") => "Either --size N or one filename must be specified.",
            Some("rebase") if !argument.contains("<FILE>") => {
                "Must specify backing file (-b) or use unsafe mode (-u)"
            }
            _ => "Expecting one image file name",
        }
    }

    /// The last argument is the option that lacks its value.
    fn without_argument(&self, argument: &str) -> String {
        let name = name::of(self.last);
        match name.strip_prefix("--") {
            None if name.len() == 2 => format!("option requires an argument -- '{}'", &name[1..]),
            _ => {
                let name = argument.split([' ', '=']).next().unwrap_or(argument);
                format!("option '{name}' requires an argument")
            }
        }
    }

    /// What is said of a value that an option does not take.
    fn refused(&self, argument: &str, value: &str) -> String {
        let is_source =
            argument.contains("source-cache") || matches!(self.command, Some("check" | "compare"));
        match argument {
            _ if argument.contains("cache") && self.command == Some("bench") => {
                "Invalid cache mode".into()
            }
            _ if argument.contains("cache") && is_source => {
                format!("Invalid source cache option: {value}")
            }
            _ if argument.contains("cache") => format!("Invalid cache option: {value}"),
            _ if argument.contains("--output") => {
                format!("--output expects 'human' or 'json' not '{value}'")
            }
            _ if argument.contains("--repair") => {
                format!("--repair (-r) expects 'leaks' or 'all' not '{value}'")
            }
            _ => format!("invalid value '{value}' for '{argument}'"),
        }
    }

    /// Some complaints come without the place of help.
    fn is_said_alone(&self) -> bool {
        let argument = self.context(ContextKind::InvalidArg).unwrap_or_default();
        match self.error.kind() {
            ErrorKind::InvalidValue => names_a_cache(self.error) && !self.lacks_value(),
            ErrorKind::MissingRequiredArgument => match self.command {
                Some("convert" | "measure") => true,
                Some("amend") => !argument.contains("--options"),
                _ => false,
            },
            _ => false,
        }
    }
}

fn names_a_cache(error: &clap::Error) -> bool {
    matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(name)) if name.contains("cache"))
}

/// What the parser says is wrong, without the usage that follows.
fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let about = text.split("\nUsage:").next().unwrap_or(text);
    let about = about.split("\nFor more information").next().unwrap_or(about);
    let lines: Vec<&str> = about.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}
