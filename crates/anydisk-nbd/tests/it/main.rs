//! Disks served over NBD, looked at by a client of bytes and by other programs.

mod common;
mod judges;
mod protocol;
