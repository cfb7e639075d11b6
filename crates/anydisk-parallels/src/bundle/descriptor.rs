//! The descriptor of a bundle: XML to the files it names. Pure.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use anydisk_core::{Error, HostOffset, Invalid, Limits, Result, Uuid, Value};
use quick_xml::events::Event;
use quick_xml::reader::Reader;

use crate::NAME;
use crate::header::{limit, unsupported};
use crate::layout::SECTOR;
use crate::limits;

/// Elements inside each other: five are needed.
const DEPTH: u64 = 16;

/// The element around all.
const ROOT: &str = "Parallels_disk_image";

/// The state that is the disk, if the descriptor does not say which.
const USUAL_TOP: Uuid = Uuid::from_bytes([
    0x5f, 0xba, 0xab, 0xe3, 0x69, 0x58, 0x40, 0xff, 0x92, 0xa7, 0x86, 0x0e, 0x32, 0x9a, 0xab, 0x41,
]);

/// What a descriptor says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// The parts of the disk, from its start on without gaps.
    pub(crate) parts: Vec<PartFiles>,
    /// The states of the disk, from the present one down to the first.
    pub(crate) chain: Vec<Uuid>,
}

/// The files of a part of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartFiles {
    /// First byte, and first byte behind.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// One for each state of the chain.
    pub(crate) files: Vec<FileOf>,
}

/// A file that holds one state of a part of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileOf {
    pub(crate) kind: FileKind,
    /// Its name, as it stands there.
    pub(crate) name: String,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// An expandable image.
    Expandable,
    /// Nothing but the bytes of the disk.
    Plain,
}

/// Whether a file begins as a descriptor does, also one that is refused.
pub(crate) fn begins(head: &[u8]) -> bool {
    let head = head.get(..head.len().min(1024)).unwrap_or_default();
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let has_root = head
        .windows(ROOT.len() + 1)
        .any(|words| words.strip_prefix(b"<").is_some_and(|name| name == ROOT.as_bytes()));
    head.trim_ascii_start().starts_with(b"<") && has_root
}

/// What stands in the elements, not checked yet.
#[derive(Debug, Default)]
struct Raw {
    size: Option<u64>,
    parts: Vec<RawPart>,
    shots: Vec<RawShot>,
    top: Option<Uuid>,
}

#[derive(Debug, Default)]
struct RawPart {
    start: Option<u64>,
    end: Option<u64>,
    images: Vec<RawImage>,
}

#[derive(Debug, Default)]
struct RawImage {
    guid: Option<Uuid>,
    kind: Option<FileKind>,
    file: Option<String>,
}

#[derive(Debug, Default)]
struct RawShot {
    guid: Option<Uuid>,
    parent: Option<Uuid>,
}

impl Descriptor {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// [`Invalid`] for text that is no such XML, has a document type or an entity of its own, or
    /// contradicts itself; `Unsupported` for encrypted disks and what is not known; `Limit`.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        limit("size of the descriptor in bytes", bytes.len() as u64, limits.descriptor as u64)?;
        let raw = read(bytes, limits)?;
        let chain = chain(&raw)?;
        let size = raw.size.ok_or_else(|| missing("Disk_size"))?;
        limit("size of the disk in bytes", size, limits::DISK)?;
        let mut parts: Vec<PartFiles> =
            raw.parts.iter().map(|part| part_of(part, &chain)).collect::<Result<_>>()?;
        parts.sort_by_key(|part| part.start);
        let mut end = 0;
        for part in &parts {
            if part.start != end || part.end <= part.start {
                let found = Value::Number(part.start / SECTOR);
                let expected =
                    format!("{}, where the part before ends, and End behind it", end / SECTOR);
                return Err(invalid("Start of a Storage", found, expected));
            }
            end = part.end;
        }
        if end != size || parts.is_empty() {
            let found = Value::Number(size / SECTOR);
            let expected = format!("{}, where the last part ends", end / SECTOR);
            return Err(invalid("Disk_size", found, expected));
        }
        Ok(Self { size, parts, chain })
    }
}

