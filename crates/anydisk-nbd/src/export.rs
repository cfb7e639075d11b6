//! A disk, and what a client is told of it.

use std::sync::Arc;

use anydisk_core::{
    Changes, Disk, DiskExtent, Error, Feature, GuestOffset, GuestRange, Result, Source,
};

use crate::layout::{RawExtent, can, state};

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
    is_shared: bool,
    durability: Durability,
    contexts: Vec<Context>,
}

/// When what a client writes is on stable storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When it asks for it, by a flush or with a request.
    #[default]
    OnFlush,
    /// When it is answered.
    Always,
    /// Nobody knows: what it asks for is not done.
    Never,
}

/// What a client may ask of each run of a disk: a metadata context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// `base:allocation`
    Allocation,
    /// `qemu:allocation-depth`
    Depth,
    /// `qemu:dirty-bitmap:` and this name; the layer of the disk that has it
    Bitmap(String, usize),
}

impl Context {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Allocation => "base:allocation".into(),
            Self::Depth => "qemu:allocation-depth".into(),
            Self::Bitmap(name, _) => format!("qemu:dirty-bitmap:{name}"),
        }
    }
}

impl Export {
    /// A disk under a name, which clients ask for; the empty one is what they get who name none. It
    /// can be written if the disk can.
    pub fn new(disk: Arc<Disk>, name: impl Into<String>) -> Self {
        let is_writable = disk.is_writable();
        Self {
            disk,
            name: name.into(),
            description: String::new(),
            is_writable,
            is_shared: true,
            durability: Durability::default(),
            contexts: vec![Context::Allocation],
        }
    }

    /// The same, only read.
    pub fn read_only(self) -> Self {
        Self { is_writable: false, ..self }
    }

    /// The same for one connection at a time: clients are not told that they may open several.
    pub fn for_one_client(self) -> Self {
        Self { is_shared: false, ..self }
    }

    /// The same, with what is written durable at other times than when a client asks for it.
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
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
    /// `qemu:dirty-bitmap:NAME`. Of several images of the chain that have one of this name, the
    /// topmost is asked.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unusable`] for an inconsistent one, [`Error::Unsupported`] where
    /// no image has bitmaps.
    pub fn with_bitmap(mut self, name: &str) -> Result<Self> {
        let layers = 0..self.disk.layers().len();
        let mut answers = layers.map(|layer| (layer, self.changes(name, layer).map(drop)));
        let good = answers.clone().find(|(_, answer)| !is_missing(answer));
        let Some((layer, answer)) = good.or_else(|| answers.next()) else { return Ok(self) };
        answer?;
        let context = Context::Bitmap(name.to_owned(), layer);
        if !self.contexts.contains(&context) {
            self.contexts.push(context);
        }
        Ok(self)
    }

    fn changes(&self, name: &str, layer: usize) -> Result<Box<dyn Changes + '_>> {
        let image = self.disk.layers().get(layer).map_or(self.disk.top(), |layer| &*layer.image);
        let no_bitmaps =
            || Error::Unsupported { format: image.info().format, feature: Feature::Bitmaps };
        image.bitmaps().ok_or_else(no_bitmaps)?.changes(name)
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// What can be asked of it, the number of each being its place.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = (u32, &Context)> {
        (0..).zip(&self.contexts)
    }

    /// The transmission flags.
    pub(crate) fn flags(&self, structured: bool) -> u16 {
        let changes = match self.is_writable {
            true => can::SEND_TRIM | can::SEND_WRITE_ZEROES | can::SEND_FAST_ZERO,
            false => can::READ_ONLY,
        };
        let whole = if structured { can::SEND_DF } else { 0 };
        // One disk stands behind all connections: what one wrote all see, and a flush is of all.
        let several = if self.is_shared { can::CAN_MULTI_CONN } else { 0 };
        let always = can::HAS_FLAGS | can::SEND_FLUSH | can::SEND_FUA | can::SEND_CACHE;
        always | several | changes | whole
    }

    /// Bytes that are best asked for at once.
    pub(crate) fn preferred(&self) -> u32 {
        let unit = self.disk.top().info().cluster_size.unwrap_or(0).clamp(4096, MOST.into());
        u32::try_from(unit).unwrap_or(MOST).next_power_of_two()
    }

    /// What the context says of a range, run by run, each as long as it can be; `most` at most.
    pub(crate) fn runs(
        &self,
        context: &Context,
        range: GuestRange,
        most: usize,
    ) -> Result<Vec<RawExtent>> {
        match context {
            Context::Allocation => runs(range, most, |rest| {
                let found = self.disk.status(rest)?;
                Ok((found.extent.len, allocation(&found)))
            }),
            Context::Depth => runs(range, most, |rest| {
                let found = self.disk.map(rest)?;
                Ok((found.extent.len, depth(&found)))
            }),
            Context::Bitmap(name, layer) => {
                let mut changes = self.changes(name, *layer)?;
                runs(range, most, |rest| {
                    // An image below may be shorter.
                    let next = changes.next(rest.start())?.map(|next| next.before(rest.end()));
                    Ok(match next.filter(|next| !next.is_empty()) {
                        None => (rest.len(), 0),
                        Some(next) if next.start() > rest.start() => {
                            (GuestRange::between(rest.start(), next.start()).len(), 0)
                        }
                        Some(next) => (next.len(), 1),
                    })
                })
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

/// The runs of a range, of which `look` tells the length and status of the first.
fn runs(
    range: GuestRange,
    most: usize,
    mut look: impl FnMut(GuestRange) -> Result<(u64, u32)>,
) -> Result<Vec<RawExtent>> {
    let mut runs: Vec<RawExtent> = Vec::new();
    let mut rest = range;
    while !rest.is_empty() {
        let (len, status) = look(rest)?;
        let len = u32::try_from(rest.first(len).len()).unwrap_or_default();
        let count = runs.len();
        match runs.last_mut().filter(|last| last.status == status) {
            Some(last) => last.length = (last.length.get() + len).into(),
            None if count == most => break,
            None => runs.push(RawExtent { length: len.into(), status: status.into() }),
        }
        rest = rest.skip(len.into());
    }
    Ok(runs)
}

fn is_missing(answer: &Result<()>) -> bool {
    let kind = answer.as_ref().err().map(Error::kind);
    matches!(kind, Some(Error::NotFound { .. } | Error::Unsupported { .. }))
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
