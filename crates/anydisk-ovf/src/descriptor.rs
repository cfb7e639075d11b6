//! The descriptor: XML to the files and disks it names. Pure.

use std::collections::{HashMap, HashSet};

use anydisk_core::{Error, Limits, Result, Value};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::{invalid, limits, name, text, units};

/// What a descriptor says of files and disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) files: Vec<File>,
    pub(crate) disks: Vec<Disk>,
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) id: String,
    /// Its name in the package.
    pub(crate) href: String,
    /// Bytes, as it lies in the package.
    pub(crate) size: Option<u64>,
    pub(crate) gzip: bool,
    /// It is cut into files of so many bytes.
    pub(crate) chunk: Option<u64>,
}

impl File {
    /// The name of a part: the file itself, or the chunk of this number.
    pub(crate) fn part_name(&self, number: usize) -> String {
        match self.chunk {
            Some(_) => format!("{}.{number:09}", self.href),
            None => self.href.clone(),
        }
    }
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) id: String,
    /// The file with its content; without one it is empty.
    pub(crate) file: Option<String>,
    /// In bytes.
    pub(crate) capacity: u64,
    /// The URI of its format.
    pub(crate) format: Option<String>,
    /// The disk that it changes.
    pub(crate) parent: Option<String>,
}

impl Descriptor {
    /// Reads a descriptor of any version.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) for text that is no such XML, has a document type or an
    /// entity of its own, or names what is not there; [`Error::Denied`] for names that are not
    /// plain; [`Error::Limit`].
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let mut reader = Reader::from_reader(utf8(bytes)?);
        let mut path: Vec<String> = Vec::new();
        let mut descriptor = Self::default();
        let mut envelope = false;
        loop {
            let at = reader.buffer_position();
            match reader.read_event() {
                Err(error) => return Err(broken(at, &error.to_string()).into()),
                Ok(Event::DocType(_)) => return Err(broken(at, "a document type").into()),
                Ok(Event::GeneralRef(entity)) if !is_known(&entity) => {
                    return Err(broken(at, "an entity").into());
                }
                Ok(Event::Start(element)) => {
                    envelope |= path.is_empty() && local(&element) == "Envelope";
                    descriptor.take(&path, &element, at, limits)?;
                    path.push(local(&element).to_owned());
                    limits::check("depth of the descriptor", path.len() as u64, DEPTH)?;
                }
                Ok(Event::Empty(element)) => descriptor.take(&path, &element, at, limits)?,
                Ok(Event::End(_)) => {
                    path.pop();
                }
                Ok(Event::Eof) if envelope && path.is_empty() => break,
                Ok(Event::Eof) => return Err(broken(at, "the end of the text").into()),
                Ok(_) => {}
            }
        }
        descriptor.check()?;
        Ok(descriptor)
    }

    fn take(
        &mut self,
        path: &[String],
        element: &BytesStart<'_>,
        at: u64,
        limits: &Limits,
    ) -> Result<()> {
        let parent = path.last().map_or("", String::as_str);
        match (parent, local(element)) {
            ("References", "File") => self.files.push(file(&Attributes::of(element, at)?)?),
            // "Section" in the drafts of the standard.
            ("DiskSection" | "Section", "Disk") => {
                self.disks.push(disk(&Attributes::of(element, at)?)?);
            }
            _ => return Ok(()),
        }
        let found = self.files.len().max(self.disks.len()) as u64;
        limits::check("files or disks of a package", found, limits.extents as u64)
    }

    /// Ids and names that stand for one thing each, and references to what is there.
    fn check(&self) -> Result<()> {
        let mut seen = HashSet::new();
        let files = self.files.iter().flat_map(|f| [("file ", &f.id), ("href ", &f.href)]);
        for (kind, id) in files.chain(self.disks.iter().map(|disk| ("disk ", &disk.id))) {
            if !seen.insert((kind, id)) {
                return Err(invalid("id or href", 0, text(id), "only one of each").into());
            }
        }
        for disk in &self.disks {
            let known = |id: &String| self.files.iter().any(|file| file.id == *id);
            if let Some(id) = disk.file.as_ref().filter(|id| !known(id)) {
                return Err(invalid("fileRef", 0, text(id), "the id of a file").into());
            }
            // A disk without a file is asked for by its id.
            if disk.file.is_none() {
                name::plain(&disk.id)?;
                if seen.contains(&("href ", &disk.id)) {
                    let expected = "a name that no file of the package has";
                    return Err(invalid("diskId", 0, text(&disk.id), expected).into());
                }
            }
        }
        self.check_parents()
    }

    /// Every chain of disks ends.
    fn check_parents(&self) -> Result<()> {
        let by_id: HashMap<&str, &Disk> =
            self.disks.iter().map(|disk| (disk.id.as_str(), disk)).collect();
        // Those that are known to lead to an end.
        let mut good = HashSet::new();
        for disk in &self.disks {
            let mut way = vec![disk];
            while let Some(id) = way.last().and_then(|last| last.parent.as_deref()) {
                if good.contains(id) {
                    break;
                }
                let Some(parent) = by_id.get(id).filter(|_| way.len() <= self.disks.len()) else {
                    return Err(invalid("parentRef", 0, text(id), "another disk").into());
                };
                way.push(parent);
            }
            good.extend(way.iter().map(|disk| disk.id.as_str()));
        }
        Ok(())
    }

    /// The file of this id.
    pub(crate) fn file(&self, id: &str) -> Option<&File> {
        self.files.iter().find(|file| file.id == id)
    }
}

