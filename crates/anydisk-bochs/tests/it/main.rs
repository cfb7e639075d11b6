//! The tests of the crate, in one program: that links once.

mod corpus;
mod golden;
mod judges;
mod mutants;
