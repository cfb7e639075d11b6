//! The metadata of LUKS2: JSON to checked values, keeping what is not understood (LUKS2 1.1.1,
//! "3 LUKS2 JSON Metadata").
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::ops::Range;

use anydisk_storage::HostOffset;
use base64ct::{Base64, Encoding};
use serde_json::{Map, Value};

use super::Payload;
use crate::{Error, Found, Hash, Kdf, Result};

/// Key slots, tokens and segments that a header may have.
pub(crate) const MAX_OBJECTS: usize = 32;

/// The largest area for key slots, in bytes.
const MAX_KEYSLOTS_SIZE: u64 = 128 << 20;

/// The longest volume key, in bytes.
const MAX_KEY: u64 = 512;

/// Metadata that keeps the rules.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// All of it, also what is not understood.
    pub(crate) json: Map<String, Value>,
    pub(crate) keyslots: BTreeMap<u32, Keyslot>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) digests: Vec<Digest>,
    /// The area for key slots.
    pub(crate) area: Range<u64>,
    /// What a program must know before it uses the payload or changes the header.
    pub(crate) requirements: Vec<String>,
}

/// A key slot of LUKS2.
#[derive(Clone, Debug)]
pub(crate) struct Keyslot {
    pub(crate) key_size: usize,
    /// 0: only when named; 2: before the others.
    pub(crate) priority: u64,
    pub(crate) stripes: usize,
    pub(crate) af_hash: String,
    pub(crate) area: Range<u64>,
    pub(crate) encryption: String,
    pub(crate) area_key: usize,
    pub(crate) kdf: SlotKdf,
    /// A kind that is not used here (`reencrypt`), kept for the place it takes.
    pub(crate) foreign: bool,
}

/// How a slot's passphrase becomes a key; parsed when it is needed, since other slots may be good.
#[derive(Clone, Debug)]
pub(crate) enum SlotKdf {
    Known { kdf: Kdf, salt: Vec<u8> },
    Unknown(String),
}

/// A part of the payload.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Position in the data store, in bytes.
    pub(crate) offset: u64,
    /// Bytes; `None`: up to the end of the store.
    pub(crate) size: Option<u64>,
    pub(crate) iv_tweak: u64,
    pub(crate) encryption: String,
    pub(crate) sector_size: u64,
    /// `None`: it is not encrypted.
    pub(crate) digest: Option<usize>,
    /// What this segment needs that is not done here.
    pub(crate) unsupported: Option<String>,
}

/// What tells whether a volume key is the right one.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    pub(crate) keyslots: Vec<u32>,
    pub(crate) segments: Vec<u32>,
    pub(crate) hash: String,
    pub(crate) iterations: u32,
    pub(crate) salt: Vec<u8>,
    pub(crate) digest: Vec<u8>,
    pub(crate) foreign: bool,
}

/// One object of the metadata, by its path, with the place of the JSON in the store.
#[derive(Clone)]
struct Node<'a> {
    value: &'a Value,
    path: String,
    at: HostOffset,
}

impl<'a> Node<'a> {
    fn refuse(&self, expected: &'static str) -> Error {
        let found = match self.value {
            Value::Null => Found::Missing,
            Value::String(text) => text.as_str().into(),
            Value::Array(_) => "an array".into(),
            Value::Object(_) => "an object".into(),
            other => other.to_string().as_str().into(),
        };
        Error::invalid(self.path.clone(), self.at, found, expected)
    }

