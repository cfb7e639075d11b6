//! Trying an image out: with a clock beside it, and a list of what is not supported yet.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anydisk_core::Result;

/// A hostile file must be refused within this time.
const PROMPT: Duration = Duration::from_secs(1);

/// After this time nobody waits any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `attempt`; if it fails, that must not take long. A machine that is busy gets a second try.
pub(crate) fn prompt<T>(attempt: impl Fn() -> Result<T>) -> Result<Result<T>, String> {
    let timed = || {
        let begin = Instant::now();
        (attempt(), begin.elapsed())
    };
    let (mut outcome, mut took) = timed();
    if outcome.is_err() && took > PROMPT {
        (outcome, took) = timed();
    }
    match outcome {
        Err(error) if took > PROMPT => Err(format!("failing took {took:?}: {error}")),
        outcome => Ok(outcome),
    }
}

/// Runs `examine` in a thread: a panic or an endless loop there becomes a complaint.
pub(crate) fn guarded(
    examine: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || sender.send(examine()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => Err(format!("no answer after {PATIENCE:?}")),
        Err(RecvTimeoutError::Disconnected) => Err(match thread.join() {
            Ok(_) => "no answer".to_owned(),
            Err(panic) => format!("panicked: {}", message(&*panic)),
        }),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}

/// Fails with the list of all that went wrong: cases that complain and are not on the list of what
/// is not supported yet, and cases that are and do not complain.
pub(crate) fn settle(
    what: &str,
    verdicts: &[(String, Result<(), String>)],
    not_yet: &[(&str, &str)],
) {
    let mut failures = Vec::new();
    let mut waiting = 0;
    for (name, verdict) in verdicts {
        let reason = not_yet.iter().find(|(listed, _)| listed == name).map(|(_, reason)| reason);
        match (verdict, reason) {
            (Ok(()), None) => {}
            (Err(complaint), None) => failures.push(format!("{name}: {complaint}")),
            (Err(_), Some(reason)) => {
                waiting += 1;
                eprintln!("{what}: {name} is not supported yet: {reason}");
            }
            (Ok(()), Some(_)) => {
                failures.push(format!("{name}: passes, take it off the list"));
            }
        }
    }
    eprintln!("{what}: {} tried, {waiting} not supported yet", verdicts.len());
    assert!(failures.is_empty(), "{what}: {} failures\n{}", failures.len(), failures.join("\n"));
}

#[cfg(test)]
mod tests {
    use anydisk_core::Error;

    use super::*;

    #[test]
    fn a_panic_and_a_late_failure_are_complaints() {
        assert_eq!(guarded(|| panic!("no {}", 7)), Err("panicked: no 7".to_owned()));
        assert_eq!(guarded(|| Ok(())), Ok(()));
        let slow = || -> Result<()> {
            thread::sleep(PROMPT + Duration::from_millis(10));
            Err(Error::UnknownFormat("x".into()))
        };
        assert!(prompt(slow).unwrap_err().starts_with("failing took"));
    }

    #[test]
    #[should_panic(expected = "two: passes, take it off the list")]
    fn a_case_that_passes_may_not_be_on_the_list() {
        let verdicts = [("one".to_owned(), Err(String::new())), ("two".to_owned(), Ok(()))];
        settle("cases", &verdicts, &[("one", "later"), ("two", "later")]);
    }

    #[test]
    #[should_panic(expected = "one: wrong")]
    fn a_case_that_is_not_on_the_list_must_pass() {
        settle("cases", &[("one".to_owned(), Err("wrong".to_owned()))], &[]);
    }
}
