//! The command line together with what the formats declare, for completions and manual pages.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, Command, CommandFactory};

use anydisk::{Format, OptionKind, OptionSpec};

use crate::args::CommandLine;

/// Arguments that name a format.
const FORMATS: &[&str] = &[
    "format",
    "source_format",
    "target_format",
    "output_format",
    "backing_format",
    "member_format",
    "a_format",
    "b_format",
];

/// The command line; formats are named.
pub(crate) fn command() -> Command {
    CommandLine::command().mut_subcommands(|command| FORMATS.iter().fold(command, with_formats))
}

/// The command line; formats are named, and their options.
pub(crate) fn command_with_options() -> Command {
    command().mut_subcommands(|command| {
        let of: fn(&'static dyn Format) -> &'static [OptionSpec] = match command.get_name() {
            "amend" => |format| format.amend_options(),
            _ => |format| format.create_options(),
        };
        mut_known(command, "options", |arg| {
            arg.value_parser(PossibleValuesParser::new(options(of)))
        })
    })
}

fn with_formats(command: Command, name: &&'static str) -> Command {
    let names = || anydisk::formats().formats().map(|format| format.name()).collect::<Vec<_>>();
    mut_known(command, name, |arg| arg.value_parser(PossibleValuesParser::new(names())))
}

fn mut_known(command: Command, name: &'static str, change: impl FnOnce(Arg) -> Arg) -> Command {
    let is_known = command.get_arguments().any(|arg| arg.get_id() == name);
    if is_known { command.mut_arg(name, change) } else { command }
}

/// The options of all formats, each name once.
fn options(of: fn(&'static dyn Format) -> &'static [OptionSpec]) -> Vec<PossibleValue> {
    let registry = anydisk::formats();
    let specs = registry.formats().flat_map(of);
    let mut values: Vec<(&str, &str)> = specs.map(|spec| (spec.name, spec.help)).collect();
    values.extend([("size", "virtual size of the disk"), ("help", "list the options")]);
    values.sort_unstable();
    values.dedup_by_key(|(name, _)| *name);
    let value = |(name, help): (&str, &'static str)| match name {
        "help" => PossibleValue::new("help").help(help),
        _ => PossibleValue::new(format!("{name}=")).help(help),
    };
    values.into_iter().map(value).collect()
}

/// A manual page with the options of all formats.
pub(crate) fn page_of_options() -> String {
    let mut page = String::from(
        ".TH anydisk\\-options 7\n.SH NAME\nanydisk\\-options \\- options of disk image formats, \
         for -o name=value,...\n",
    );
    for format in anydisk::formats().formats() {
        let name = format.name();
        page += &section(name, format.create_options());
        page += &section(&format!("{name}, amend"), format.amend_options());
    }
    page
}

fn section(title: &str, specs: &[OptionSpec]) -> String {
    let rows: String = specs.iter().map(row).collect();
    if rows.is_empty() { rows } else { format!(".SH {title}\n{rows}") }
}

fn row(spec: &OptionSpec) -> String {
    let takes = match spec.kind {
        OptionKind::Flag => "on|off".to_owned(),
        OptionKind::Number => "NUMBER".to_owned(),
        OptionKind::Size => "SIZE".to_owned(),
        OptionKind::Word(words) => words.join("|"),
        _ => "TEXT".to_owned(),
    };
    let default = spec.default.map(|value| format!(" (if not given: {value})")).unwrap_or_default();
    let line = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    format!(".TP\n.B {}={}\n{}{default}\n", line(spec.name), line(&takes), line(spec.help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_stays_whole_with_what_formats_declare() {
        command_with_options().debug_assert();
    }

    #[test]
    fn options_are_listed_once() {
        let values = options(|format| format.create_options());
        let named = |name: &str| values.iter().filter(|value| value.get_name() == name).count();
        assert_eq!((named("cluster_size="), named("backing_file="), named("help")), (1, 1, 1));
    }
}
