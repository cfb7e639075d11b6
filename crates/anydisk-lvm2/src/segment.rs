//! The types of segment, as the text gives them. Pure.

use anydisk_core::{Invalid, Value};

use crate::layout::SECTOR;
use crate::limits;
use crate::raid::layout::{Level, level_of};
use crate::text::{Scalar, Section, invalid};

/// A run of a volume with one type.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Where it begins in the volume, in bytes.
    pub(crate) start: u64,
    /// In bytes; at least one extent.
    pub(crate) len: u64,
    /// The type, without its flags.
    pub(crate) type_name: String,
    /// What it is made of, or what is wrong with it.
    pub(crate) kind: Result<Kind, Invalid>,
}

/// What a segment is made of. Lengths are in bytes.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Areas laid end to end in turns of `chunk` bytes; one area: as it is.
    Striped { chunk: u64, areas: Vec<Area> },
    /// Copies, of which all others are filled from the first.
    Mirror(Mirror),
    /// An array.
    Raid(Raid),
    /// Ties a snapshot to its origin.
    Snapshot(Snapshot),
    /// A pool of thin volumes.
    ThinPool(ThinPool),
    /// A thin volume.
    Thin(Thin),
    /// A cache for one volume.
    CachePool { metadata: String, data: String, cache: Cache },
    /// A volume with a cache: a pool, or a volume of which this segment says how it is used.
    Cached { pool: String, origin: String, volume: Option<CacheVolume> },
    /// A volume with a cache for writes.
    WriteCached { cache: String, origin: String },
    /// Zeroes.
    Zero,
    /// Every read fails.
    Error,
    /// A type, or a flag of a type, that is not read here.
    Refused(String),
}

/// A mirror of the old style.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) legs: Vec<Area>,
    /// The volume with the log, and the bytes of a region.
    pub(crate) log: Option<(String, u64)>,
    /// Bytes that were copied, as far as LVM noted it: a move from the first leg to the second.
    pub(crate) moved: Option<u64>,
}

/// An array of images, each a logical volume.
#[derive(Clone, Debug)]
pub(crate) struct Raid {
    pub(crate) level: Level,
    /// Bytes of a chunk; for a mirror of everything.
    pub(crate) chunk: u64,
    /// The image in each place, and the volume with its superblock.
    pub(crate) images: Vec<(String, Option<String>)>,
}

/// What ties a snapshot to its origin.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) origin: String,
    /// The volume with the chunks that were copied; the snapshot is known by its name.
    pub(crate) store: String,
    /// Bytes of a chunk, should the store not tell.
    pub(crate) chunk: u64,
    /// The snapshot takes the place of its origin.
    pub(crate) merging: bool,
}

/// A pool of thin volumes.
#[derive(Clone, Debug)]
pub(crate) struct ThinPool {
    pub(crate) metadata: String,
    pub(crate) data: String,
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// The number of the last change that the pool was told of.
    pub(crate) transaction: Option<u64>,
    /// Changes that the pool was not told of yet.
    pub(crate) has_messages: bool,
    /// Names of the volumes that these changes make.
    pub(crate) creates: Vec<String>,
}

/// A thin volume.
#[derive(Clone, Debug)]
pub(crate) struct Thin {
    pub(crate) pool: String,
    /// Its number in the pool.
    pub(crate) device: u64,
    /// It was made as a snapshot of another thin volume.
    pub(crate) is_snapshot: bool,
    /// A volume outside of the pool that shows through.
    pub(crate) external: Option<String>,
    /// The volume whose place it takes.
    pub(crate) merge: Option<String>,
}

/// How a cache is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache {
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// The cache is not to be read.
    pub(crate) passthrough: bool,
}

/// How a volume is used as a cache: where its two parts are in it, as start and length in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheVolume {
    pub(crate) cache: Cache,
    pub(crate) metadata: (u64, u64),
    pub(crate) data: (u64, u64),
}

/// A place on a physical volume or in another logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    /// A physical volume's name in the text, or a logical volume's.
    pub(crate) on: String,
    /// First extent.
    pub(crate) extent: u64,
}

impl Segment {
    /// The segment that a section describes. `start`, `len` and `extent` are in bytes.
    pub(crate) fn parse(section: &Section<'_>, start: u64, len: u64, extent: u64) -> Self {
        let full = section.optional_text("type").ok().flatten().unwrap_or("no type");
        let (name, flags) = full.split_once('+').unwrap_or((full, ""));
        let kind = kind(section, name, flags, len, extent);
        Self { start, len, type_name: name.to_owned(), kind }
    }

    /// The type as a person says it.
    pub(crate) fn shown_type(&self) -> &str {
        match &self.kind {
            Ok(Kind::Striped { areas, .. }) if areas.len() == 1 => "linear",
            _ => &self.type_name,
        }
    }
}