/// The elements, one after the other.
fn read(bytes: &[u8], limits: &Limits) -> Result<Raw> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut reader = Reader::from_reader(bytes);
    let (mut raw, mut path, mut text) = (Raw::default(), String::new(), String::new());
    let mut has_root = false;
    loop {
        let at = reader.buffer_position();
        match reader.read_event() {
            Err(error) => return Err(broken(at, &error.to_string())),
            Ok(Event::DocType(_)) => return Err(broken(at, "a document type")),
            Ok(Event::Start(element)) => {
                push(&mut path, element.local_name().into_inner())?;
                has_root |= path == ROOT;
                raw.begin(&path, limits)?;
                text.clear();
            }
            Ok(Event::Empty(element)) => {
                push(&mut path, element.local_name().into_inner())?;
                raw.begin(&path, limits)?;
                raw.end(&path, "", at)?;
                pop(&mut path);
            }
            Ok(Event::Text(part)) => text.push_str(&part.xml10_content()),
            Ok(Event::CData(part)) => text.push_str(&part.xml10_content()),
            Ok(Event::GeneralRef(entity)) => {
                let found = match entity.resolve_char_ref() {
                    Ok(Some(letter)) => Some(letter),
                    _ => known_entity(&entity),
                };
                text.push(found.ok_or_else(|| broken(at, "an entity"))?);
            }
            Ok(Event::End(_)) => {
                raw.end(&path, text.trim(), at)?;
                text.clear();
                pop(&mut path);
            }
            Ok(Event::Eof) if has_root && path.is_empty() => return Ok(raw),
            Ok(Event::Eof) => return Err(broken(at, "the end of the text")),
            Ok(_) => {}
        }
    }
}

fn push(path: &mut String, name: &str) -> Result<()> {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
    let depth = path.bytes().filter(|byte| *byte == b'/').count() as u64;
    limit("depth of the descriptor", depth, DEPTH)
}

fn pop(path: &mut String) {
    path.truncate(path.rfind('/').unwrap_or(0));
}

/// The entities that XML itself has.
pub(super) fn known_entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

impl Raw {
    /// An element begins.
    fn begin(&mut self, path: &str, limits: &Limits) -> Result<()> {
        match inside(path) {
            "StorageData/Storage" => self.parts.push(RawPart::default()),
            "StorageData/Storage/Image" => {
                if let Some(part) = self.parts.last_mut() {
                    part.images.push(RawImage::default());
                }
            }
            "Snapshots/Shot" => self.shots.push(RawShot::default()),
            _ => return Ok(()),
        }
        let images: usize = self.parts.iter().map(|part| part.images.len()).sum();
        let most = limits.extents as u64;
        limit("files of a bundle", images.max(self.parts.len()) as u64, most)?;
        limit("states of a bundle", self.shots.len() as u64, most)
    }

    /// An element ends that holds this text.
    fn end(&mut self, path: &str, text: &str, at: u64) -> Result<()> {
        let image = || "a Storage begins before what is in it";
        match inside(path) {
            "Disk_Parameters/Disk_size" => self.size = Some(sectors(text, at)?),
            "Disk_Parameters/Padding" if number(text, at)? != 0 => {
                return Err(unsupported("a bundle with padding"));
            }
            "Disk_Parameters/LogicSectorSize" if number(text, at)? != SECTOR => {
                return Err(unsupported(format!("sectors of {} bytes", number(text, at)?)));
            }
            "Disk_Parameters/Encryption/Engine"
                if !text.is_empty() && !guid(text, at)?.is_nil() =>
            {
                return Err(unsupported("an encrypted bundle"));
            }
            "Snapshots/TopGUID" => self.top = Some(guid(text, at)?),
            "StorageData/Storage/Start" => self.part(image)?.start = Some(sectors(text, at)?),
            "StorageData/Storage/End" => self.part(image)?.end = Some(sectors(text, at)?),
            "StorageData/Storage/Image/GUID" => self.image(image)?.guid = Some(guid(text, at)?),
            "StorageData/Storage/Image/Type" => self.image(image)?.kind = Some(kind(text)?),
            "StorageData/Storage/Image/File" => self.image(image)?.file = Some(text.to_owned()),
            "Snapshots/Shot/GUID" => self.shot()?.guid = Some(guid(text, at)?),
            "Snapshots/Shot/ParentGUID" => self.shot()?.parent = Some(guid(text, at)?),
            _ => {}
        }
        Ok(())
    }

