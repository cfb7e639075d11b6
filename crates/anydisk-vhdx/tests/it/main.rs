//! The tests of the crate, in one program: that links once.

mod behaviour;
mod corpus;
mod golden;
mod mutants;
mod qemu;
mod reading;
