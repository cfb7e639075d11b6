//! Virtual disk images on the command line: qemu-img's words, options, output and exit codes.
//!
//! | module | |
//! |---|---|
//! | `args` | the command line, and the options that several commands share |
//! | `command` | one file for each command |
//! | `naming` | what the names on the command line stand for; passphrases |
//! | `declared` | the command line with the names and options that formats declare |
//! | `open` | how disks are opened: policy, warnings |
//! | `options`, `option_help` | `-o` lists |
//! | `extents` | what a disk holds, run by run |
//! | `latency` | how long many requests took |
//! | `output` | JSON and texts, byte for byte as qemu-img prints them |
//! | `picture`, `svg` | the disk drawn, in a terminal and in a file |
//! | `stream` | standard input and output in place of files |
//! | `progress`, `interrupt` | how far a job is, and Ctrl-C |

mod args;
mod command;
mod declared;
mod extents;
mod failure;
mod interrupt;
mod latency;
mod naming;
mod open;
mod option_help;
mod options;
mod output;
mod picture;
mod progress;
mod stream;
mod svg;

use std::process::ExitCode;

fn main() -> ExitCode {
    command::run(std::env::args_os().collect())
}