    fn part(&mut self, expected: impl Fn() -> &'static str) -> Result<&mut RawPart> {
        self.parts.last_mut().ok_or_else(|| broken(0, expected()))
    }

    fn image(&mut self, expected: impl Fn() -> &'static str) -> Result<&mut RawImage> {
        let image = self.parts.last_mut().and_then(|part| part.images.last_mut());
        image.ok_or_else(|| broken(0, expected()))
    }

    fn shot(&mut self) -> Result<&mut RawShot> {
        self.shots.last_mut().ok_or_else(|| broken(0, "a Shot begins before what is in it"))
    }
}

/// The path below the root, empty outside of it.
fn inside(path: &str) -> &str {
    path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default()
}

/// The states from the present one down to the first: each names the one it was made over.
fn chain(raw: &Raw) -> Result<Vec<Uuid>> {
    let mut next = raw.top.unwrap_or(USUAL_TOP);
    let mut chain = Vec::new();
    while !next.is_nil() {
        if chain.len() >= raw.shots.len() {
            // More steps than there are states: it comes back to one of them, or there is none.
            let expected = "the GUID of a Shot, whose ParentGUIDs lead to the first one".to_owned();
            return Err(invalid("GUID of a state", text_of(next), expected));
        }
        let Some(shot) = raw.shots.iter().find(|shot| shot.guid == Some(next)) else {
            let expected = "the GUID of a Shot".to_owned();
            return Err(invalid("GUID of a state", text_of(next), expected));
        };
        chain.push(next);
        next = shot.parent.ok_or_else(|| missing("ParentGUID"))?;
    }
    match chain.is_empty() {
        true => Err(missing("TopGUID")),
        false => Ok(chain),
    }
}

fn part_of(raw: &RawPart, chain: &[Uuid]) -> Result<PartFiles> {
    let file = |guid: &Uuid| {
        let image = raw.images.iter().find(|image| image.guid == Some(*guid));
        let Some(image) = image else {
            let expected = "the GUID of an Image in each Storage".to_owned();
            return Err(invalid("GUID of a state", text_of(*guid), expected));
        };
        Ok(FileOf {
            kind: image.kind.ok_or_else(|| missing("Type"))?,
            name: image.file.clone().ok_or_else(|| missing("File"))?,
        })
    };
    Ok(PartFiles {
        start: raw.start.ok_or_else(|| missing("Start"))?,
        end: raw.end.ok_or_else(|| missing("End"))?,
        files: chain.iter().map(file).collect::<Result<_>>()?,
    })
}

fn kind(text: &str) -> Result<FileKind> {
    match text {
        "Compressed" => Ok(FileKind::Expandable),
        "Plain" => Ok(FileKind::Plain),
        other => Err(unsupported(format!("a file of type {other:?}"))),
    }
}

fn number(text: &str, at: u64) -> Result<u64> {
    text.parse().map_err(|_| Error::from(element(at, text, "a number")))
}

/// A number of sectors, in bytes.
fn sectors(text: &str, at: u64) -> Result<u64> {
    let bytes = number(text, at)?.checked_mul(SECTOR).filter(|bytes| *bytes <= limits::DISK);
    bytes.ok_or_else(|| Error::from(element(at, text, "sectors of a disk of less than 2^63 bytes")))
}