const DEPTH: u64 = limits::DEPTH as u64;

/// The mark of UTF-8 that some editors put in front.
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The text without its mark.
///
/// # Errors
/// [`Error::Unsupported`] for UTF-16.
fn utf8(bytes: &[u8]) -> Result<&[u8]> {
    if is_utf16(bytes) {
        let feature = "a descriptor in UTF-16".into();
        return Err(Error::Unsupported { format: crate::NAME, feature });
    }
    Ok(bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes))
}

/// Whether a text begins as UTF-16 does: with its mark, or with `<`.
fn is_utf16(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 4] = [b"\xFF\xFE", b"\xFE\xFF", b"<\0", b"\0<"];
    starts.iter().any(|start| bytes.starts_with(start))
}

/// Bytes that tell whether a file is a descriptor.
pub(crate) const HEAD: usize = 1024;

/// Whether the start of a file is that of a descriptor, also of one that is refused.
pub(crate) fn begins(head: &[u8]) -> bool {
    let head = head.get(..head.len().min(HEAD)).unwrap_or_default();
    let plain: Vec<u8> = match is_utf16(head) {
        true => head.iter().copied().filter(u8::is_ascii).filter(|byte| *byte != 0).collect(),
        false => head.strip_prefix(UTF8_MARK).unwrap_or(head).to_vec(),
    };
    let is_envelope = |words: &[u8]| {
        words.strip_prefix(b"Envelope").is_some_and(|end| end.iter().all(u8::is_ascii_whitespace))
    };
    let starts: [&[u8]; 3] = [b"<?xml", b"<Envelope", b"<ovf:Envelope"];
    starts.iter().any(|start| plain.starts_with(start)) && plain.windows(9).any(is_envelope)
}

/// The five entities that XML itself has, and characters by number.
fn is_known(entity: &str) -> bool {
    matches!(entity, "amp" | "lt" | "gt" | "quot" | "apos") || entity.starts_with('#')
}

fn local<'e>(element: &'e BytesStart<'_>) -> &'e str {
    element.local_name().into_inner()
}

fn broken(at: u64, found: &str) -> anydisk_core::Invalid {
    let expected = "an OVF envelope: well-formed XML without document type and entities";
    invalid("descriptor", at, text(found), expected)
}

/// The attributes of an element, by their names without prefix.
struct Attributes {
    at: u64,
    all: Vec<(String, String)>,
}

