//! The tests of the crate, in one program: that links once.

mod behaviour;
mod check;
mod corpus;
mod link;
mod mutants;
mod worked;
