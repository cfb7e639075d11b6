//! The image that all files of a bundle are together.

use std::collections::HashMap;
use std::sync::Arc;

use anydisk_core::{
    Access, Claims, Detail, DetailValue, Error, Extent, GuestOffset, GuestRange, HostOffset, Image,
    ImageInfo, ImageWrite, Lease, Located, Lookup, MissingStorage, Need, NoReferences, OpenRequest,
    Result, Snapshots, Source, Storage, Supplied, Uuid, Value,
};

use super::descriptor::{Descriptor, FileKind, FileOf, PartFiles};
use super::{names, read, reference};
use crate::NAME;
use crate::guard::read_only;
use crate::header::unsupported;
use crate::image::ParallelsImage;
use crate::layout::SECTOR;

/// A bundle, in its present state or an earlier one.
#[derive(Debug)]
pub struct ParallelsBundle {
    pub(super) files: Arc<Files>,
    /// The state: 0 is the present one, others are further back in the chain.
    pub(super) depth: usize,
}

/// The files of a bundle.
#[derive(Debug)]
pub(super) struct Files {
    /// Bytes of the disk.
    size: u64,
    /// In the order of the disk, without gaps.
    pub(super) parts: Vec<Part>,
    /// The states, from the present one down to the first.
    pub(super) chain: Vec<Uuid>,
    /// What people call them.
    pub(super) names: HashMap<Uuid, String>,
    /// Which file a store is, by its address: part and state.
    by_store: HashMap<usize, (usize, usize)>,
    writable: bool,
    /// Units of the disk that somebody is writing.
    pub(super) claims: Claims,
}

/// A part of the disk.
#[derive(Debug)]
pub(super) struct Part {
    range: GuestRange,
    /// Its states, as the chain has them.
    states: Vec<State>,
}

/// What one file says of a part of the disk.
#[derive(Debug)]
pub(super) struct State {
    /// Where it was found.
    pub(super) name: String,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Expandable(Box<ParallelsImage>),
    /// All of the part, byte by byte.
    Plain(Arc<dyn Storage>),
}

impl ParallelsBundle {
    /// Opens the bundle whose descriptor the request names, with the files that the present state is
    /// made of. To be written, those are opened for writing that hold the present state; the others are
    /// read.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Unsupported`] and [`Error::Limit`] for what the descriptor and the
    /// files say, [`Error::Denied`] for files that the resolver does not open, [`Error::ReadOnly`] for
    /// writing.
    pub fn open(request: &OpenRequest<'_>) -> Result<Self> {
        let Descriptor { size, parts, chain } = read(request)?;
        let (writable, claims) = (request.is_writable()?, Claims::default());
        let parts =
            parts.iter().map(|part| open_part(part, request)).collect::<Result<Vec<_>>>()?;
        let mut by_store = HashMap::new();
        for (number, part) in parts.iter().enumerate() {
            for (depth, state) in part.states.iter().enumerate() {
                if by_store.insert(address(state.body.store()), (number, depth)).is_some() {
                    return Err(unsupported("one file for two parts of a bundle"));
                }
            }
        }
        // Nobody calls the only state by a name.
        let names = if chain.len() > 1 { names::find(request) } else { HashMap::new() };
        let files = Files { size, parts, chain, names, by_store, writable, claims };
        Ok(Self { files: Arc::new(files), depth: 0 })
    }

    /// Whether it is the present state, opened for writing.
    pub(super) fn is_written(&self) -> bool {
        self.files.writable && self.depth == 0
    }
}

impl Files {
    /// The part that the start of a range lies in.
    pub(super) fn part_at(&self, range: GuestRange) -> Result<&Part> {
        let index = self.parts.partition_point(|part| part.range.end() <= range.start());
        self.parts.get(index).ok_or(Error::OutOfRange { range, size: self.size })
    }
}

impl Part {
    /// The file of the present state.
    pub(super) fn present(&self) -> Result<&State> {
        self.states.first().ok_or_else(|| unsupported("a bundle without a state"))
    }

    pub(super) fn has_states_before(&self) -> bool {
        self.states.len() > 1
    }

    /// The start of a range of the disk that is in the part, counted from its own start.
    pub(super) fn inside(&self, range: GuestRange) -> GuestRange {
        let range = range.before(self.range.end());
        let own = |at: GuestOffset| GuestOffset(at.get() - self.range.start().get());
        GuestRange::between(own(range.start()), own(range.end()))
    }

    /// A range of the part, counted from the start of the disk.
    pub(super) fn outside(&self, range: GuestRange) -> GuestRange {
        let all = |at: GuestOffset| GuestOffset(at.get() + self.range.start().get());
        GuestRange::between(all(range.start()), all(range.end()))
    }
}

/// What tells one store from the others as long as it lives.
fn address(store: &Arc<dyn Storage>) -> usize {
    Arc::as_ptr(store).cast::<()>().addr()
}

fn open_part(part: &PartFiles, request: &OpenRequest<'_>) -> Result<Part> {
    let range = GuestRange::between(GuestOffset(part.start), GuestOffset(part.end));
    let open = |(depth, file)| open_state(file, range.len(), depth == 0, request);
    let states = part.files.iter().enumerate().map(open).collect::<Result<_>>()?;
    Ok(Part { range, states })
}

