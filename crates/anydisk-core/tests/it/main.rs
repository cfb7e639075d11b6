//! The tests of the crate, in one program: that links once.

mod block_space;
mod run_space;
