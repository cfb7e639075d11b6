//! The traits and the one read and write loop that every anydisk format shares.
//!
//! ```text
//!   Opener --> Registry --> Format::probe, open, create
//!                              |
//!   Disk --- place, commit --> Image + ImageWrite        the format: where is it, where may it go
//!    |  `--- map ------------>   |  TableCache           its tables, in memory and written in order
//!    |                           |  Unwritten            those that are holes, not read at all
//!    |                           |  Claims, Leases       who changes a unit, who still uses a place
//!    |                           |  BlockSpace, RunSpace free space and the end of the file
//!    |                           |  FlatTable            all of it for a table of one level
//!    |                           |  KnownTables          one look less for a table of two
//!    |  reads and writes         | names bytes to be read (Need)
//!    v                           v
//!   Storage ---------------------+
//! ```
//!
//! A format translates and keeps space; [`Disk`] moves the bytes. To write one, begin with what is
//! pure (header, entries), then [`Image`], then [`ImageWrite`], then [`Format`]:
//!
//! | duty | rule |
//! |---|---|
//! | [`Image::map_cached`] | take the lease **before** the look at the table, check the entry after it |
//! | [`ImageWrite::try_place`] | own space: in place, under that lease; else claim, look again, reserve |
//! | [`ImageWrite::try_commit`] | set the entry, then release the claim |
//! | [`ImageWrite::zero`], [`discard`](ImageWrite::discard) | claim, change the entry, then retire the space |
//! | [`ImageWrite::flush`] | one write-back round: data, tables, then freed space |
//!
//! `examples/new_format.rs` of the repository is a whole format in one file, and the behaviour suite
//! of `anydisk-testkit` says whether a format keeps these rules.

mod address;
pub mod bits;
mod cache;
mod capability;
mod claim;
mod container;
mod decoded;
mod disk;
mod doubt;
mod entries;
mod error;
mod extent;
mod flat;
mod format;
mod held;
mod id;
mod image;
#[cfg(all(test, anydisk_loom))]
mod interleavings;
mod known;
mod lease;
mod limits;
mod mapped;
mod missing;
mod open;
mod owners;
mod pace;
mod passphrase;
mod pieces;
mod reason;
mod resolve;
mod runs;
mod secret;
mod sink;
mod space;
mod sync;
mod text;
mod threads;
mod unwritten;

pub use address::{GuestOffset, GuestRange};
pub use anydisk_codec::{Codec, DecodeError, Decoded, Encode};
pub use anydisk_storage::{HostOffset, Storage, StorageExt};
pub use cache::{DirtySlice, Inserted, Slice, SliceMut, TableCache, Ticket, Updated};
pub use capability::backing::BackingLink;
pub use capability::bitmap::{BitmapInfo, Bitmaps, Changes, NewBitmap};
pub use capability::check::{
    CheckReport, CheckRequest, Finding, Repair, Severity, can_be_leaked_blocks, can_be_leaks,
};
pub use capability::compact::Compact;
pub use capability::reading::check_by_reading;
pub use capability::resize::{NewSize, Preallocation, Resize, give_space};
pub use capability::snapshot::{NewSnapshot, SnapshotInfo, SnapshotRef, Snapshots};
pub use claim::{Claim, Claims};
pub use container::{Container, ContainerRequest, Member, Members};
pub use disk::{Disk, DiskExtent, DiskLookup, DiskNeed, Layer};
pub use doubt::Doubt;
pub use entries::{NamedBlocks, for_each_entry, for_each_written_entry};
pub use error::{Error, Invalid, Result, Value, check_limit, narrow};
pub use extent::{Encoded, Extent, Source};
pub use flat::{Block, BlockEntries, BlockShape, FlatTable, ShapeCell, Still, TableShape};
pub use format::{
    AmendRequest, Chosen, CreateRequest, Format, Measure, MeasureRequest, OpenRequest, Opened,
    OptionKind, OptionSpec, Options, Registry, Sample, SinkRequest, Verdict, parse_number,
    parse_size,
};
pub use id::{Id, Ids, NotAUuid, Uuid};
pub use image::{
    Attempt, Below, Committed, Detail, DetailValue, Handled, Image, ImageInfo, ImageWrite, Lookup,
    Need, Packing, Placement, Reservation, Reserved, Supplied, Zeroing,
};
pub use known::{DirectoryAge, KnownTables};
pub use lease::{Lease, Leases, OwnedLease, Quarantine, Sealed, WriteLease};
pub use limits::Limits;
pub use mapped::{MappedFrom, MappedPiece, MappedStorage, Mapping};
pub use missing::{BearingLoss, MissingStorage};
pub use open::Opener;
pub use owners::Owners;
pub use pace::Pace;
pub use passphrase::{PassphraseChange, PassphraseOptions};
pub use pieces::{Pieces, units_of_data};
pub use reason::{Expected, Feature, SecretProblem};
pub use resolve::{
    Access, Companions, Located, Location, NoCompanions, NoReferences, OnlyNames, Reference,
    Resolver, Role, Said, SaidBelow,
};
pub use runs::{RunSpace, TakenRun, WantedRun};
pub use secret::{NoSecrets, OneSecret, Secret, SecretRequest, Secrets};
pub use sink::{Piece, Sink};
pub use space::{BlockSpace, TakenBlock};
pub use text::one_line;
pub use threads::on_threads;
pub use unwritten::Unwritten;