/// Opens a file by the resolver. The present state is as long as its part, or longer where it is only
/// read; one before may have been shorter.
fn open_state(
    file: &FileOf,
    len: u64,
    is_present: bool,
    request: &OpenRequest<'_>,
) -> Result<State> {
    let access = if is_present { request.access } else { Access::Read };
    let located = request.part([reference(file)], access)?;
    let own = request.store.identity();
    if own.is_some() && located.store.identity() == own {
        return Err(reference(file).denied("it is the descriptor itself"));
    }
    let name = located.location.to_string();
    let body = match file.kind {
        FileKind::Plain => Body::Plain(located.store),
        FileKind::Expandable => expandable(&located, access, request)?,
    };
    if is_present {
        check_size(&body, len, access).map_err(|error| error.within(&name))?;
    }
    Ok(State { name, body })
}

/// Whether the present state of a part of `len` bytes can be in a file.
fn check_size(body: &Body, len: u64, access: Access) -> Result<()> {
    let size = body.size()?;
    if size < len {
        let found = Value::Number(size / SECTOR);
        let (field, at) = ("sectors of the file".into(), HostOffset(36));
        let expected = format!("at least the {} of its part", len / SECTOR).into();
        let invalid = anydisk_core::Invalid { format: NAME, field, at, found, expected };
        return Err(invalid.into());
    }
    // The last cluster would go on behind the part.
    match body {
        Body::Expandable(_) if size > len && access == Access::ReadWrite => {
            Err(read_only("it is longer than its part of the disk"))
        }
        _ => Ok(()),
    }
}

/// The image in a file; what cannot be read, where that is borne.
fn expandable(file: &Located, access: Access, request: &OpenRequest<'_>) -> Result<Body> {
    let name = file.location.to_string();
    let alone = OpenRequest {
        store: Arc::clone(&file.store),
        location: &file.location,
        resolver: &NoReferences,
        access,
        ..request.clone()
    };
    match ParallelsImage::open(&alone) {
        Ok(image) => Ok(Body::Expandable(Box::new(image))),
        Err(why) if request.resolver.bears_loss() => {
            Ok(Body::Plain(Arc::new(MissingStorage::new(name, &why))))
        }
        Err(why) => Err(why.within(&name)),
    }
}

impl Body {
    pub(super) fn store(&self) -> &Arc<dyn Storage> {
        match self {
            Self::Expandable(image) => image.table.store(),
            Self::Plain(store) => store,
        }
    }

    /// Bytes of the disk that it speaks of.
    fn size(&self) -> Result<u64> {
        match self {
            Self::Expandable(image) => Ok(image.size()),
            // The last sector may be cut.
            Self::Plain(store) => Ok(store.len()?.next_multiple_of(SECTOR)),
        }
    }

    /// What it says of the start of a range of the part; behind its end nothing.
    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        match self {
            Self::Plain(store) => {
                let at = HostOffset(range.start().get());
                let source = Source::Data { store, at, shared: false };
                Ok(Lookup::Found(Extent { len: range.len(), source, lease: Lease::eternal() }))
            }
            Self::Expandable(image) => match range.before(GuestOffset(image.size())) {
                rest if rest.is_empty() => Ok(absent(range.len())),
                rest => image.map_cached(rest),
            },
        }
    }
}

fn absent<'a>(len: u64) -> Lookup<'a> {
    Lookup::Found(Extent::without_data(len, Source::Absent { reserved: None }))
}

impl Image for ParallelsBundle {
    fn size(&self) -> u64 {
        self.files.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let part = self.files.part_at(range)?;
        let mut rest = part.inside(range);
        for state in part.states.iter().skip(self.depth) {
            match state.body.map_cached(rest).map_err(|error| error.within(&state.name))? {
                Lookup::Found(Extent { len, source: Source::Absent { .. }, .. }) => {
                    rest = rest.first(len);
                }
                answer => return Ok(answer),
            }
        }
        Ok(absent(rest.len()))
    }

    fn supply(&self, need: &Need<'_>, bytes: &[u8]) -> Result<Supplied> {
        let place = self.files.by_store.get(&address(need.store));
        let state = place.and_then(|(part, depth)| self.files.parts.get(*part)?.states.get(*depth));
        match state.map(|state| &state.body) {
            Some(Body::Expandable(image)) => image.supply(need, bytes),
            _ => Ok(Supplied::Taken),
        }
    }

    fn info(&self) -> ImageInfo {
        let mut info = ImageInfo::new(NAME);
        let states =
            || self.files.parts.iter().flat_map(|part| part.states.iter().skip(self.depth));
        let cluster = |state: &State| match &state.body {
            Body::Expandable(image) => image.info().cluster_size,
            Body::Plain(_) => None,
        };
        info.cluster_size = states().filter_map(cluster).max();
        info.dirty = states().any(|state| match &state.body {
            Body::Expandable(image) => image.state.is_open(),
            Body::Plain(_) => false,
        });
        let extents =
            self.files.parts.iter().flat_map(|part| {
                part.states.iter().skip(self.depth).map(|state| extent(part, state))
            });
        info.details = vec![
            Detail { name: "states", value: DetailValue::Number(self.states() as u64) },
            Detail { name: "extents", value: DetailValue::List(extents.collect()) },
        ];
        info
    }

    fn writer(&self) -> Option<&dyn ImageWrite> {
        self.is_written().then_some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
}

impl ParallelsBundle {
    /// States from this one down to the first.
    fn states(&self) -> usize {
        self.files.chain.len().saturating_sub(self.depth)
    }
}

fn extent(part: &Part, state: &State) -> DetailValue {
    let kind = match &state.body {
        Body::Expandable(_) => "Compressed",
        Body::Plain(_) => "Plain",
    };
    DetailValue::Map(vec![
        Detail { name: "virtual-size", value: DetailValue::Number(part.range.len()) },
        Detail { name: "filename", value: DetailValue::Text(state.name.clone()) },
        Detail { name: "format", value: DetailValue::Text(kind.to_owned()) },
    ])
}
