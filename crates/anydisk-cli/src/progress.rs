//! How far a job is.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use anydisk::convert::Watch;

/// Shows progress while it lives.
pub(crate) struct Progress {
    style: Style,
    /// What was shown last, in hundredths of a percent.
    shown: Mutex<Option<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Nothing,
    /// As `qemu-img -p`, on standard output.
    Numbers,
    /// A bar on the terminal, on standard error.
    Bar,
}

const WHOLE: u64 = 10_000;
const BAR: u64 = 40;

impl Progress {
    /// Numbers if they were `wanted`; else a bar if a person watches, and nothing if it is to be
    /// `quiet`.
    pub(crate) fn new(wanted: bool, quiet: bool) -> Self {
        let style = match (quiet, wanted) {
            (true, _) => Style::Nothing,
            (false, true) => Style::Numbers,
            (false, false) if io::stderr().is_terminal() => Style::Bar,
            (false, false) => Style::Nothing,
        };
        Self { style, shown: Mutex::new(None) }
    }

    /// The job is done.
    pub(crate) fn finish(&self) {
        self.show(WHOLE);
    }

    /// Shows `part` unless less than a percent has happened.
    fn show(&self, part: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = match *shown {
            None => true,
            Some(last) => part > last && (part - last > 100 || part == WHOLE),
        };
        if !worth {
            return;
        }
        *shown = Some(part);
        // A bar that cannot be shown must not stop the job.
        let _ = match self.style {
            Style::Nothing => Ok(()),
            Style::Numbers => {
                let mut out = io::stdout().lock();
                write!(out, "    ({}/100%)\r", percent(part)).and_then(|()| out.flush())
            }
            Style::Bar => write!(io::stderr(), "\r{}", bar(part)),
        };
    }
}

impl Watch for Progress {
    fn progress(&self, done: u64, total: u64) -> ControlFlow<()> {
        let part = u128::from(done) * u128::from(WHOLE) / u128::from(total.max(1));
        self.show(u64::try_from(part).unwrap_or(WHOLE).min(WHOLE));
        ControlFlow::Continue(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = match self.style {
            Style::Nothing => Ok(()),
            Style::Numbers => writeln!(io::stdout()),
            Style::Bar => write!(io::stderr(), "\r\x1b[K"),
        };
    }
}

fn percent(part: u64) -> String {
    format!("{}.{:02}", part / 100, part % 100)
}

fn bar(part: u64) -> String {
    let full = usize::try_from(part * BAR / WHOLE).unwrap_or_default();
    let empty = usize::try_from(BAR).unwrap_or_default() - full;
    format!("[{}{}] {:>6} %", "#".repeat(full), "-".repeat(empty), percent(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shown_with_two_decimals() {
        assert_eq!(percent(0), "0.00");
        assert_eq!(percent(664), "6.64");
        assert_eq!(percent(WHOLE), "100.00");
        assert_eq!(bar(5000), format!("[{}{}]  50.00 %", "#".repeat(20), "-".repeat(20)));
    }
}
