//! Whether a file still says of itself what its writer takes it to say.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::image::read_only;
use crate::{Error, Result};

/// A change of what a file says of itself (a size, where a table is) that failed may be on the medium or
/// not. The next opening may find it, and nothing that is written by what was there before; so from then on
/// nothing is written any more.
#[derive(Debug, Default)]
pub struct Doubt(AtomicBool);

impl Doubt {
    /// Makes a change: all of what it writes is durable when it returns.
    ///
    /// # Errors
    /// Those of `change`; then there is doubt.
    pub fn during<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        change().inspect_err(|_| self.0.store(true, Release))
    }

    /// To be asked before something is placed, freed, or written back.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where there is doubt.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.0.load(Acquire) { Err(refusal()) } else { Ok(()) }
    }
}

#[cold]
fn refusal() -> Error {
    read_only("a change of its size or place failed half-way: it has to be opened again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_change_that_failed_there_is_doubt_and_after_others_is_none() {
        let doubt = Doubt::default();
        assert_eq!(doubt.during(|| Ok(7)).expect("it can"), 7);
        doubt.check().expect("there is none");
        doubt.during(|| -> Result<()> { Err(read_only("x")) }).expect_err("it failed");
        assert!(matches!(doubt.check(), Err(Error::ReadOnly { .. })));
    }
}
