//! `anydisk man`.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Command};

use crate::declared;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Writes the manual pages.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  anydisk man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder, which is made if it is not there; it gets anydisk.1, a page for each command (anydisk-convert.1), and anydisk-options.7
    folder: OsString,
}

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let folder = std::fs::create_dir_all(&self.folder);
        folder.map_err(|error| Failure::from(error).about(&self.folder))?;
        let mut command = declared::command().disable_help_subcommand(true);
        command.build();
        self.write("anydisk-options.7", declared::page_of_options().as_bytes())?;
        self.write_pages(command)?;
        Ok(0)
    }

    /// A page for the command, and one for each below it.
    fn write_pages(&self, command: Command) -> Result<(), Failure> {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            self.write_pages(below.clone())?;
        }
        let (page, mut text) = (clap_mangen::Man::new(command), Vec::new());
        page.render(&mut text)?;
        self.write(&page.get_filename(), &text)
    }

    fn write(&self, page: &str, text: &[u8]) -> Result<(), Failure> {
        output::write_file(&Path::new(&self.folder).join(page), text)
    }
}