impl Attributes {
    fn of(element: &BytesStart<'_>, at: u64) -> Result<Self> {
        let mut all = Vec::new();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| broken(at, &error.to_string()))?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_err(|error| broken(at, &error.to_string()))?.into_owned();
            all.push((attribute.key.local_name().into_inner().to_owned(), value));
        }
        Ok(Self { at, all })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.all.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &'static str) -> Result<String> {
        let missing = || invalid(name, self.at, Value::Missing, "an attribute").into();
        self.get(name).map(str::to_owned).ok_or_else(missing)
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>> {
        let Some(word) = self.get(name) else { return Ok(None) };
        match word.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(name, self.at, text(word), "a number").into()),
        }
    }
}

fn file(attributes: &Attributes) -> Result<File> {
    let href = attributes.required("href")?;
    let gzip = match attributes.get("compression") {
        None | Some("" | "identity") => false,
        Some("gzip") => true,
        Some(other) => {
            let feature = format!("compression {other}").into();
            return Err(Error::Unsupported { format: crate::NAME, feature });
        }
    };
    let chunk = attributes.number("chunkSize")?;
    if chunk == Some(0) {
        return Err(invalid("chunkSize", attributes.at, Value::Number(0), "at least 1").into());
    }
    let href = name::plain(&href)?.to_owned();
    Ok(File { id: attributes.required("id")?, href, size: attributes.number("size")?, gzip, chunk })
}