    fn get(&self, name: &str) -> Node<'a> {
        const NULL: &Value = &Value::Null;
        let value = self.value.get(name).unwrap_or(NULL);
        Node { value, path: format!("{}.{name}", self.path), at: self.at }
    }

    fn is_there(&self) -> bool {
        !self.value.is_null()
    }

    fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.refuse("an object"))
    }

    fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.refuse("text"))
    }

    fn number(&self) -> Result<u64> {
        self.value.as_u64().ok_or_else(|| self.refuse("a number, not negative"))
    }

    fn number32(&self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| self.refuse("a number of 32 bits"))
    }

    /// A 64-bit number, which JSON has as text.
    fn decimal(&self) -> Result<u64> {
        decimal(self.text()?).ok_or_else(|| self.refuse("a number of 64 bits in decimal digits"))
    }

    fn base64(&self) -> Result<Vec<u8>> {
        Base64::decode_vec(self.text()?).map_err(|_| self.refuse("base64"))
    }

    fn array(&self) -> Result<&'a [Value]> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.refuse("an array"))
    }

    /// The objects whose names are numbers, in their order.
    fn numbered(&self, limit: usize) -> Result<BTreeMap<u32, Node<'a>>> {
        let object = self.object()?;
        if object.len() > limit {
            let (found, limit) = (object.len() as u64, limit as u64);
            return Err(Error::Limit {
                what: "number of key slots, segments or digests",
                found,
                limit,
            });
        }
        let mut numbered = BTreeMap::new();
        for name in object.keys() {
            let node = self.get(name);
            let number = decimal(name).and_then(|number| u32::try_from(number).ok());
            let number = number.ok_or_else(|| self.refuse("an object whose names are numbers"))?;
            node.object()?;
            numbered.insert(number, node);
        }
        Ok(numbered)
    }

    /// Numbers of other objects.
    fn references(&self) -> Result<Vec<u32>> {
        let number = |value: &Value| decimal(value.as_str()?).and_then(|n| u32::try_from(n).ok());
        let list = self.array()?;
        if list.len() > MAX_OBJECTS {
            return Err(self.refuse("at most 32 numbers"));
        }
        let refuse = || self.refuse("an array of numbers in text");
        list.iter().map(|value| number(value).ok_or_else(refuse)).collect()
    }
}

/// Digits and nothing else.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl Metadata {
    /// Checks the JSON of a header of `hdr_size` bytes; `at` is where the JSON lies.
    pub(crate) fn parse(
        text: &str,
        at: HostOffset,
        hdr_size: u64,
        payload: Payload,
    ) -> Result<Self> {
        let json: Value = serde_json::from_str(text).map_err(|error| {
            Error::invalid("JSON", at, error.to_string().as_str(), "valid JSON")
        })?;
        let root = Node { value: &json, path: "JSON".into(), at };
        root.get("tokens").numbered(MAX_OBJECTS)?;
        let area = keyslots_area(&root.get("config"), hdr_size)?;
        let keyslots = keyslots(&root.get("keyslots"), &area)?;
        let segments = root.get("segments").numbered(MAX_OBJECTS)?;
        let digests = digests(&root.get("digests"), &keyslots, segments.len())?;
        let segments = parse_segments(&segments, &digests, &area, payload)?;
        let requirements = requirements(&root.get("config").get("requirements"))?;
        let json = root.object()?.clone();
        Ok(Self { json, keyslots, segments, digests, area, requirements })
    }

    /// The JSON as it is written.
    pub(crate) fn to_text(&self) -> String {
        Value::Object(self.json.clone()).to_string()
    }

    /// The digest that tells whether key slot `slot` gave the right key.
    pub(crate) fn digest_of(&self, slot: u32) -> Option<&Digest> {
        self.digests.iter().find(|digest| !digest.foreign && digest.keyslots.contains(&slot))
    }
}

fn keyslots_area(config: &Node<'_>, hdr_size: u64) -> Result<Range<u64>> {
    let json_size = config.get("json_size");
    if json_size.decimal()?.checked_add(super::layout::BINARY_LEN as u64) != Some(hdr_size) {
        return Err(json_size.refuse("hdr_size less 4096"));
    }
    let size = config.get("keyslots_size");
    let len = size.decimal()?;
    if !len.is_multiple_of(4096) || len > MAX_KEYSLOTS_SIZE {
        return Err(size.refuse("a multiple of 4096 up to 134217728"));
    }
    let start = hdr_size.saturating_mul(2);
    Ok(start..start.saturating_add(len))
}

fn keyslots(node: &Node<'_>, area: &Range<u64>) -> Result<BTreeMap<u32, Keyslot>> {
    let mut slots: BTreeMap<u32, Keyslot> = BTreeMap::new();
    for (number, node) in node.numbered(MAX_OBJECTS)? {
        if number as usize >= MAX_OBJECTS {
            return Err(node.refuse("a key slot of number 0 to 31"));
        }
        let slot = keyslot(&node, area)?;
        let overlaps =
            |other: &Keyslot| other.area.start < slot.area.end && slot.area.start < other.area.end;
        if slots.values().any(overlaps) {
            return Err(node.get("area").refuse("no overlap with the area of another key slot"));
        }
        slots.insert(number, slot);
    }
    Ok(slots)
}

