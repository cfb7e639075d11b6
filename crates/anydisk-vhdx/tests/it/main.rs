//! The tests of the crate, in one program: that links once.

mod behaviour;
mod checking;
mod child;
mod common;
mod corpus;
mod crashes;
mod golden;
mod mutants;
mod qemu;
mod reading;
mod resizing;
