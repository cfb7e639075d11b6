//! The tests of the crate, in one program: that links once.

mod common;
mod device;
mod file;
mod locks;
mod model;
