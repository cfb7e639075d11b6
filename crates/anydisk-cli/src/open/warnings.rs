//! What a person should know of images that opened.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anydisk::Layer;

use crate::output;

/// Says on standard error what images are opened with, each once however often it is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings {
    said: Arc<Mutex<BTreeSet<String>>>,
    quiet: bool,
}

impl Warnings {
    /// Says nothing, if `quiet`.
    pub(crate) fn be_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// Says what should be known of an image.
    pub(super) fn say(&self, layer: &Layer) {
        if self.quiet {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in &layer.warnings {
            let line = format!("{}: {}", layer.location, warning.trim_end_matches('.'));
            if said.insert(line.clone()) {
                output::warn(&line);
            }
        }
    }
}