impl Kind {
    /// The volumes and devices that it is made of, by their names in the text.
    pub(crate) fn parts(&self) -> Vec<&str> {
        match self {
            Self::Striped { areas, .. } => areas.iter().map(|area| area.on.as_str()).collect(),
            Self::Mirror(mirror) => {
                let legs = mirror.legs.iter().map(|leg| leg.on.as_str());
                legs.chain(mirror.log.iter().map(|(log, _)| log.as_str())).collect()
            }
            Self::Raid(raid) => {
                let images = raid.images.iter().map(|(image, _)| image);
                let tables = raid.images.iter().filter_map(|(_, meta)| meta.as_ref());
                images.chain(tables).map(String::as_str).collect()
            }
            Self::Snapshot(snapshot) => vec![&snapshot.origin, &snapshot.store],
            Self::ThinPool(pool) => vec![&pool.metadata, &pool.data],
            Self::Thin(thin) => {
                std::iter::once(thin.pool.as_str()).chain(thin.external.as_deref()).collect()
            }
            Self::CachePool { metadata, data, .. } => vec![metadata, data],
            Self::Cached { pool, origin, .. } => vec![pool, origin],
            Self::WriteCached { cache, origin } => vec![cache, origin],
            Self::Zero | Self::Error | Self::Refused(_) => Vec::new(),
        }
    }
}

/// Flags of types that are understood.
const KNOWN_FLAGS: [(&str, &str); 3] = [
    ("cache", "CACHE_USES_CACHEVOL"),
    ("cache-pool", "METADATA_FORMAT"),
    // The metadata is cut to what the kernel uses of it: the blocks are where they were.
    ("thin-pool", "CROP_METADATA"),
];

fn kind(
    section: &Section<'_>,
    name: &str,
    flags: &str,
    len: u64,
    extent: u64,
) -> Result<Kind, Invalid> {
    // A flag was put there so that whoever does not know it leaves the volume alone.
    if !flags.is_empty() && !flags.split('+').all(|flag| KNOWN_FLAGS.contains(&(name, flag))) {
        return Ok(Kind::Refused(format!("segment type {name} with {flags}")));
    }
    match name {
        "striped" | "linear" => striped(section, len / extent),
        "mirror" => mirror(section, extent),
        "snapshot" => snapshot(section),
        "thin-pool" => thin_pool(section),
        "thin" => thin(section),
        "cache-pool" => cache_pool(section),
        "cache" => cached(section),
        "writecache" => Ok(Kind::WriteCached {
            cache: section.text("writecache")?.to_owned(),
            origin: section.text("origin")?.to_owned(),
        }),
        "zero" => Ok(Kind::Zero),
        "error" => Ok(Kind::Error),
        _ => match level_of(name, section.optional_number("data_copies")?.unwrap_or(2)) {
            Some(level) => raid(section, level),
            None => Ok(Kind::Refused(format!("segment type {name}"))),
        },
    }
}

fn mirror(section: &Section<'_>, extent: u64) -> Result<Kind, Invalid> {
    let legs = areas(section, "mirrors")?;
    let count = section.optional_number("mirror_count")?.unwrap_or(legs.len() as u64);
    if count == 0 || count != legs.len() as u64 {
        return Err(invalid("mirror_count", section.at, count.into(), legs.len().to_string()));
    }
    let log = match section.optional_text("mirror_log")? {
        Some(log) => Some((log.to_owned(), sectors(section, "region_size")?)),
        None => None,
    };
    let moved = section.optional_number("extents_moved")?;
    let moved = moved.map(|extents| extents.saturating_mul(extent));
    Ok(Kind::Mirror(Mirror { legs, log, moved }))
}

fn raid(section: &Section<'_>, level: Level) -> Result<Kind, Invalid> {
    for field in ["data_offset", "reshape_count"] {
        if section.optional_number(field)?.unwrap_or(0) != 0 {
            return Ok(Kind::Refused(format!("an array that is being reshaped ({field})")));
        }
    }
    let names = |field| -> Result<Vec<String>, Invalid> {
        let names = section.list(field)?.iter().map(|name| name.as_text().map(str::to_owned));
        let found = Value::Text(b"a list".to_vec());
        names.collect::<Option<_>>().ok_or_else(|| invalid(field, section.at, found, "names"))
    };
    let images: Vec<_> = match section.get("raid0_lvs") {
        Some(_) => names("raid0_lvs")?.into_iter().map(|image| (image, None)).collect(),
        None => {
            let names = names("raids")?;
            let pairs = names.chunks_exact(2);
            pairs.map(|pair| (pair[1].clone(), Some(pair[0].clone()))).collect()
        }
    };
    let count = images.len() as u64;
    let field = if level == Level::Stripe { "stripe_count" } else { "device_count" };
    let said = section.optional_number(field)?.unwrap_or(count);
    if said != count || count > limits::IMAGES || !level.fits(count) {
        let expected = format!("the number of images, {count}, and as many as the type needs");
        return Err(invalid(field, section.at, said.into(), expected));
    }
    let chunk = if level == Level::Mirror { SECTOR } else { sectors(section, "stripe_size")? };
    Ok(Kind::Raid(Raid { level, chunk, images }))
}

