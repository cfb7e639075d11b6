//! Opening the volumes that lie over others: snapshots, thin volumes, cached ones; and what changed
//! between two of them.

use std::sync::Arc;

use anydisk_core::{Changes, Error, HostOffset, Mapping, Result, Storage, Value};
use anydisk_storage::Window;

use crate::NAME;
use crate::build::{Builder, Role, View, not_found, unusable};
use crate::cache::{WriteCache, cached_chunks};
use crate::changes::{All, Copied, Remapped};
use crate::group::{Group, Volume};
use crate::overlay::Overlay;
use crate::place::whole;
use crate::plain::{Linear, Part};
use crate::segment::{Cache, CacheVolume, Kind, Snapshot, Thin, ThinPool};
use crate::snapshot::{Exceptions, State};
use crate::text::invalid;
use crate::{limits, thin};

impl Builder<'_> {
    /// The origin with a snapshot's chunks over it, for a reader of either. A snapshot that was lost
    /// before it was merged leaves the origin as it is, as with the kernel.
    pub(crate) fn snapshot(&mut self, name: &str, snapshot: &Snapshot) -> Result<Arc<dyn Storage>> {
        let origin = self.volume(&snapshot.origin, View::Raw, Role::Data)?;
        let store = self.volume(&snapshot.store, View::Raw, Role::Data)?;
        let size = origin.len()?;
        let Some(Exceptions { chunk, map }) = self.exceptions(snapshot, size)? else {
            return Ok(origin);
        };
        let (base, top) = (Part::whole(origin), Part::whole(store));
        Ok(self.opened(name, size, Box::new(Overlay { base, top, chunk, map })))
    }

    /// The chunks of a snapshot whose origin has `size` bytes; `None` for one that was lost before it
    /// was merged.
    fn exceptions(&mut self, snapshot: &Snapshot, size: u64) -> Result<Option<Exceptions>> {
        let store = self.volume(&snapshot.store, View::Raw, Role::Data)?;
        match Exceptions::read(&*store, size, snapshot.chunk, self.limits)? {
            None if !snapshot.merging => {
                let (name, why) = (snapshot.store.clone(), LOST.into());
                Err(Error::Unusable { what: "snapshot", name, why })
            }
            read => Ok(read),
        }
    }

    /// What should be known of a snapshot before it is read: that it was lost.
    pub(crate) fn snapshot_note(&mut self, snapshot: &Snapshot) -> Option<String> {
        let store = self.volume(&snapshot.store, View::Raw, Role::Data).ok()?;
        match State::read(&*store) {
            Ok(State::Lost) if snapshot.merging => {
                Some(format!("reads without {}, the snapshot to be merged: {LOST}", snapshot.store))
            }
            Ok(State::Lost) => Some(LOST.to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// What should be known of a thin volume before it is read: that its pool does not know it.
    pub(crate) fn thin_note(&mut self, volume: &Volume, thin: &Thin) -> Option<String> {
        let pool = self.pool(&thin.pool).ok()?;
        root_of(&pool, &volume.name, thin).err().map(|error| error.to_string())
    }

    /// A thin volume.
    pub(crate) fn thin(&mut self, volume: &Volume, thin: &Thin) -> Result<thin::Thin> {
        let pool = self.pool(&thin.pool)?;
        let root = root_of(&pool, &volume.name, thin)?;
        let external = match &thin.external {
            None => None,
            Some(name) => {
                let store = self.volume(name, View::User, Role::Data)?;
                let len = store.len()?;
                Some((Part::whole(store), len))
            }
        };
        Ok(thin::Thin { pool, root, external })
    }

    /// What should be known of a pool before its volumes are read: that it cannot be opened, or that
    /// text and metadata are not of one time. LVM would not use such a pool.
    pub(crate) fn pool_note(&mut self, name: &str, said: &ThinPool) -> Option<String> {
        let found = match self.pool(name) {
            Ok(pool) => pool.transaction,
            Err(error) => return Some(error.to_string()),
        };
        let under_way = if said.has_messages { ", a change was under way" } else { "" };
        let said = said.transaction.filter(|said| *said != found)?;
        Some(format!("its metadata is of transaction {found}, its text of {said}{under_way}"))
    }

    /// The pool of this name, opened once.
    ///
    /// # Errors
    /// [`Error::Unusable`] for one that LVM would not use either: its metadata is of another time.
    fn pool(&mut self, name: &str) -> Result<Arc<thin::Pool>> {
        if let Some(pool) = self.pools.get(name) {
            return Ok(Arc::clone(pool));
        }
        let volume = self.group.volume(name).ok_or_else(|| not_found(name))?;
        let Some(Kind::ThinPool(said)) = volume.only_kind() else {
            return Err(wrong_type(name, "a thin pool"));
        };
        let ThinPool { metadata, data, chunk, .. } = said;
        limits::check("chunk of a thin pool in bytes", *chunk, limits::CHUNK)?;
        let metadata = self.volume(metadata, View::Raw, Role::Table)?;
        let data = self.volume(data, View::Raw, Role::Data)?;
        let mut pool = thin::Pool::open(metadata, data, *chunk, self.limits)?;
        pool.creates = pending(name, said, pool.transaction)?.to_vec();
        let pool = Arc::new(pool);
        self.pools.insert(name.to_owned(), Arc::clone(&pool));
        Ok(pool)
    }

    /// A volume of `len` bytes with a cache.
    pub(crate) fn cached(
        &mut self,
        len: u64,
        pool: &str,
        origin: &str,
        volume: Option<&CacheVolume>,
    ) -> Result<Box<dyn Mapping>> {
        let store = self.volume(origin, View::Raw, Role::Data)?;
        let base = whole(&store, origin, len)?;
        let (cache, metadata, data) = match volume {
            Some(volume) => self.cache_volume(pool, volume)?,
            None => self.cache_pool(pool)?,
        };
        // What is in such a cache may be older than the origin.
        if cache.passthrough {
            return Ok(Box::new(Linear(base)));
        }
        limits::check("chunk of a cache in bytes", cache.chunk, limits::CHUNK)?;
        let map = cached_chunks(metadata, data.len()?, cache.chunk, self.limits)?;
        Ok(Box::new(Overlay { base, top: Part::whole(data), chunk: cache.chunk, map }))
    }

    fn cache_pool(&mut self, name: &str) -> Result<OpenCache> {
        let volume = self.group.volume(name).ok_or_else(|| not_found(name))?;
        let Some(Kind::CachePool { metadata, data, cache }) = volume.only_kind() else {
            return Err(wrong_type(name, "a cache pool"));
        };
        let metadata = self.volume(metadata, View::Raw, Role::Table)?;
        Ok((*cache, metadata, self.volume(data, View::Raw, Role::Data)?))
    }

    fn cache_volume(&mut self, name: &str, volume: &CacheVolume) -> Result<OpenCache> {
        let store = self.volume(name, View::Raw, Role::Table)?;
        let part = |(start, len)| -> Result<Arc<dyn Storage>> {
            Ok(Arc::new(Window::new(Arc::clone(&store), HostOffset(start), len)?))
        };
        Ok((volume.cache, part(volume.metadata)?, part(volume.data)?))
    }

    /// A volume of `len` bytes with a cache for writes.
    pub(crate) fn write_cached(&mut self, len: u64, cache: &str, origin: &str) -> Result<Overlay> {
        let store = self.volume(origin, View::Raw, Role::Data)?;
        let base = whole(&store, origin, len)?;
        let store = self.volume(cache, View::Raw, Role::Table)?;
        let WriteCache { start, block, map } = WriteCache::read(&*store, self.limits)?;
        Ok(Overlay { base, top: Part { store, at: HostOffset(start) }, chunk: block, map })
    }

    /// What differs in the volume `name` from the volume `since`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for two volumes that do not share a pool or an origin.
    pub(crate) fn changes(&mut self, since: &str, name: &str) -> Result<Box<dyn Changes>> {
        let (then, now) = (self.lineage(since)?, self.lineage(name)?);
        match (&then, &now) {
            (Lineage::Thin(then, a), Lineage::Thin(now, b)) if a.pool == b.pool => {
                self.remapped([(then, a), (now, b)])
            }
            _ if then.origin() == now.origin() => {
                self.copied(now.origin(), [then.snapshot(), now.snapshot()])
            }
            // One is known by its chunks of a store, the other by those of the pool.
            _ if self.pool_below(&then).is_some_and(|pool| self.pool_below(&now) == Some(pool)) => {
                let size = now.volume(self.group).and_then(Volume::size);
                Ok(Box::new(All(size.unwrap_or(0))))
            }
            _ => {
                let feature = format!("comparing {since} and {name}, which share nothing,");
                Err(Error::Unsupported { format: NAME, feature: feature.into() })
            }
        }
    }

    /// In the order in which a reader asks: a classic snapshot that is to be merged lies over
    /// whatever its origin is.
    fn lineage(&self, name: &str) -> Result<Lineage> {
        let relations = &self.group.relations;
        let volume = self.group.volume(name).ok_or_else(|| not_found(name))?;
        let snapshot = relations.snapshots.get(name).or_else(|| relations.merging.get(name));
        if let Some(snapshot) = snapshot {
            return Ok(Lineage::Classic(snapshot.origin.clone(), Some(snapshot.clone())));
        }
        let standing = match relations.thin_merging.get(name) {
            Some(merging) => self.group.volume(merging).ok_or_else(|| not_found(merging))?,
            None => volume,
        };
        Ok(match standing.only_kind() {
            Some(Kind::Thin(thin)) => Lineage::Thin(standing.clone(), thin.clone()),
            _ => Lineage::Classic(name.to_owned(), None),
        })
    }

    /// The pool that a volume's chunks are in, as far as they are in one.
    fn pool_below(&self, lineage: &Lineage) -> Option<&str> {
        match lineage.volume(self.group)?.only_kind() {
            Some(Kind::Thin(thin)) => Some(&thin.pool),
            _ => None,
        }
    }

    fn remapped(&mut self, [then, now]: [(&Volume, &Thin); 2]) -> Result<Box<dyn Changes>> {
        let size = now.0.size().unwrap_or(0);
        // Where nothing is mapped, something else shows through.
        if then.1.external != now.1.external {
            return Ok(Box::new(All(size)));
        }
        let pool = self.pool(&now.1.pool)?;
        let root = |(volume, thin): (&Volume, &Thin)| root_of(&pool, &volume.name, thin);
        let roots = [root(then)?, root(now)?];
        let sizes = [then.0.size().unwrap_or(0), size];
        Ok(Box::new(Remapped::new(pool, roots, sizes)))
    }

    fn copied(
        &mut self,
        origin: &str,
        snapshots: [Option<&Snapshot>; 2],
    ) -> Result<Box<dyn Changes>> {
        let size = self.volume(origin, View::Raw, Role::Data)?.len()?;
        let [then, now] = snapshots;
        let same = then.map(|s| &s.store) == now.map(|s| &s.store);
        let differing = if same { [None, None] } else { [then, now] };
        let maps = differing.into_iter().flatten().filter_map(|snapshot| {
            let read = self.exceptions(snapshot, size).transpose()?;
            Some(read.map(|read| (read.chunk, read.map)))
        });
        Ok(Box::new(Copied { size, maps: maps.collect::<Result<_>>()? }))
    }
}

/// How a cache is used, its metadata and its data.
type OpenCache = (Cache, Arc<dyn Storage>, Arc<dyn Storage>);

/// What a volume shares with others.
enum Lineage {
    /// An origin by name, and which snapshot of it the volume is or is becoming.
    Classic(String, Option<Snapshot>),
    /// A thin volume, or the one that takes its place.
    Thin(Volume, Thin),
}

impl Lineage {
    /// The volume that its snapshot, if it is one, lies over.
    fn origin(&self) -> &str {
        match self {
            Self::Classic(origin, _) => origin,
            Self::Thin(volume, _) => &volume.name,
        }
    }

    fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Self::Classic(_, snapshot) => snapshot.as_ref(),
            Self::Thin(..) => None,
        }
    }

    /// The volume of its origin.
    fn volume<'g>(&self, group: &'g Group) -> Option<&'g Volume> {
        group.volume(self.origin())
    }
}

