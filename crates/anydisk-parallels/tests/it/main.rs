//! The tests of the crate, in one program: that links once.

mod behaviour;
mod bundle_writing;
mod bundles;
mod checking;
mod common;
mod corpus;
mod extension;
mod golden;
mod moving;
mod mutants;
mod qemu;
mod resizing;
mod writing;
