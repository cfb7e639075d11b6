//! Arrays: mirrors, stripes with parity, and stripes of mirrors.
//!
//! [`layout`] is where each chunk is; [`parity`] computes what is gone; [`superblock`] tells which
//! images may be believed; [`array`] puts the three together.

pub(crate) mod array;
pub(crate) mod layout;
pub(crate) mod mirror;
pub(crate) mod parity;
pub(crate) mod superblock;
