//! The tests of the crate, in one program: that links once.

mod behaviour;
mod checking;
mod common;
mod corpus;
mod golden;
mod links;
mod mutants;
mod qemu;
mod repairing;
mod resizing;
mod several_files;
mod stream;
mod writing;
