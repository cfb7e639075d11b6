//! Partition tables: MBR with logical partitions, and GPT with both of its copies.
//!
//! ```text
//!   sector 0       MBR: four partitions, or one of type EE: then GPT counts
//!   sector 1       GPT header -> entries              the same again at the end of the disk
//!   ...
//!   extended       a chain of sectors, each with one logical partition and the place of the next
//! ```
//!
//! | table | |
//! |---|---|
//! | MBR: primary, extended, logical | read |
//! | GPT: sectors of 512 and 4096 bytes, checksums, the copy at the end where the first is broken | read |
//! | copies that differ or are broken, chains that break, a hybrid MBR | told |
//! | BSD disklabels, Apple's partition map, writing | missing |
//!
//! Each partition is a member, asked for by its number as Linux counts (`1`, `5`), and a window of
//! the disk it lies on. The layout and what we accept are in `docs/formats/partition.md`.
//!
//! ```no_run
//! use std::sync::Arc;
//! use anydisk_core::{Limits, Members, Storage};
//! use anydisk_partition::Partitions;
//! use anydisk_storage::{FileStorage, OpenOptions};
//!
//! let disk: Arc<dyn Storage> = Arc::new(FileStorage::open("disk.raw", &OpenOptions::new())?);
//! let table = Partitions::open(disk, &Limits::default())?;
//! let second = Members::open(&table, "2")?;
//! # Ok::<(), anydisk_core::Error>(())
//! ```

mod container;
mod gpt;
mod kinds;
mod layout;
mod mbr;

pub use container::{PARTITIONS, PartitionContainer, Partitions, Scheme};

pub(crate) const NAME: &str = "partitions";

/// A partition, in bytes of its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// The number Linux gives it.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// In bytes.
    pub len: u64,
    /// What its type says it holds.
    pub kind: String,
    /// The name in the table (GPT).
    pub name: Option<String>,
    /// An extended partition: it holds the chain of the logical ones.
    pub extended: bool,
    /// Why it cannot be opened; start and length are 0.
    pub problem: Option<String>,
}
