//! From names to open volumes: volumes on volumes, with cycles and depth in one place.

use std::collections::HashMap;
use std::sync::Arc;

use anydisk_core::{
    Error, HostOffset, Limits, MappedStorage, Mapping, Result, Storage, StorageExt, Value,
};

use crate::group::{Group, Volume};
use crate::place::whole;
use crate::plain::{Failing, Linear, Part, Row, Striped, Zero};
use crate::raid::array::Array;
use crate::raid::layout::Level;
use crate::raid::mirror::{Mirror, Sync};
use crate::raid::superblock::{self, Trust};
use crate::segment::{Area, Kind, Raid, Segment};
use crate::text::invalid;
use crate::thin::Pool;
use crate::{NAME, limits, segment};

/// What was found of a physical volume.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Missing,
    Here(Arc<dyn Storage>),
    /// Two stores carry its identity: a copy, and nobody knows which.
    Twice,
}

/// What a volume below another one may be. Without these rules a few hundred bytes of text could
/// ask for any amount of work in one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Anything.
    Data,
    /// Tables and logs that other volumes are found with: plain or an array.
    Table,
    /// A leg of a mirror or an image of an array: plain.
    Leg,
}

impl Role {
    /// Whether a segment of this kind may play the role.
    fn allows(self, kind: &Kind) -> bool {
        match kind {
            Kind::Striped { .. } | Kind::Mirror(_) | Kind::Zero | Kind::Error => true,
            Kind::Raid(_) => self != Self::Leg,
            // Refused by its name further on.
            Kind::Refused(_) => true,
            _ => self == Self::Data,
        }
    }
}

/// Whether a volume is what its user sees (a snapshot, say) or what its own segments hold (the
/// snapshot's store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    User,
    Raw,
}

/// Opens the volumes of one group.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) group: &'a Group,
    pub(crate) devices: &'a [Found],
    pub(crate) limits: &'a Limits,
    pub(crate) pools: HashMap<String, Arc<Pool>>,
    /// What was opened already, or could not be (`None`): work is in proportion to the text.
    built: HashMap<Key, Option<Arc<dyn Storage>>>,
    under_way: Vec<Key>,
}

type Key = (String, View, Role);

impl<'a> Builder<'a> {
    pub(crate) fn new(group: &'a Group, devices: &'a [Found], limits: &'a Limits) -> Self {
        Self {
            group,
            devices,
            limits,
            pools: HashMap::new(),
            built: HashMap::new(),
            under_way: Vec::new(),
        }
    }

    /// Opens the volume of this name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for what breaks the format, [`Error::Unsupported`]
    /// for a type that is not read, [`Error::Unusable`] where a physical volume is missing.
    pub(crate) fn open(&mut self, name: &str) -> Result<Arc<dyn Storage>> {
        self.volume(name, View::User, Role::Data)
    }

    pub(crate) fn volume(
        &mut self,
        name: &str,
        view: View,
        role: Role,
    ) -> Result<Arc<dyn Storage>> {
        let key = (name.to_owned(), view, role);
        match self.built.get(&key) {
            Some(Some(store)) => return Ok(Arc::clone(store)),
            Some(None) => return Err(unusable(name, "it could not be opened before")),
            None => {}
        }
        if self.under_way.contains(&key) {
            let found = Value::from(name.as_bytes());
            return Err(invalid("logical volume", 0, found, "not to lie on itself").into());
        }
        limits::check("volumes below each other", self.under_way.len() as u64 + 1, NESTING)?;
        self.under_way.push(key.clone());
        let outcome = self.build(name, view, role);
        self.under_way.pop();
        self.built.insert(key, outcome.as_ref().ok().cloned());
        outcome
    }

    fn build(&mut self, name: &str, view: View, role: Role) -> Result<Arc<dyn Storage>> {
        let relations = &self.group.relations;
        if view == View::User {
            let snapshot = relations.snapshots.get(name).or_else(|| relations.merging.get(name));
            if let Some(snapshot) = snapshot {
                return self.snapshot(name, snapshot);
            }
            if let Some(merging) = relations.thin_merging.get(name) {
                return self.volume(merging, View::Raw, role);
            }
        }
        self.segments(name, role)
    }

