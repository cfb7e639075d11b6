//! A disk, and what a client is told of it.

use std::sync::Arc;

use anydisk_core::{Disk, DiskExtent, Error, Feature, GuestOffset, GuestRange, Result, Source};

use crate::layout::{can, state};

/// The most bytes of one request.
pub(crate) const MOST: u32 = 32 << 20;

/// A disk that clients are offered.
#[derive(Clone, Debug)]
#[must_use]
pub struct Export {
    disk: Arc<Disk>,
    pub(crate) name: String,
    pub(crate) description: String,
    is_writable: bool,
    contexts: Vec<Context>,
}

/// What a client may ask of each run of a disk: a metadata context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// `base:allocation`
    Allocation,
    /// `qemu:allocation-depth`
    Depth,
    /// `qemu:dirty-bitmap:` and this name
    Bitmap(String),
}

impl Context {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Allocation => "base:allocation".into(),
            Self::Depth => "qemu:allocation-depth".into(),
            Self::Bitmap(name) => format!("qemu:dirty-bitmap:{name}"),
        }
    }
}

impl Export {
    /// A disk under a name, which clients ask for; the empty one is what they get who name none. It
    /// can be written if the disk can.
    pub fn new(disk: Arc<Disk>, name: impl Into<String>) -> Self {
        let is_writable = disk.is_writable();
        let (name, contexts) = (name.into(), vec![Context::Allocation]);
        Self { disk, name, description: String::new(), is_writable, contexts }
    }

    /// The same, only read.
    pub fn read_only(self) -> Self {
        Self { is_writable: false, ..self }
    }

    /// The same with a text for people.
    pub fn described(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    /// The same, and clients are told which image of the chain each run comes from, as
    /// `qemu:allocation-depth`: 0 none, 1 the top one.
    pub fn with_depth(mut self) -> Self {
        self.contexts.push(Context::Depth);
        self
    }

    /// The same, and clients are told what a dirty bitmap has recorded, as
    /// `qemu:dirty-bitmap:NAME`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unusable`] for an inconsistent one, [`Error::Unsupported`] where
    /// the format has no bitmaps.
    pub fn with_bitmap(mut self, name: &str) -> Result<Self> {
        let bitmaps = self.disk.top().bitmaps().ok_or_else(|| self.no_bitmaps())?;
        bitmaps.changes(name)?;
        self.contexts.push(Context::Bitmap(name.to_owned()));
        Ok(self)
    }

    fn no_bitmaps(&self) -> Error {
        Error::Unsupported { format: self.disk.top().info().format, feature: Feature::Bitmaps }
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// What can be asked of it, the number of each being its place.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = (u32, &Context)> {
        (0..).zip(&self.contexts)
    }

    /// The transmission flags.
    pub(crate) fn flags(&self, structured: bool) -> u16 {
        let changes = match self.is_writable {
            true => can::SEND_TRIM | can::SEND_WRITE_ZEROES,
            false => can::READ_ONLY,
        };
        let whole = if structured { can::SEND_DF } else { 0 };
        // One disk stands behind all connections: what one wrote all see, and a flush is of all.
        let always = can::HAS_FLAGS | can::SEND_FLUSH | can::SEND_FUA | can::CAN_MULTI_CONN;
        always | changes | whole
    }

    /// Bytes that are best asked for at once.
    pub(crate) fn preferred(&self) -> u32 {
        let unit = self.disk.top().info().cluster_size.unwrap_or(0).clamp(4096, MOST.into());
        u32::try_from(unit).unwrap_or(MOST).next_power_of_two()
    }

    /// What the context says of the start of a range, and of how many bytes.
    pub(crate) fn status(&self, context: &Context, range: GuestRange) -> Result<(u64, u32)> {
        match context {
            Context::Allocation => {
                let found = self.disk.status(range)?;
                Ok((found.extent.len, allocation(&found)))
            }
            Context::Depth => {
                let found = self.disk.map(range)?;
                Ok((found.extent.len, depth(&found)))
            }
            Context::Bitmap(name) => {
                let bitmaps = self.disk.top().bitmaps().ok_or_else(|| self.no_bitmaps())?;
                let next = bitmaps.changes(name)?.next(range.start())?;
                let start = next.map_or(range.end(), |next| next.start());
                if start > range.start() {
                    return Ok((
                        GuestRange::between(range.start(), start).len().min(range.len()),
                        0,
                    ));
                }
                Ok((next.map_or(0, |next| next.len().min(range.len())), 1))
            }
        }
    }

    /// Whether the tables tell that the start of a range is zero, and of how many bytes they speak.
    pub(crate) fn zero_run(&self, range: GuestRange) -> Result<(u64, bool)> {
        let found = self.disk.map(range)?;
        let zero = matches!(found.extent.source, Source::Zero { .. } | Source::Absent { .. });
        Ok((found.extent.len, zero))
    }

    /// The range of a request, if it lies on the disk.
    pub(crate) fn range(&self, offset: u64, length: u32) -> Option<GuestRange> {
        let range = GuestRange::new(GuestOffset(offset), length.into())?;
        (range.end().get() <= self.disk.size()).then_some(range)
    }
}

/// What is known to be zero takes no space where a client keeps it, whatever it takes here.
fn allocation(found: &DiskExtent<'_>) -> u32 {
    match found.extent.source {
        Source::Zero { .. } | Source::Absent { .. } => state::ZERO | state::HOLE,
        _ => 0,
    }
}

fn depth(found: &DiskExtent<'_>) -> u32 {
    match found.extent.source {
        Source::Absent { .. } => 0,
        _ => u32::try_from(found.layer + 1).unwrap_or(u32::MAX),
    }
}
