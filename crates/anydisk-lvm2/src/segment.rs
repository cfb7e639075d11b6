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
    Mirror { legs: Vec<Area>, log: Option<String>, region: u64 },
    /// An array.
    Raid(Raid),
    /// Zeroes.
    Zero,
    /// Every read fails.
    Error,
    /// A type, or a flag of a type, that is not read here.
    Refused(String),
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
        let kind = kind(section, name, flags, len / extent);
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

fn kind(section: &Section<'_>, name: &str, flags: &str, extents: u64) -> Result<Kind, Invalid> {
    // A flag was put there so that whoever does not know it leaves the volume alone.
    if !flags.is_empty() {
        return Ok(Kind::Refused(format!("segment type {name} with {flags}")));
    }
    match name {
        "striped" | "linear" => striped(section, extents),
        "mirror" => mirror(section),
        "zero" => Ok(Kind::Zero),
        "error" => Ok(Kind::Error),
        _ => match level_of(name, section.optional_number("data_copies")?.unwrap_or(2)) {
            Some(level) => raid(section, level),
            None => Ok(Kind::Refused(format!("segment type {name}"))),
        },
    }
}

fn mirror(section: &Section<'_>) -> Result<Kind, Invalid> {
    let legs = areas(section, "mirrors")?;
    let count = section.optional_number("mirror_count")?.unwrap_or(legs.len() as u64);
    if count == 0 || count != legs.len() as u64 {
        return Err(invalid("mirror_count", section.at, count.into(), legs.len().to_string()));
    }
    let log = section.optional_text("mirror_log")?.map(str::to_owned);
    let region = if log.is_some() { sectors(section, "region_size")? } else { SECTOR };
    Ok(Kind::Mirror { legs, log, region })
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
