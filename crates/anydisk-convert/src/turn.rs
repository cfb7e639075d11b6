//! Taking turns: what must happen in guest order, whatever thread does it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// Lets steps through one after the other, by number.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    stopped: bool,
}

impl Turns {
    /// Runs `act` when all steps before `number` have had their turn. An error stops all others.
    pub(crate) fn take<R>(&self, number: u64, act: impl FnOnce() -> Result<R>) -> Result<R> {
        let mut state = self.lock();
        while state.next != number && !state.stopped {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return Err(Error::Stopped);
        }
        drop(state);
        // Nobody else can have this number, so `act` runs alone without the lock.
        let answer = act();
        let mut state = self.lock();
        state.next += 1;
        state.stopped |= answer.is_err();
        drop(state);
        self.moved.notify_all();
        answer
    }

    /// Lets nobody through any more.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.moved.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the others if the thread that holds it panics, as a store of the caller's own may: they would
/// wait for a turn that never comes.
pub(crate) struct StopInPanic<'a>(pub(crate) &'a Turns);

impl Drop for StopInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
