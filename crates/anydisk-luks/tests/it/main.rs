//! The tests of the crate, in one program: that links once.

mod behaviour;
mod common;
mod container;
mod corpus;
mod defects;
mod golden;
mod judges;
mod mutants;
