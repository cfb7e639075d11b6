//! The tests of the crate, in one program: that links once.

mod checking;
mod golden;
mod mutants;
mod writing;