/// Why a snapshot cannot be read.
const LOST: &str = "its store ran full or failed, so it was lost";

/// The volumes that a pool, whose metadata is of transaction `found`, has still to make.
fn pending<'p>(name: &str, said: &'p ThinPool, found: u64) -> Result<&'p [String]> {
    match said.transaction {
        // What the text asks for was done.
        Some(said) if said == found => Ok(&[]),
        Some(expected) if found.checked_add(1) != Some(expected) => {
            let why = format!("its metadata is of transaction {found}, its text of {expected}");
            Err(Error::Unusable { what: "thin pool", name: name.to_owned(), why: why.into() })
        }
        _ => Ok(&said.creates),
    }
}

/// The root of a thin volume's mappings. `None` for a volume that its pool has still to make, and
/// that will be empty.
fn root_of(pool: &thin::Pool, name: &str, thin: &Thin) -> Result<Option<u64>> {
    match pool.root_of(thin.device)? {
        Some(root) => Ok(Some(root)),
        None if !pool.creates.iter().any(|pending| pending == name) => {
            let why = format!("its pool does not know its number, {}", thin.device);
            Err(Error::Unusable { what: "logical volume", name: name.to_owned(), why: why.into() })
        }
        None if thin.is_snapshot => Err(unusable(name, "it was not made in its pool yet")),
        None => Ok(None),
    }
}

fn wrong_type(name: &str, expected: &'static str) -> Error {
    invalid("logical volume", 0, Value::from(name.as_bytes()), expected).into()
}
