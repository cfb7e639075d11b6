//! Convert, compare and salvage virtual disks: any disk to any disk or stream.
//!
//! ```text
//!   source disk --map--> plan --steps--> movers (all cores) --places in order--> target
//! ```
//!
//! The [plan](copy_to_disk) walks the maps of the source and never touches payload; zeroes and
//! holes are known from it and are neither read nor written. Blocks that the file system can share
//! are not moved, and units that are packed as the target packs them are not packed again. The movers read, pack and write on all
//! cores with bounded memory, and take their places in guest order, so the same source gives the
//! same target whatever the number of threads.

mod bitmaps;
mod commit;
mod compare;
mod copy;
mod differ;
mod error;
mod file;
mod frozen;
mod increment;
mod pending;
mod place;
mod plan;
mod prepare;
mod rebase;
mod salvage;
mod settings;
mod shortcut;
mod source;
mod target;
mod telling;
mod turn;
mod unflushed;

pub use bitmaps::copy_bitmaps;
pub use commit::{check_emptying, commit, commit_with, empty, keeps_number};
pub use compare::{Comparison, Strictness, compare};
pub use copy::{copy_to_disk, copy_to_sink};
pub use differ::differences;
pub use error::{Error, Result};
pub use file::{NewImage, copy_to_file, copy_to_overlay, create_file};
pub use increment::{Change, copy_changes, copy_changes_to_overlay, visit_changes};
pub use rebase::rebase;
pub use salvage::{Lost, Salvaged, salvage, salvage_to_file};
pub use settings::{CopyBitmaps, Offload, Report, Settings, Unwatched, Watch};
pub use source::Sources;
