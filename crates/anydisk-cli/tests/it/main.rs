//! The tests of the crate, in one program: that links once.

mod amend;
mod bench;
mod bitmap;
mod changing;
mod check;
mod common;
mod compact;
mod compare;
mod convert;
mod create;
mod dd;
mod info;
mod inspect;
mod interrupt;
mod map;
mod measure;
mod members;
mod names;
mod naming;
mod options;
mod salvage;
mod same;
mod snapshot;
mod streams;
mod untrusted;
mod usage;
