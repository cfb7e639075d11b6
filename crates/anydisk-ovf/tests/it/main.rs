//! The tests of the crate, in one program: that links once.

mod made;
mod mutants;
mod packages;