    fn segments(&mut self, name: &str, role: Role) -> Result<Arc<dyn Storage>> {
        let group = self.group;
        let volume = group.volume(name).ok_or_else(|| not_found(name))?;
        let segments = volume.segments.as_deref().map_err(Clone::clone)?;
        let parts = segments.iter().map(|segment| {
            let mapping = self.segment(volume, segment, role)?;
            Ok((segment.start, mapping))
        });
        let mut parts = parts.collect::<Result<Vec<_>>>()?;
        let mapping = match parts.len() {
            1 => parts.remove(0).1,
            _ => Box::new(Row { parts }),
        };
        Ok(self.opened(name, volume.size().unwrap_or(0), mapping))
    }

    pub(crate) fn opened(
        &self,
        name: &str,
        size: u64,
        mapping: Box<dyn Mapping>,
    ) -> Arc<dyn Storage> {
        Arc::new(MappedStorage::new(format!("{}/{name}", self.group.name), size, mapping))
    }

    fn segment(
        &mut self,
        volume: &Volume,
        segment: &Segment,
        role: Role,
    ) -> Result<Box<dyn Mapping>> {
        let kind = segment.kind.as_ref().map_err(Clone::clone)?;
        if !role.allows(kind) {
            let (found, expected) = (Value::from(segment.type_name.as_bytes()), "a simpler type");
            return Err(invalid("type of a hidden volume", 0, found, expected).into());
        }
        Ok(match kind {
            Kind::Striped { chunk, areas } => self.striped(segment, *chunk, areas, role)?,
            Kind::Mirror(mirror) => Box::new(self.mirror(volume, segment, mirror)?),
            Kind::Raid(raid) => Box::new(self.raid(volume, segment, raid)?),
            Kind::Error if role == Role::Leg => {
                return Err(unusable(&volume.name, "its segment is of type error"));
            }
            Kind::Thin(thin) => Box::new(self.thin(volume, thin)?),
            Kind::Cached { pool, origin, volume } => {
                self.cached(segment.len, pool, origin, volume.as_ref())?
            }
            Kind::WriteCached { cache, origin } => {
                Box::new(self.write_cached(segment.len, cache, origin)?)
            }
            Kind::Snapshot(_) | Kind::ThinPool(_) | Kind::CachePool { .. } => {
                return Err(unusable(&volume.name, "it has no content of its own"));
            }
            Kind::Zero => Box::new(Zero),
            Kind::Error => {
                let why = "it has a segment of type error, which cannot be read";
                Box::new(Failing { volume: volume.name.clone(), why })
            }
            Kind::Refused(feature) => {
                return Err(Error::Unsupported { format: NAME, feature: feature.clone().into() });
            }
        })
    }

    fn striped(
        &mut self,
        segment: &Segment,
        chunk: u64,
        areas: &[Area],
        role: Role,
    ) -> Result<Box<dyn Mapping>> {
        let len = segment.len / (areas.len() as u64).max(1);
        if !len.is_multiple_of(chunk) {
            let expected = format!("a divisor of the {len} bytes of an area");
            return Err(invalid("stripe_size", 0, chunk.into(), expected).into());
        }
        let parts: Result<Vec<Part>> =
            areas.iter().map(|area| self.part(area, len, role)).collect();
        Ok(match <[Part; 1]>::try_from(parts?) {
            Ok([part]) => Box::new(Linear(part)),
            Err(parts) => Box::new(Striped { chunk, parts }),
        })
    }

    fn mirror(
        &mut self,
        volume: &Volume,
        segment: &Segment,
        mirror: &segment::Mirror,
    ) -> Result<Mirror> {
        let mut gone = Vec::new();
        let parts = legs_in_use(mirror, segment.len).iter().map(|leg| {
            let part = self.part(leg, segment.len, Role::Leg);
            or_gone(part, &mut gone)
        });
        let legs = parts.collect::<Result<Vec<_>>>()?;
        let sync = match &mirror.log {
            // Only the first leg is read, so the log is of no interest.
            _ if legs.first().is_some_and(Option::is_some) => Sync::Everywhere,
            _ if volume.has_status("NOTSYNCED") => Sync::Nowhere,
            // What is in sync was known to the kernel alone.
            None => Sync::Nowhere,
            Some((log, region)) => {
                let log = or_gone(self.volume(log, View::Raw, Role::Table), &mut gone)?;
                let limit = self.limits.table_cache as u64;
                match log {
                    Some(log) => Sync::from_log(&*log, *region, segment.len, limit)?,
                    None => Sync::Nowhere,
                }
            }
        };
        Ok(Mirror { name: volume.name.clone(), legs, sync, gone: gone.join(", ") })
    }

