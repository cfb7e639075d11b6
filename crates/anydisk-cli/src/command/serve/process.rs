//! The process of a server: in the background, and where its number is told.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};

use crate::failure::{Failure, Outcome};
use crate::output;

/// The variable that tells a server in the background which process started it.
const STARTED_BY: &str = "ANYDISK_STARTED_BY";

/// Whether this process was started to serve in the background.
pub(super) fn is_in_background() -> bool {
    is_number(std::env::var_os(STARTED_BY), parent_id())
}

fn is_number(text: Option<OsString>, number: u32) -> bool {
    text.is_some_and(|text| text.to_str() == Some(&number.to_string()))
}

/// Starts this program once more, to serve in the background, and tells what it tells once it can be
/// asked. Its complaints until then are seen here.
pub(super) fn start_in_background() -> Outcome {
    if is_number(std::env::var_os("LISTEN_PID"), id()) {
        return Err(Failure::new("--fork does not go with a socket that was handed over"));
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(arguments.next().unwrap_or_default()).args(arguments);
    let mut child = command.env(STARTED_BY, id().to_string()).stdout(Stdio::piped()).spawn()?;
    let mut told = String::new();
    if let Some(out) = &mut child.stdout {
        out.read_to_string(&mut told)?;
    }
    if !told.is_empty() {
        output::print(&told)?;
        return Ok(0);
    }
    // It ended, or is about to, and has said why.
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.filter(|code| *code != 0).unwrap_or(1))
}

/// From now on nobody is told anything, and the end of a terminal is not this one's.
pub(super) fn leave_terminal() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(rustix::stdio::dup2_stdout(&null)?)
}

/// A file with the number of this process, which goes with this.
pub(super) struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let text = format!("{}\n", id());
        output::write_file(path, text.as_bytes())?;
        Ok(Self { path: path.to_owned(), text })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may be another server's by now.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