fn guid(text: &str, at: u64) -> Result<Uuid> {
    text.parse().map_err(|_| Error::from(element(at, text, "a GUID in braces")))
}

fn text_of(guid: Uuid) -> Value {
    Value::from(format!("{{{guid}}}").as_bytes())
}

fn element(at: u64, found: &str, expected: &'static str) -> Invalid {
    let found = Value::from(found.as_bytes());
    let (format, field, at) = (NAME, "element".into(), HostOffset(at));
    Invalid { format, field, at, found, expected: expected.into() }
}

fn invalid(field: &'static str, found: Value, expected: String) -> Error {
    let (format, field, at) = (NAME, field.into(), HostOffset::ZERO);
    Invalid { format, field, at, found, expected: expected.into() }.into()
}

fn missing(field: &'static str) -> Error {
    invalid(field, Value::Missing, "an element of that name".into())
}

fn broken(at: u64, found: &str) -> Error {
    let expected = "a disk descriptor: well-formed XML without document type and entities".into();
    let (found, field) = (Value::from(found.as_bytes()), "descriptor".into());
    Invalid { format: NAME, field, at: HostOffset(at), found, expected }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIL: &str = "{00000000-0000-0000-0000-000000000000}";
    const TOP: &str = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    const ROOT_GUID: &str = "{11111111-2222-3333-4444-555555555555}";

    fn storage(start: u64, end: u64, guids: &[&str]) -> String {
        let image = |guid: &&str| {
            format!(
                "<Image><GUID>{guid}</GUID><Type>Compressed</Type><File>{start} &amp; {guid}</File></Image>"
            )
        };
        let images: String = guids.iter().map(image).collect();
        format!(
            "<Storage><Start>{start}</Start><End> {end}\n</End><Blocksize>2048</Blocksize>{images}</Storage>"
        )
    }

    fn shot(guid: &str, parent: &str) -> String {
        format!("<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>")
    }

    fn text(parameters: &str, storages: &str, snapshots: &str) -> String {
        format!(
            "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\
             <Disk_Parameters>{parameters}</Disk_Parameters><StorageData>{storages}</StorageData>\
             <Snapshots>{snapshots}</Snapshots></Parallels_disk_image>\n"
        )
    }

    fn parse(text: &str) -> Result<Descriptor> {
        Descriptor::parse(text.as_bytes(), &Limits::default())
    }

    /// Two parts, two states.
    fn good() -> [String; 3] {
        let guids = [ROOT_GUID, TOP];
        [
            "<Disk_size>30</Disk_size><Padding>0</Padding>".to_owned(),
            storage(10, 30, &guids) + &storage(0, 10, &guids),
            shot(TOP, ROOT_GUID) + &shot(ROOT_GUID, NIL),
        ]
    }

    #[test]
    fn parts_and_states_are_read_in_their_order() {
        let [parameters, storages, snapshots] = good();
        let text = text(&parameters, &storages, &snapshots);
        assert!(begins(text.as_bytes()) && begins(format!("\u{feff}{text}").as_bytes()));
        assert!(!begins(b"<?xml version='1.0'?><Envelope/>"));
        let found = parse(&text).expect("it is good");
        assert_eq!((found.size, found.chain.len()), (30 * 512, 2));
        let places: Vec<_> = found.parts.iter().map(|part| (part.start, part.end)).collect();
        assert_eq!(places, [(0, 10 * 512), (10 * 512, 30 * 512)]);
        let names: Vec<_> = found.parts[1].files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, [format!("10 & {TOP}"), format!("10 & {ROOT_GUID}")]);
    }

    #[test]
    fn a_descriptor_that_contradicts_itself_is_refused_with_what_was_expected() {
        let [size, storages, shots] = good();
        let guids = [TOP, ROOT_GUID];
        for (text, expected) in [
            (
                text("<Disk_size>31</Disk_size>", &storages, &shots),
                "Disk_size at 0x0 is 31, expected 30, where the last part ends",
            ),
            (text("", &storages, &shots), "Disk_size at 0x0 is missing"),
            (
                text(&size, &storage(1, 30, &guids), &shots),
                "Start of a Storage at 0x0 is 1, expected 0, where",
            ),
            (
                text(&size, &(storage(0, 20, &guids) + &storage(10, 30, &guids)), &shots),
                "Start of a Storage at 0x0 is 10, expected 20, where",
            ),
            (
                text(&size, "", &shots),
                "Disk_size at 0x0 is 30, expected 0, where the last part ends",
            ),
            (
                text(&size, &storages, &shot(TOP, TOP)),
                "GUID of a state at 0x0 is \"{5fbaabe3-6958-40ff-92a7-860e329aab41}\", expected the GUID of a Shot, whose",
            ),
            (
                text(&size, &storages, &(shot(TOP, ROOT_GUID) + &shot(ROOT_GUID, TOP))),
                "GUID of a state",
            ),
            (
                text(&size, &storages, &shot(ROOT_GUID, NIL)),
                "GUID of a state at 0x0 is \"{5fbaabe3-6958-40ff-92a7-860e329aab41}\", expected the GUID of a Shot",
            ),
            (
                text(&size, &storage(0, 30, &[TOP]), &shots),
                "GUID of a state at 0x0 is \"{11111111-2222-3333-4444-555555555555}\", expected the GUID of an Image in each Storage",
            ),
            (
                text(&(size.clone() + "<Padding>1</Padding>"), &storages, &shots),
                "a bundle with padding is not supported",
            ),
            (
                text(
                    &(size.clone() + "<LogicSectorSize>4096</LogicSectorSize>"),
                    &storages,
                    &shots,
                ),
                "sectors of 4096 bytes is not supported",
            ),
            (
                text(
                    &format!("{size}<Encryption><Engine>{TOP}</Engine></Encryption>"),
                    &storages,
                    &shots,
                ),
                "an encrypted bundle is not supported",
            ),
            (
                text(&size, &storages.replace("Compressed", "Odd"), &shots),
                "a file of type \"Odd\" is not supported",
            ),
            (text("<Disk_size>x</Disk_size>", &storages, &shots), "element at"),
            (text("<Disk_size>18446744073709551615</Disk_size>", &storages, &shots), "element at"),
            ("<Parallels_disk_image>".into(), "descriptor at"),
            (
                "<!DOCTYPE x><Parallels_disk_image/>".into(),
                "descriptor at 0x0 is \"a document type\"",
            ),
            (
                "<Parallels_disk_image>&x;</Parallels_disk_image>".into(),
                "descriptor at 0x16 is \"an entity\"",
            ),
        ] {
            let error = parse(&text).expect_err(&text).to_string();
            assert!(error.starts_with(&format!("parallels: {expected}")), "{error}");
        }
    }

    #[test]
    fn depth_files_and_size_are_limited() {
        let deep = format!("<{ROOT}>{}", "<a>".repeat(20));
        assert!(parse(&deep).expect_err("too deep").to_string().contains("depth"), "{deep}");
        let [size, storages, shots] = good();
        let many = text(&size, &storages.repeat(40), &shots);
        let strict = |text: &str| Descriptor::parse(text.as_bytes(), &Limits::strict());
        assert!(strict(&many).expect_err("too many").to_string().contains("files of a bundle"));
        let many = text(&size, &storages, &shots.repeat(40));
        assert!(strict(&many).expect_err("too many").to_string().contains("states of a bundle"));
        let long = text(&size, &storages, &(shots + &" ".repeat(64 << 10)));
        assert!(
            strict(&long).expect_err("too long").to_string().contains("size of the descriptor")
        );
    }
}
