//! The tests of the crate, in one program: that links once.

mod changes;
mod common;
mod judges;
mod kernel;
mod made;
mod mutants;
mod pool;
