//! The tests of the crate, in one program: that links once.

mod behaviour;
mod common;
mod corpus;
mod golden;
mod mutants;
mod operations;
mod qemu;
mod resizing;
mod writing;
