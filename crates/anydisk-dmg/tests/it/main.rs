//! The tests of the crate, in one program: that links once.

mod checking;
mod corpus;
mod encrypted;
mod golden;
mod judges;
mod mutants;
mod trailers;
mod writing;
