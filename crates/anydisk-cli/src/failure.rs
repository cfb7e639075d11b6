//! Why a command ended early.

use std::io;

/// What is printed after the program's name, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The process ends with this.
    pub(crate) code: u8,
    /// For people; empty if everything was said.
    pub(crate) text: String,
}

/// What a command returns: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure with the usual exit code.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// The same with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl From<anydisk::Error> for Failure {
    fn from(error: anydisk::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<anydisk::convert::Error> for Failure {
    fn from(error: anydisk::convert::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever read the output has seen enough.
        let quiet = error.kind() == io::ErrorKind::BrokenPipe;
        Self::new(if quiet { String::new() } else { error.to_string() })
    }
}
