//! The most memory that something takes, where the system tells it.

use std::fs;

/// Measures this process. Only a process that does nothing else beside is measured rightly.
#[derive(Debug)]
pub(crate) struct Meter {
    before: u64,
}

impl Meter {
    /// Begins to measure; `None` where the system does not tell.
    pub(crate) fn start() -> Option<Self> {
        // Makes the memory in use now the most there was.
        fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(Self { before: most() })
    }

    /// The most memory that was taken since, in KiB.
    pub(crate) fn taken(&self) -> u64 {
        most().saturating_sub(self.before)
    }
}

/// The most memory that this process had, in KiB: a line of the system's account of it.
fn most() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