fn disk(attributes: &Attributes) -> Result<Disk> {
    let capacity = attributes.required("capacity")?;
    let said = attributes.get("capacityAllocationUnits");
    let Some(bytes) = units::capacity(&capacity, said) else {
        let found = text(&format!("{capacity} {}", said.unwrap_or("byte")));
        return Err(
            invalid("capacity", attributes.at, found, "a number of bytes below 2^64").into()
        );
    };
    Ok(Disk {
        id: attributes.required("diskId")?,
        file: attributes.get("fileRef").filter(|id| !id.is_empty()).map(str::to_owned),
        capacity: bytes,
        format: attributes.get("format").map(str::to_owned),
        parent: attributes.get("parentRef").filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope(body: &str) -> String {
        format!("<?xml version=\"1.0\"?>\n<Envelope xmlns:ovf=\"x\">{body}</Envelope>\n")
    }

    fn parse(text: impl AsRef<[u8]>) -> Result<Descriptor> {
        Descriptor::parse(text.as_ref(), &Limits::default())
    }

    #[test]
    fn more_files_than_one_image_may_have_are_refused() {
        let files = |count: usize| -> String {
            (0..count).map(|n| format!("<File id=\"{n}\" href=\"{n}\"/>")).collect()
        };
        let parse = |count| {
            let text = envelope(&format!("<References>{}</References>", files(count)));
            Descriptor::parse(text.as_bytes(), &Limits::strict())
        };
        assert_eq!(parse(64).unwrap().files.len(), 64);
        let error = parse(65).unwrap_err().to_string();
        assert!(error.contains("more than the limit of 64"), "{error}");
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn files_and_disks_are_read_whatever_the_prefix() {
        for prefix in ["ovf:", ""] {
            let body = format!(
                "<References><File {prefix}id=\"f\" {prefix}href=\"a &amp; b.vmdk\" \
                 {prefix}size=\"7\" {prefix}compression=\"gzip\"/></References>\
                 <DiskSection><Info>Disks &lt;</Info><Disk {prefix}diskId=\"d\" \
                 {prefix}fileRef=\"f\" {prefix}capacity=\"2\" \
                 {prefix}capacityAllocationUnits=\"byte * 2^20\"/>\
                 <Disk {prefix}diskId=\"e\" {prefix}capacity=\"9\"></Disk></DiskSection>"
            );
            let descriptor = parse(envelope(&body)).unwrap();
            let file = descriptor.file("f").unwrap();
            assert_eq!((file.href.as_str(), file.size, file.gzip), ("a & b.vmdk", Some(7), true));
            let disks = &descriptor.disks;
            assert_eq!((disks[0].file.as_deref(), disks[0].capacity), (Some("f"), 2 << 20));
            assert_eq!((disks[1].file.as_deref(), disks[1].capacity), (None, 9));
        }
    }

    #[test]
    fn document_types_entities_and_what_is_no_envelope_are_refused() {
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\">]>".to_owned() + &envelope("&a;");
        assert!(refusal(&bomb).contains("is \"a document type\""));
        assert!(refusal(&envelope("&a;")).contains("is \"an entity\""));
        let own = "<References><File href=\"&a;\" id=\"f\"/></References>";
        assert!(refusal(&envelope(own)).contains("descriptor at"));
        for text in ["", "<a/>", "<Envelope>", "<Envelope></Other>", "text", "<Envelope/><"] {
            assert!(refusal(text).contains("expected an OVF envelope"), "{text}");
        }
        let deep = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
        assert!(refusal(&envelope(&deep)).contains("more than the limit of 64"));
    }

    #[test]
    fn a_mark_of_utf8_is_passed_over_and_utf16_is_refused_by_its_name() {
        let text = envelope("<References/>");
        let marked = [UTF8_MARK, text.as_bytes()].concat();
        parse(&marked).unwrap();
        assert!(begins(&marked));
        for (mark, swap) in [(&b"\xFF\xFE"[..], false), (b"\xFE\xFF", true), (b"", false)] {
            let units = text.encode_utf16().map(|u| if swap { u.swap_bytes() } else { u });
            let wide: Vec<u8> =
                mark.iter().copied().chain(units.flat_map(u16::to_le_bytes)).collect();
            assert!(begins(&wide));
            let error = parse(&wide).unwrap_err().to_string();
            assert!(error.contains("a descriptor in UTF-16 is not supported"), "{error}");
        }
        assert!(!begins(b"<?xml version=\"1.0\"?><html> Envelopes </html>"));
    }

    #[test]
    fn chains_of_disks_that_do_not_end_are_refused() {
        let disks = |parents: [&str; 3]| {
            let disk = |(id, parent): (&str, &str)| {
                format!("<Disk diskId=\"{id}\" parentRef=\"{parent}\" capacity=\"1\"/>")
            };
            let disks: String = ["a", "b", "c"].into_iter().zip(parents).map(disk).collect();
            envelope(&format!("<DiskSection>{disks}</DiskSection>"))
        };
        parse(disks(["", "a", "b"])).unwrap();
        parse(disks(["b", "c", ""])).unwrap();
        for parents in [["a", "", ""], ["b", "c", "a"], ["", "z", ""], ["b", "b", ""]] {
            assert!(refusal(&disks(parents)).contains("expected another disk"), "{parents:?}");
        }
    }

    #[test]
    fn what_is_named_twice_or_not_at_all_is_refused() {
        let file = "<File id=\"f\" href=\"x\"/>";
        for (body, complaint) in [
            (format!("<References>{file}{file}</References>"), "only one of each"),
            ("<References><File id=\"f\" href=\"../x\"/></References>".into(), "not paths"),
            ("<References><File id=\"f\" href=\"http://x/y\"/></References>".into(), "not paths"),
            ("<References><File id=\"f\"/></References>".into(), "href at"),
            (
                format!(
                    "<References>{file}</References><DiskSection><Disk diskId=\"d\" fileRef=\"f\" \
                     capacity=\"1\"/><Disk diskId=\"x\" capacity=\"1\"/></DiskSection>"
                ),
                "diskId at 0x0 is \"x\", expected a name that no file of the package has",
            ),
            (
                "<DiskSection><Disk diskId=\"a/b\" capacity=\"1\"/></DiskSection>".into(),
                "not paths",
            ),
            (
                "<DiskSection><Disk diskId=\"d\" fileRef=\"z\" capacity=\"1\"/></DiskSection>"
                    .into(),
                "fileRef at 0x0 is \"z\"",
            ),
            (
                "<DiskSection><Disk diskId=\"d\" capacity=\"1\" \
              capacityAllocationUnits=\"byte * 2^64\"/></DiskSection>"
                    .into(),
                "capacity at",
            ),
        ] {
            let refusal = refusal(&envelope(&body));
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(parts in proptest::collection::vec(
            proptest::sample::select(vec!["<", ">", "/", "Envelope", "References", "File", " id=", "\"", "&", ";", "<!", "]]>", "a", "\u{e9}"]), 0..40,
        )) {
            let _ = parse(parts.concat());
        }
    }
}
