//! How far a job is: for people on standard error, for scripts on standard output. And whether it
//! is to stop.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anydisk::convert::Watch;

use crate::interrupt::Interrupt;
use crate::output::human;

/// Shows progress while it lives, and stops the job after Ctrl-C.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    begun: Instant,
    shown: Mutex<Shown>,
    interrupt: Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Nothing,
    /// As `qemu-img -p`, on standard output.
    Numbers,
    /// A bar on the terminal, on standard error.
    Bar,
}

/// What was shown last.
#[derive(Debug, Default)]
struct Shown {
    /// Hundredths of a percent.
    part: Option<u64>,
    /// When the bar was drawn, counted from the beginning.
    at: Duration,
}

const WHOLE: u64 = 10_000;
const BAR: u64 = 30;

/// Work that is shorter needs no bar, and more often than that nobody can look.
const TICK: Duration = Duration::from_millis(200);

impl Progress {
    /// A bar if a person watches; numbers if they were `wanted` and nobody does, or if they go
    /// elsewhere; nothing if it is to be `quiet`.
    pub(crate) fn new(wanted: bool, quiet: bool) -> io::Result<Self> {
        let style = match (quiet, wanted) {
            (true, _) => Style::Nothing,
            // Numbers are for scripts, which read them from standard output.
            (false, true) if !io::stdout().is_terminal() => Style::Numbers,
            (false, _) if io::stderr().is_terminal() => Style::Bar,
            (false, true) => Style::Numbers,
            (false, false) => Style::Nothing,
        };
        let progress = Self::with(style, Interrupt::watch()?);
        if style == Style::Numbers {
            progress.show_numbers(0);
        }
        Ok(progress)
    }

    /// Of a job that writes standard output, where a pipe may be full for as long as its reader
    /// likes: it leaves nothing to tidy up, so the first Ctrl-C ends the process at once.
    pub(crate) fn of_stream(quiet: bool) -> Self {
        let style = if !quiet && io::stderr().is_terminal() { Style::Bar } else { Style::Nothing };
        Self::with(style, Interrupt::unwatched())
    }

    fn with(style: Style, interrupt: Interrupt) -> Self {
        Self { style, begun: Instant::now(), shown: Mutex::default(), interrupt }
    }

    /// The job is done.
    pub(crate) fn finish(&self) {
        if self.style == Style::Numbers {
            self.show_numbers(WHOLE);
        }
    }

    /// Shows `part` unless less than a percent has happened.
    fn show_numbers(&self, part: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = match shown.part {
            None => true,
            Some(last) => part > last && (part - last > 100 || part == WHOLE),
        };
        if worth {
            shown.part = Some(part);
            // Progress that cannot be shown must not stop the job.
            let mut out = io::stdout().lock();
            let _ = write!(out, "    ({}/100%)\r", percent(part)).and_then(|()| out.flush());
        }
    }

    fn show_bar(&self, done: u64, total: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.begun.elapsed();
        if now < shown.at + TICK || shown.part.is_some_and(|last| last > done) {
            return;
        }
        *shown = Shown { part: Some(done), at: now };
        let _ = write!(io::stderr(), "\r{}\x1b[K", bar(done, total, now));
    }
}

impl Watch for Progress {
    fn progress(&self, done: u64, total: u64) -> ControlFlow<()> {
        match self.style {
            Style::Nothing => {}
            Style::Numbers => self.show_numbers(part(done, total)),
            Style::Bar => self.show_bar(done, total),
        }
        if self.interrupt.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let drawn = self.shown.get_mut().unwrap_or_else(PoisonError::into_inner).part.is_some();
        let _ = match self.style {
            Style::Numbers => writeln!(io::stdout()),
            Style::Bar if drawn => write!(io::stderr(), "\r\x1b[K"),
            _ => Ok(()),
        };
    }
}

/// Hundredths of a percent, the nearest.
fn part(done: u64, total: u64) -> u64 {
    let total = u128::from(total.max(1));
    let part = (u128::from(done) * u128::from(WHOLE) + total / 2) / total;
    u64::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

fn percent(part: u64) -> String {
    format!("{}.{:02}", part / 100, part % 100)
}

/// The bar with the rate so far and the time left at this rate.
fn bar(done: u64, total: u64, elapsed: Duration) -> String {
    let part = part(done, total);
    let full = usize::try_from(part * BAR / WHOLE).unwrap_or_default();
    let empty = usize::try_from(BAR).unwrap_or_default() - full;
    let millis = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(done) * 1000 / millis).unwrap_or(u64::MAX);
    let left = u128::from(total.saturating_sub(done)) * millis / u128::from(done.max(1)) / 1000;
    format!(
        "[{}{}] {:>3} %  {:>9}/s  {} left",
        "#".repeat(full),
        "-".repeat(empty),
        part / 100,
        human::size(rate),
        clock(left)
    )
}

/// Seconds as `1:02:03` or `2:03`.
fn clock(seconds: u128) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_shown_with_two_decimals() {
        assert_eq!(percent(0), "0.00");
        assert_eq!(percent(part(68, 1024)), "6.64");
        assert_eq!(percent(part(0, 0)), "0.00");
        assert_eq!(percent(part(u64::MAX, u64::MAX)), "100.00");
    }

    #[test]
    fn the_bar_tells_the_rate_and_the_time_that_is_left() {
        let (mib, second) = (1 << 20, Duration::from_secs(1));
        let expected =
            format!("[{}{}]  50 %    100 MiB/s  0:02 left", "#".repeat(15), "-".repeat(15));
        assert_eq!(bar(200 * mib, 400 * mib, 2 * second), expected);
        assert!(bar(mib, 7385 * mib, second).ends_with("  1 MiB/s  2:03:04 left"));
        assert!(bar(0, 0, Duration::ZERO).ends_with("  0 B/s  0:00 left"));
    }
}
