//! A store that takes its time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anydisk_storage::Storage;

use super::Call;
use super::tap::{Ruling, Tap, Tapped};

/// A store each call of which takes some time more, as on a disk with a seek.
pub type ThrottledStorage = Tapped<Delay>;

/// The time that a call takes.
#[derive(Debug)]
pub struct Delay(Duration);

impl ThrottledStorage {
    /// `inner`, with `delay` before each call.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, delay: Duration) -> Self {
        Self::with_tap(inner, Delay(delay))
    }
}

impl Tap for Delay {
    fn rule(&self, _: &Call) -> Ruling {
        thread::sleep(self.0);
        Ruling::Pass
    }
}
