//! The tests of the crate, in one program: that links once.

mod behaviour;
mod check;
mod common;
mod corpus;
mod golden;
mod mutants;
mod qemu;
mod writing;