fn keyslot(node: &Node<'_>, within: &Range<u64>) -> Result<Keyslot> {
    let foreign = node.get("type").text()? != "luks2";
    let (area, af) = (node.get("area"), node.get("af"));
    let place = area_of(&area, within)?;
    let key_size = key_size(&node.get("key_size"))?;
    let priority = node.get("priority");
    let mut slot = Keyslot {
        key_size,
        priority: if priority.is_there() { priority.number()? } else { 1 },
        stripes: 0,
        af_hash: String::new(),
        area: place,
        encryption: String::new(),
        area_key: 0,
        kdf: SlotKdf::Unknown("none".into()),
        foreign,
    };
    if foreign {
        return Ok(slot);
    }
    let raw = area.get("type");
    if raw.text()? != "raw" {
        return Err(raw.refuse("raw"));
    }
    let kind = af.get("type");
    if kind.text()? != "luks1" {
        return Err(kind.refuse("luks1"));
    }
    slot.stripes = stripes(&af.get("stripes"))?;
    slot.af_hash = af.get("hash").text()?.to_owned();
    slot.encryption = area.get("encryption").text()?.to_owned();
    slot.area_key = self::key_size(&area.get("key_size"))?;
    let material = slot.material_len();
    if (material as u64) > slot.area.end.saturating_sub(slot.area.start) {
        return Err(area.get("size").refuse("room for all stripes of the key"));
    }
    slot.kdf = kdf(&node.get("kdf"))?;
    Ok(slot)
}

impl Keyslot {
    /// Bytes of key material: the stripes, in whole sectors.
    pub(crate) fn material_len(&self) -> usize {
        self.key_size.saturating_mul(self.stripes).next_multiple_of(512)
    }
}

fn area_of(area: &Node<'_>, within: &Range<u64>) -> Result<Range<u64>> {
    let (start, len) = (area.get("offset").decimal()?, area.get("size").decimal()?);
    let end = start.checked_add(len).filter(|end| *end <= within.end && len > 0);
    match end {
        Some(end) if start >= within.start => Ok(start..end),
        _ => Err(area.get("offset").refuse("an area inside that of the key slots")),
    }
}

fn key_size(node: &Node<'_>) -> Result<usize> {
    match usize::try_from(node.number()?) {
        Ok(size) if (1..=MAX_KEY).contains(&(size as u64)) => Ok(size),
        _ => Err(node.refuse("1 to 512 bytes")),
    }
}

fn stripes(node: &Node<'_>) -> Result<usize> {
    match usize::try_from(node.number()?) {
        Ok(count @ 1..=4000) => Ok(count),
        _ => Err(node.refuse("1 to 4000")),
    }
}

fn kdf(node: &Node<'_>) -> Result<SlotKdf> {
    let salt = node.get("salt").base64()?;
    let number = |name: &str| node.get(name).number32();
    let kdf = match node.get("type").text()? {
        "pbkdf2" => {
            let hash = node.get("hash").text()?;
            let Ok(hash) = Hash::by_name(hash) else {
                return Ok(SlotKdf::Unknown(format!("hash {hash:?}")));
            };
            Kdf::Pbkdf2 { hash, iterations: number("iterations")? }
        }
        name @ ("argon2i" | "argon2id") => Kdf::Argon2 {
            id: name == "argon2id",
            time: number("time")?,
            memory: number("memory")?,
            cpus: number("cpus")?,
        },
        other => return Ok(SlotKdf::Unknown(format!("key derivation {other:?}"))),
    };
    Ok(SlotKdf::Known { kdf, salt })
}

fn digests(
    node: &Node<'_>,
    keyslots: &BTreeMap<u32, Keyslot>,
    segments: usize,
) -> Result<Vec<Digest>> {
    node.numbered(8)?.values().map(|node| digest(node, keyslots, segments)).collect()
}

