//! The tests of the crate, in one program: that links once.

mod chains;
mod changes;
mod content_ids;
mod copy;
mod differing;
mod packed;
mod salvaging;
mod shortcuts;
mod subclusters;
