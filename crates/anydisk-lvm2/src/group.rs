//! A volume group as its text describes it: names, sizes, segments. Pure: nothing is looked for.

use std::collections::{HashMap, HashSet};

use anydisk_core::{Invalid, Result, Value};

use crate::layout::SECTOR;
use crate::segment::{Kind, Segment, Snapshot, Thin};
use crate::text::{Section, invalid};
use crate::{limits, uuid};

/// A volume group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Goes up with each change; the text with the highest one is the truth.
    pub(crate) seqno: u64,
    /// Bytes of an extent.
    pub(crate) extent: u64,
    pub(crate) devices: Vec<Device>,
    pub(crate) volumes: Vec<Volume>,
    by_name: HashMap<String, usize>,
    devices_by_name: HashMap<String, usize>,
    pub(crate) relations: Relations,
}

/// Who stands for whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    /// Classic snapshots, by the name of their store.
    pub(crate) snapshots: HashMap<String, Snapshot>,
    /// Classic snapshots that take the place of their origin, by the name of the origin.
    pub(crate) merging: HashMap<String, Snapshot>,
    /// Thin volumes that take the place of another one, by the name of that one.
    pub(crate) thin_merging: HashMap<String, String>,
}

/// A physical volume, as the group knows it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// The name it has in this text and nowhere else.
    pub(crate) name: String,
    pub(crate) id: String,
    /// Bytes from the start of the device to extent 0.
    pub(crate) start: u64,
    /// Number of extents.
    pub(crate) extents: u64,
    /// The group went on without it.
    pub(crate) missing: bool,
}

/// A logical volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) status: Vec<String>,
    pub(crate) tags: Vec<String>,
    /// What it is made of, in order and without gaps, or why that is not known.
    pub(crate) segments: Result<Vec<Segment>, Invalid>,
}

impl Group {
    /// The group that a text describes.
    ///
    /// # Errors
    /// [`Invalid`] for a text that is not that of a group, or lacks what every group has. What is
    /// wrong with one volume is kept with the volume.
    pub(crate) fn parse(tree: &Section<'_>) -> Result<Self> {
        check_heading(tree)?;
        let mut sections = tree.sections();
        let Some((item, section)) = sections.next() else {
            return Err(tree.missing("volume group", "a section").into());
        };
        check_name(item.name, item.at)?;
        let extent = bytes_of(section.positive("extent_size")?, SECTOR)
            .ok_or_else(|| too_large(section, "extent_size"))?;
        let volumes = volumes(section, extent)?;
        let devices = devices(section)?;
        check_identities(&devices)?;
        let by_name = volumes.iter().enumerate().map(|(index, v)| (v.name.clone(), index));
        let devices_by_name = devices.iter().enumerate().map(|(index, d)| (d.name.clone(), index));
        Ok(Self {
            name: item.name.to_owned(),
            id: identity(section)?,
            seqno: section.number("seqno")?,
            extent,
            by_name: by_name.collect(),
            devices_by_name: devices_by_name.collect(),
            devices,
            relations: Relations::of(&volumes),
            volumes,
        })
    }

    /// The volume of this name.
    pub(crate) fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(*self.by_name.get(name)?)
    }

    /// The physical volume that the text calls `name`.
    pub(crate) fn device(&self, name: &str) -> Option<usize> {
        self.devices_by_name.get(name).copied()
    }
}

impl Relations {
    fn of(volumes: &[Volume]) -> Self {
        let mut relations = Self::default();
        for volume in volumes {
            match volume.only_kind() {
                Some(Kind::Snapshot(snapshot)) if snapshot.merging => {
                    relations.merging.insert(snapshot.origin.clone(), snapshot.clone());
                }
                Some(Kind::Snapshot(snapshot)) => {
                    relations.snapshots.insert(snapshot.store.clone(), snapshot.clone());
                }
                Some(Kind::Thin(Thin { merge: Some(target), .. })) => {
                    relations.thin_merging.insert(target.clone(), volume.name.clone());
                }
                _ => {}
            }
        }
        relations
    }
}

fn check_heading(tree: &Section<'_>) -> Result<(), Invalid> {
    let contents = tree.text("contents")?;
    if contents != "Text Format Volume Group" {
        let found = Value::from(contents.as_bytes());
        return Err(invalid("contents", tree.at, found, "\"Text Format Volume Group\""));
    }
    match tree.number("version")? {
        1 => Ok(()),
        version => Err(invalid("version", tree.at, version.into(), "1")),
    }
}

fn devices(group: &Section<'_>) -> Result<Vec<Device>, Invalid> {
    let Some(section) = group.section("physical_volumes") else {
        return Err(group.missing("physical_volumes", "a section"));
    };
    let devices = section.sections().map(|(item, section)| {
        check_name(item.name, item.at)?;
        device(item.name, section)
    });
    devices.collect()
}

fn device(name: &str, section: &Section<'_>) -> Result<Device, Invalid> {
    let start = section.number("pe_start")?;
    Ok(Device {
        name: name.to_owned(),
        id: identity(section)?,
        start: bytes_of(start, SECTOR).ok_or_else(|| too_large(section, "pe_start"))?,
        extents: section.number("pe_count")?,
        // Older LVM writes it as a status.
        missing: ["flags", "status"]
            .iter()
            .any(|list| section.words(list).iter().any(|word| word == "MISSING")),
    })
}

