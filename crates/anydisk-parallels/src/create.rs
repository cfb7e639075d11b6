//! New images, as qemu-img makes them.

use std::sync::Arc;

use anydisk_core::{
    Access, CreateRequest, HostOffset, Image, NoReferences, OpenRequest, OptionKind, OptionSpec,
    Options, Result, Storage, narrow,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::header::{Kind, limit, unsupported, usual_first};
use crate::image::ParallelsImage;
use crate::layout::{MAGIC, RawHeader, SECTOR, VERSION};
use crate::limits;

/// The geometry that is told: so many heads, and so many sectors in a cylinder.
const HEADS: u32 = 16;
const CYLINDER: u64 = 512;

/// The options of creation: qemu-img's.
pub(crate) const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "cluster_size",
    help: "bytes of a cluster, a power of two from 512 to 64M (1M if not given)",
    kind: OptionKind::Size,
    default: Some("1048576"),
}];

/// What the options ask for, checked against each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    size: u64,
    cluster: u64,
}

impl Plan {
    /// For a disk of `size` bytes, which is rounded up to whole sectors.
    ///
    /// # Errors
    /// `Option` for what cannot be, `Limit` for a disk that is too large.
    pub(crate) fn of(options: &Options, size: u64) -> Result<Self> {
        let given = options.number("cluster_size").unwrap_or_default();
        // Rounded up as qemu does. Images with other clusters qemu damages when it writes.
        let cluster = given.checked_next_multiple_of(SECTOR).unwrap_or(0);
        if !cluster.is_power_of_two() || cluster > limits::MADE_CLUSTER {
            return Err(options.refuse("cluster_size", "a power of two from 512 to 64M"));
        }
        limit("size of the disk in bytes", size, limits::DISK)?;
        let plan = Self { size: size.next_multiple_of(SECTOR), cluster };
        limit("number of clusters", plan.clusters(), limits::ENTRIES)?;
        Ok(plan)
    }

    pub(crate) fn clusters(&self) -> u64 {
        self.size.div_ceil(self.cluster)
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Where the first cluster is.
    pub(crate) fn first(&self) -> HostOffset {
        usual_first(Kind::Extended, self.cluster, self.clusters())
    }

    fn header(&self) -> RawHeader {
        let mut header = RawHeader::new_zeroed();
        header.magic = MAGIC;
        header.version = VERSION.into();
        header.heads = HEADS.into();
        header.cylinders = cylinders(self.size).into();
        header.tracks = narrow(self.cluster / SECTOR).into();
        header.nb_bat_entries = narrow(self.clusters()).into();
        header.nb_sectors = (self.size / SECTOR).into();
        header.data_off = narrow(self.first().get() / SECTOR).into();
        header
    }
}

/// The cylinders of a disk of `size` bytes; of a very large one what is left in the field.
pub(crate) fn cylinders(size: u64) -> u32 {
    let [a, b, c, d, ..] = (size / SECTOR / CYLINDER).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Creates an image in an empty store.
///
/// # Errors
/// Those of [`Plan::of`] and of the store; `Unsupported` over another image.
pub(crate) fn create(request: &CreateRequest<'_>) -> Result<Arc<dyn Image>> {
    let plan = Plan::of(request.options, request.size)?;
    if request.backing.is_some() {
        return Err(unsupported("an image over another one"));
    }
    // What was never written is zero: the table is all of zeroes.
    request.store.set_len(plan.first().get())?;
    request.store.write_at(HostOffset::ZERO, plan.header().as_bytes())?;
    let mut open = OpenRequest::new(Arc::clone(&request.store), request.location, request.limits);
    open.access = Access::ReadWrite;
    open.resolver = &NoReferences;
    Ok(Arc::new(ParallelsImage::open_new(&open)?))
}
