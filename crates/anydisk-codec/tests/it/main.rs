//! The tests of the crate, in one program: that links once.

mod apple;
mod round_trip;
mod slow;
mod streams;
mod window;