/// The `id` of a group or of a device.
fn identity(section: &Section<'_>) -> Result<String, Invalid> {
    let found = section.text("id")?;
    uuid::parse(found).ok_or_else(|| {
        let expected = "32 letters, digits, ! and #, in groups";
        invalid("id", section.at, Value::from(found.as_bytes()), expected)
    })
}

/// Two devices of one identity would be one device.
fn check_identities(devices: &[Device]) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    match devices.iter().find(|device| !seen.insert(&device.id)) {
        None => Ok(()),
        Some(device) => {
            let found = Value::from(device.id.as_bytes());
            Err(invalid("id of a physical volume", 0, found, "no other like it"))
        }
    }
}

fn volumes(group: &Section<'_>, extent: u64) -> Result<Vec<Volume>, Invalid> {
    // A group without volumes has no such section.
    let Some(section) = group.section("logical_volumes") else { return Ok(Vec::new()) };
    section
        .sections()
        .map(|(item, section)| {
            check_name(item.name, item.at)?;
            Ok(Volume {
                name: item.name.to_owned(),
                status: section.words("status"),
                tags: section.words("tags"),
                segments: segments(section, extent),
            })
        })
        .collect()
}

/// The segments of a volume, which must cover it from its start without gap or overlap.
fn segments(volume: &Section<'_>, extent: u64) -> Result<Vec<Segment>, Invalid> {
    let mut segments = Vec::new();
    let mut next = 0_u64;
    for (item, section) in volume.sections().filter(|(item, _)| item.name.starts_with("segment")) {
        let (start, count) = (section.number("start_extent")?, section.positive("extent_count")?);
        if start != next {
            return Err(invalid("start_extent", item.at, start.into(), format!("{next}")));
        }
        let end = start.checked_add(count);
        let fits = end.and_then(|end| bytes_of(end, extent)).filter(|end| *end <= limits::VOLUME);
        let (Some(end), Some(_)) = (end, fits) else {
            return Err(too_large(section, "extent_count"));
        };
        next = end;
        segments.push(Segment::parse(section, start * extent, count * extent, extent));
    }
    match segments.is_empty() {
        true => Err(volume.missing("segment1", "a section")),
        false => Ok(segments),
    }
}

/// LVM's own rule for names of groups and volumes; names that leave a folder break it.
fn check_name(name: &str, at: usize) -> Result<(), Invalid> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    let good = name.bytes().all(fits) && !name.starts_with('-') && !matches!(name, "." | "..");
    if good && name.len() < 128 {
        return Ok(());
    }
    let expected = "letters, digits and + _ . -, not beginning with -";
    Err(invalid("name", at, Value::from(name.as_bytes()), expected))
}

fn too_large(section: &Section<'_>, field: &'static str) -> Invalid {
    let found = section.optional_number(field).ok().flatten();
    let expected = "a number of bytes below 2^63";
    invalid(field, section.at, found.map_or(Value::Missing, Value::Number), expected)
}

/// `count` units of `unit` bytes, if that is an offset.
fn bytes_of(count: u64, unit: u64) -> Option<u64> {
    count.checked_mul(unit).filter(|bytes| *bytes <= limits::VOLUME)
}

impl Volume {
    pub(crate) fn has_status(&self, status: &str) -> bool {
        self.status.iter().any(|word| word == status)
    }

    /// Bytes of the volume, as far as its segments tell.
    pub(crate) fn size(&self) -> Option<u64> {
        let last = self.segments.as_ref().ok()?.last()?;
        last.start.checked_add(last.len)
    }

    /// What a volume of one segment is made of.
    pub(crate) fn only_kind(&self) -> Option<&Kind> {
        match self.segments.as_deref() {
            Ok([segment]) => segment.kind.as_ref().ok(),
            _ => None,
        }
    }

    /// The type as a person says it: that of the segments, `linear` for one stripe.
    pub(crate) fn type_name(&self) -> String {
        let Ok(segments) = &self.segments else { return "unreadable".to_owned() };
        let mut names: Vec<&str> = segments.iter().map(Segment::shown_type).collect();
        names.dedup();
        names.join("+")
    }

    /// Whether it is no volume, but ties a snapshot to its origin.
    pub(crate) fn is_tie(&self) -> bool {
        matches!(self.only_kind(), Some(Kind::Snapshot(_)))
    }

    /// Whether it can be read, as far as its type tells.
    pub(crate) fn has_content(&self) -> bool {
        let readable = |segment: &Segment| {
            !matches!(
                segment.kind,
                Err(_) | Ok(Kind::ThinPool(_) | Kind::CachePool { .. } | Kind::Refused(_))
            )
        };
        self.segments.as_ref().is_ok_and(|segments| segments.iter().all(readable))
    }

    /// Why one of its segments is refused, as far as the text tells.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.segments.iter().flatten().find_map(|segment| match &segment.kind {
            Err(error) => Some(error.to_string()),
            Ok(Kind::Refused(feature)) => Some(format!("{feature} is not supported")),
            Ok(_) => None,
        })
    }

    /// Whether it is a part of other volumes and not meant for users.
    pub(crate) fn is_hidden(&self) -> bool {
        !self.has_status("VISIBLE")
    }
}
