//! `anydisk man`.

use std::ffi::OsString;
use std::path::Path;

use clap::Args;

use crate::declared;
use crate::failure::{Failure, Outcome};

/// Writes the manual pages.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  anydisk man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder; it gets anydisk.1, a page for each command (anydisk-convert.1), and anydisk-options.7
    folder: OsString,
}

impl Man {
    pub(crate) fn run(self) -> Outcome {
        let written = clap_mangen::generate_to(declared::command(), Path::new(&self.folder));
        let page = Path::new(&self.folder).join("anydisk-options.7");
        let written = written.and_then(|()| std::fs::write(page, declared::page_of_options()));
        written.map_err(|error| Failure::from(error).about(&self.folder))?;
        Ok(0)
    }
}