fn digest(
    node: &Node<'_>,
    keyslots: &BTreeMap<u32, Keyslot>,
    segment_count: usize,
) -> Result<Digest> {
    let slots = node.get("keyslots").references()?;
    if slots.iter().any(|slot| !keyslots.contains_key(slot)) {
        return Err(node.get("keyslots").refuse("key slots that exist"));
    }
    let segments = node.get("segments").references()?;
    if segments.iter().any(|segment| *segment as usize >= segment_count) {
        return Err(node.get("segments").refuse("segments that exist"));
    }
    let foreign = node.get("type").text()? != "pbkdf2";
    let mut digest = Digest {
        keyslots: slots,
        segments,
        hash: String::new(),
        iterations: 0,
        salt: Vec::new(),
        digest: Vec::new(),
        foreign,
    };
    if !foreign {
        digest.hash = node.get("hash").text()?.to_owned();
        digest.iterations = node.get("iterations").number32()?;
        digest.salt = node.get("salt").base64()?;
        digest.digest = node.get("digest").base64()?;
        if digest.digest.len() < 16 || digest.digest.len() > 64 {
            return Err(node.get("digest").refuse("16 to 64 bytes"));
        }
    }
    Ok(digest)
}

/// Segments follow each other without gaps, and only the last may reach to the end of the store.
/// Backups that a reencryption keeps behind them are not part of the payload.
fn parse_segments(
    nodes: &BTreeMap<u32, Node<'_>>,
    digests: &[Digest],
    area: &Range<u64>,
    payload: Payload,
) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for (expected, (&number, node)) in (0_u32..).zip(nodes) {
        if number != expected {
            return Err(node.refuse("segments numbered without gaps"));
        }
        let flags = node.get("flags");
        if flags.is_there() && flags.array()?.iter().any(is_backup) {
            continue;
        }
        let segment = segment(node, number, digests)?;
        if payload == Payload::Behind && segment.offset < area.end {
            return Err(node.get("offset").refuse("a place behind the key slots"));
        }
        check_follows(&segments, &segment, node)?;
        segments.push(segment);
    }
    Ok(segments)
}

fn is_backup(flag: &Value) -> bool {
    flag.as_str().is_some_and(|flag| flag.starts_with("backup-"))
}

fn check_follows(before: &[Segment], segment: &Segment, node: &Node<'_>) -> Result<()> {
    let Some(last) = before.last() else { return Ok(()) };
    let end = last.size.and_then(|size| last.offset.checked_add(size));
    match end {
        Some(end) if end <= segment.offset => Ok(()),
        _ => Err(node
            .get("offset")
            .refuse("a place behind the segment before, which must have a size")),
    }
}

fn segment(node: &Node<'_>, number: u32, digests: &[Digest]) -> Result<Segment> {
    let offset = node.get("offset");
    let start = offset.decimal()?;
    if !start.is_multiple_of(512) {
        return Err(offset.refuse("a multiple of 512"));
    }
    let size = node.get("size");
    let len = if size.text()? == "dynamic" { None } else { Some(size.decimal()?) };
    if len
        .is_some_and(|len| len == 0 || !len.is_multiple_of(512) || start.checked_add(len).is_none())
    {
        return Err(size.refuse("dynamic, or a multiple of 512"));
    }
    let mut segment = Segment {
        offset: start,
        size: len,
        iv_tweak: 0,
        encryption: String::new(),
        sector_size: 512,
        digest: None,
        unsupported: None,
    };
    match node.get("type").text()? {
        "linear" => return Ok(segment),
        "crypt" => {}
        other => {
            segment.unsupported = Some(format!("a segment of type {other:?}"));
            return Ok(segment);
        }
    }
    segment.iv_tweak = node.get("iv_tweak").decimal()?;
    segment.encryption = node.get("encryption").text()?.to_owned();
    segment.sector_size = node.get("sector_size").number()?;
    if node.get("integrity").is_there() {
        segment.unsupported = Some("integrity protection".into());
    }
    let digest = digests.iter().position(|digest| digest.segments.contains(&number));
    segment.digest = Some(digest.ok_or_else(|| node.refuse("a segment that a digest names"))?);
    Ok(segment)
}

fn requirements(node: &Node<'_>) -> Result<Vec<String>> {
    if !node.is_there() || !node.get("mandatory").is_there() {
        return Ok(Vec::new());
    }
    let mandatory = node.get("mandatory");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = mandatory.array()?.iter().map(text).collect::<Option<Vec<_>>>();
    list.ok_or_else(|| mandatory.refuse("an array of text"))
}
