//! Persistent dirty bitmaps (qcow2, "Bitmaps").
//!
//! ```text
//!   extension -> directory: [ entry | entry | ... ]      names, flags, granularity
//!                              |
//!                            table: [ 0 | 1 | offset | ... ]   no bit, all bits, or ...
//!                                                |
//!                                             a cluster of bits
//! ```
//!
//! While an image is written, bits are set in memory, and a bitmap is marked **in use** on the
//! medium, durably, before the first bit is set that the medium does not have. A flush stores the
//! bits and takes the mark away. So a bitmap on the medium is right or marked, whenever the power
//! fails.
//!
//! | module | |
//! |---|---|
//! | `rules` | what the extension and an entry of the directory must keep; pure |
//! | `directory` | extension and directory, bytes to checked values and back; pure |
//! | `bits` | bits in memory, set by many threads |
//! | `read` | what a bitmap says, as ranges, read as it is asked for |
//! | `keeper` | which bitmaps record; the question that every write asks |
//! | `store` | marking as in use, and storing |
//! | `resize` | tables for a disk of another size |
//! | `change` | adding, removing, clearing, enabling, merging |

mod bits;
mod change;
mod directory;
mod keeper;
mod read;
mod resize;
mod rules;
mod store;

pub use directory::{BitmapEntry, read_directory};
pub(crate) use directory::{
    Claimed, Directory, Part, Place, for_each_part, read_entry, split_entry, to_bytes,
};
pub(crate) use keeper::Keeper;
pub(crate) use rules::{Fault, check_entry, check_table_size};
pub(crate) use store::Stored;
