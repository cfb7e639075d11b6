//! The tests of the crate, in one program: that links once.

mod amending;
mod behaviour;
mod bitmaps;
mod check;
mod common;
mod compacting;
mod corpus;
mod crash;
mod creating;
mod data_file;
mod data_file_encrypted;
mod dirty;
mod encryption;
mod golden;
mod histories;
mod image;
mod mutants;
mod order;
mod passphrases;
mod pressure;
mod qemu;
mod repair;
mod resizing;
mod snapshots;
mod writing;
mod zeroing;
