//! The traits and the one read and write loop that every anydisk format shares.

mod address;
mod cache;
mod claim;
mod decoded;
mod disk;
mod error;
mod extent;
mod format;
mod image;
mod lease;
mod limits;
mod open;
mod resolve;
mod sink;
mod space;

pub use address::{GuestOffset, GuestRange};
pub use anydisk_codec::{Codec, DecodeError, Encode};
pub use anydisk_storage::{HostOffset, Storage, StorageExt};
pub use cache::{DirtySlice, Inserted, Slice, SliceMut, TableCache, Ticket, Updated};
pub use claim::{Claim, Claims};
pub use disk::{Disk, DiskExtent, DiskLookup, DiskNeed, Layer};
pub use error::{Error, Invalid, Result, Value};
pub use extent::{Encoded, Extent, Source};
pub use format::{
    Chosen, CreateRequest, Format, Measure, MeasureRequest, OpenRequest, Opened, OptionKind,
    OptionSpec, Options, Registry, Sample, SinkRequest, Verdict, parse_size,
};
pub use image::{
    Attempt, Below, Committed, Detail, DetailValue, Handled, Image, ImageInfo, ImageWrite, Lookup,
    Need, Packing, Placement, Reservation, Reserved, Resize, Supplied, Zeroing,
};
pub use lease::{Lease, Leases, OwnedLease, Quarantine, Sealed, WriteLease};
pub use limits::Limits;
pub use open::Opener;
pub use resolve::{Access, Located, Location, NoReferences, Reference, Resolver, Role};
pub use sink::{Piece, Sink};
pub use space::{BlockSpace, TakenBlock};
