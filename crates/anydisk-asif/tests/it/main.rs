//! The tests of the crate, in one program: that links once.

mod golden;
mod mutants;
mod states;