    fn raid(&mut self, volume: &Volume, segment: &Segment, raid: &Raid) -> Result<Array> {
        let needed = image_len(segment, raid)?;
        let mut gone = Vec::new();
        let (mut images, mut blocks) = (Vec::new(), Vec::new());
        for (image, meta) in &raid.images {
            let block = match meta {
                Some(meta) => or_gone(self.superblock(meta), &mut gone)?,
                None => None,
            };
            let part = or_gone(self.image(image, needed), &mut gone)?;
            // An image whose superblock cannot be read is not believed.
            images.push(part.filter(|_| meta.is_none() || block.is_some()));
            blocks.push(block);
        }
        let trust = match raid.images.iter().any(|(_, meta)| meta.is_some()) {
            true => Trust::from_superblocks(&blocks, raid.level)?,
            false => Trust::in_all(images.iter().map(Option::is_some)),
        };
        let (level, chunk) = (raid.level, raid.chunk);
        let (name, gone) = (volume.name.clone(), gone.join(", "));
        let array = Array { name, level, chunk, images, trust, gone }.without_stale_images();
        array.check()?;
        Ok(array)
    }

    fn superblock(&mut self, meta: &str) -> Result<[u8; superblock::LEN]> {
        let store = self.volume(meta, View::Raw, Role::Leg)?;
        let mut block = [0; superblock::LEN];
        store.read_exact_at(HostOffset::ZERO, &mut block)?;
        Ok(block)
    }

    /// An image of an array, of at least `len` bytes.
    fn image(&mut self, name: &str, len: u64) -> Result<Part> {
        if self.group.volume(name).is_some_and(|volume| volume.has_status("REBUILD")) {
            return Err(unusable(name, "it is to be filled anew"));
        }
        let store = self.volume(name, View::Raw, Role::Leg)?;
        whole(&store, name, len)
    }
}

/// The legs that are read, the one that all others are filled from first. Once all is moved LVM
/// writes to the destination alone: the source grows old.
fn legs_in_use(mirror: &segment::Mirror, len: u64) -> &[Area] {
    match mirror.legs.get(1..2) {
        Some(destination) if mirror.moved == Some(len) => destination,
        _ => &mirror.legs,
    }
}

/// Bytes that each image of an array must have for a segment.
fn image_len(segment: &Segment, raid: &Raid) -> Result<u64> {
    let wrong = |expected: String| invalid("array", 0, segment.len.into(), expected);
    if segment.start != 0 {
        return Err(wrong("an array in one segment".to_owned()).into());
    }
    let (count, chunk) = (raid.images.len() as u64, raid.chunk);
    let len = match raid.level {
        Level::Mirror => Some(segment.len),
        Level::Near(copies) => segment
            .len
            .div_ceil(chunk)
            .checked_mul(copies)
            .and_then(|chunks| chunks.div_ceil(count).checked_mul(chunk)),
        level => {
            let data = level.data_images(count).unwrap_or(1);
            (segment.len / data)
                .is_multiple_of(chunk)
                .then_some(segment.len / data)
                .filter(|_| segment.len.is_multiple_of(data))
        }
    };
    len.ok_or_else(|| wrong(format!("whole rows of {count} images with chunks of {chunk}")).into())
}

/// A part that another one may stand in for: what cannot be had is `None`, and told in `gone`.
fn or_gone<T>(part: Result<T>, gone: &mut Vec<String>) -> Result<Option<T>> {
    match part {
        Ok(part) => Ok(Some(part)),
        Err(error @ (Error::Unusable { .. } | Error::Invalid(_))) => {
            gone.push(error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

const NESTING: u64 = limits::NESTING as u64;

pub(crate) fn unusable(name: &str, why: &'static str) -> Error {
    Error::Unusable { what: "logical volume", name: name.to_owned(), why: why.into() }
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::NotFound { what: "logical volume", name: name.to_owned() }
}
