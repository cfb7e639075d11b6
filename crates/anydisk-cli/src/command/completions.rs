//! `anydisk completions`.

use clap::Args;
use clap_complete::Shell;

use crate::declared;
use crate::failure::Outcome;
use crate::output;

/// Prints completions, for the name by which the program was called.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  anydisk completions bash > /etc/bash_completion.d/anydisk")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Outcome {
        let mut script = Vec::new();
        let mut command = declared::command_with_options();
        clap_complete::generate(self.shell, &mut command, output::program(), &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
