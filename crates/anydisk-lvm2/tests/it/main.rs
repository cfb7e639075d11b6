//! The tests of the crate, in one program: that links once.

mod changes;
mod common;
mod kernel;
mod made;
mod mutants;
mod pool;