fn striped(section: &Section<'_>, extents: u64) -> Result<Kind, Invalid> {
    let areas = areas(section, "stripes")?;
    let count = section.optional_number("stripe_count")?.unwrap_or(areas.len() as u64);
    if count == 0 || count != areas.len() as u64 || !extents.is_multiple_of(count) {
        let expected = format!("the {} areas, and a divisor of {extents} extents", areas.len());
        return Err(invalid("stripe_count", section.at, count.into(), expected));
    }
    let chunk = if count > 1 { sectors(section, "stripe_size")? } else { SECTOR };
    Ok(Kind::Striped { chunk, areas })
}

fn snapshot(section: &Section<'_>) -> Result<Kind, Invalid> {
    let merging = section.optional_text("merging_store")?;
    let store = merging.map_or_else(|| section.text("cow_store"), Ok)?;
    Ok(Kind::Snapshot(Snapshot {
        origin: section.text("origin")?.to_owned(),
        store: store.to_owned(),
        chunk: sectors(section, "chunk_size")?,
        merging: merging.is_some(),
    }))
}

fn thin_pool(section: &Section<'_>) -> Result<Kind, Invalid> {
    Ok(Kind::ThinPool(ThinPool {
        metadata: section.text("metadata")?.to_owned(),
        data: section.text("pool")?.to_owned(),
        chunk: sectors(section, "chunk_size")?,
        transaction: section.optional_number("transaction_id")?,
        has_messages: messages(section).next().is_some(),
        creates: messages(section)
            .filter_map(|message| message.optional_text("create").ok().flatten())
            .map(str::to_owned)
            .collect(),
    }))
}

/// What a pool was not told of yet.
fn messages<'s, 't>(pool: &'s Section<'t>) -> impl Iterator<Item = &'s Section<'t>> {
    let sections = pool.sections().filter(|(item, _)| item.name.starts_with("message"));
    sections.map(|(_, message)| message)
}

fn thin(section: &Section<'_>) -> Result<Kind, Invalid> {
    Ok(Kind::Thin(Thin {
        pool: section.text("thin_pool")?.to_owned(),
        device: section.number("device_id")?,
        is_snapshot: section.optional_text("origin")?.is_some(),
        external: section.optional_text("external_origin")?.map(str::to_owned),
        merge: section.optional_text("merge")?.map(str::to_owned),
    }))
}

fn cache_pool(section: &Section<'_>) -> Result<Kind, Invalid> {
    Ok(Kind::CachePool {
        metadata: section.text("metadata")?.to_owned(),
        data: section.text("data")?.to_owned(),
        cache: cache(section)?,
    })
}

fn cache(section: &Section<'_>) -> Result<Cache, Invalid> {
    let passthrough = section.optional_text("cache_mode")? == Some("passthrough");
    Ok(Cache { chunk: sectors(section, "chunk_size")?, passthrough })
}

fn cached(section: &Section<'_>) -> Result<Kind, Invalid> {
    let volume = match section.optional_number("metadata_len")? {
        None => None,
        Some(_) => Some(CacheVolume {
            cache: cache(section)?,
            metadata: part(section, "metadata_start", "metadata_len")?,
            data: part(section, "data_start", "data_len")?,
        }),
    };
    let (pool, origin) = (section.text("cache_pool")?, section.text("origin")?);
    Ok(Kind::Cached { pool: pool.to_owned(), origin: origin.to_owned(), volume })
}

/// A start and a length in sectors, as bytes.
fn part(
    section: &Section<'_>,
    start: &'static str,
    len: &'static str,
) -> Result<(u64, u64), Invalid> {
    let len = sectors(section, len)?;
    match section.number(start)? {
        0 => Ok((0, len)),
        _ => Ok((sectors(section, start)?, len)),
    }
}

/// A list of pairs: name and first extent.
fn areas(section: &Section<'_>, field: &'static str) -> Result<Vec<Area>, Invalid> {
    let area = |pair: &[Scalar<'_>]| match pair {
        [on, extent] => Some(Area { on: on.as_text()?.to_owned(), extent: extent.as_number()? }),
        _ => None,
    };
    let areas: Option<Vec<Area>> = section.list(field)?.chunks(2).map(area).collect();
    let expected = "pairs of a name and an extent";
    areas.ok_or_else(|| invalid(field, section.at, Value::Text(b"a list".to_vec()), expected))
}

/// A number of sectors, as bytes; at least one sector.
fn sectors(section: &Section<'_>, field: &'static str) -> Result<u64, Invalid> {
    let found = section.positive(field)?;
    let bytes = found.checked_mul(SECTOR).filter(|bytes| *bytes <= limits::VOLUME);
    bytes.ok_or_else(|| invalid(field, section.at, found.into(), "a number of bytes below 2^63"))
}
