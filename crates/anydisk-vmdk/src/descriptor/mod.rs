//! The descriptor: the text that says what the disk is made of. Pure.
//!
//! The text is kept line by line, byte for byte. A changed value changes its own line only, so
//! what we do not know stays as its writer left it.

mod charset;
mod edit;
mod extent;
mod text;

pub(crate) use extent::{ExtentAccess, ExtentKind, ExtentLine};
pub(crate) use text::{Line, is_descriptor};

use anydisk_core::{HostOffset, Invalid, Limits, Result, Value};

use self::charset::Charset;
use crate::NAME;
use crate::header::{limit, unsupported};

/// `parentCID` of a disk without parent.
pub(crate) const NO_PARENT: u32 = u32::MAX;

/// A CID that stands for none: never written, or only the long content ID counts.
pub(crate) const NO_CONTENT_ID: u32 = 0xFFFF_FFFE;

/// Create types that stand for host devices.
const DEVICE_TYPES: [&str; 8] = [
    "fullDevice",
    "partitionedDevice",
    "vmfsRaw",
    "vmfsRDM",
    "vmfsRDMP",
    "vmfsRawDeviceMap",
    "vmfsPassthroughRawDeviceMap",
    "vmfsPassthroughRawDeviceMapping",
];

/// A descriptor that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    lines: Vec<Line>,
    /// Where the text begins in its file.
    at: HostOffset,
    /// How names are written in it.
    charset: Charset,
    /// `CID`; `None` where it says that it is none.
    pub(crate) content_id: Option<u32>,
    /// `parentCID`; `None` without a parent.
    pub(crate) parent: Option<Parent>,
    /// `createType`, empty if it is missing.
    pub(crate) create_type: String,
    /// The extents, in guest order.
    pub(crate) extents: Vec<ExtentLine>,
}

/// The image below, as the descriptor names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// `parentFileNameHint`, in UTF-8 where the text says how it is written.
    pub(crate) name: Vec<u8>,
    /// `parentCID`; `None` where it says that it is none.
    pub(crate) content_id: Option<u32>,
    /// `parentCID`, whatever it says.
    pub(crate) raw_content_id: u32,
}

impl Descriptor {
    /// Understands the text that begins at `at` in its file.
    ///
    /// # Errors
    /// [`Error::Invalid`](anydisk_core::Error::Invalid) for a malformed line,
    /// [`Error::Unsupported`](anydisk_core::Error::Unsupported) for devices and versions from the
    /// future, [`Error::Limit`](anydisk_core::Error::Limit).
    pub(crate) fn parse(text: &[u8], at: HostOffset, limits: &Limits) -> Result<Self> {
        limit("size of the descriptor in bytes", text.len() as u64, limits.descriptor as u64)?;
        let text = until_padding(text, at)?;
        if !is_descriptor(text) {
            return Err(invalid(
                "version",
                at,
                &text[..text.len().min(16)],
                "the text of a descriptor",
            )
            .into());
        }
        let lines = text::lines(text, at);
        let keys = Keys(&lines);
        keys.check_version()?;
        let create_type = String::from_utf8_lossy(keys.value("createType").unwrap_or_default());
        let create_type = create_type.into_owned();
        let of_device = DEVICE_TYPES.iter().any(|word| word.eq_ignore_ascii_case(&create_type));
        let content_id = keys.content_id("CID")?.filter(|id| *id != NO_CONTENT_ID);
        let charset = Charset::of(keys.value("encoding"));
        let mut parent = keys.parent(at)?;
        parent.iter_mut().for_each(|parent| parent.name = charset.decode(&parent.name));
        let mut extents = extents(&lines, limits)?;
        for line in &mut extents {
            line.is_device |= of_device;
            line.name = charset.decode(&line.written);
        }
        Ok(Self { content_id, parent, create_type, extents, at, charset, lines })
    }

    /// In place of the descriptor of an extent that is opened by itself.
    pub(crate) fn missing() -> Self {
        Self {
            lines: Vec::new(),
            at: HostOffset::ZERO,
            charset: Charset::of(None),
            content_id: None,
            parent: None,
            create_type: String::new(),
            extents: Vec::new(),
        }
    }

    /// The first value of a key, without its quotes.
    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        Keys(&self.lines).value(key)
    }

    /// Where the text begins in its file.
    pub(crate) fn at(&self) -> HostOffset {
        self.at
    }
}

/// The text before its padding. Bytes after the padding would be text that nobody sees.
fn until_padding(text: &[u8], at: HostOffset) -> Result<&[u8]> {
    let Some(end) = text.iter().position(|byte| *byte == 0) else { return Ok(text) };
    // An embedded descriptor fills whole sectors; remains of an older, longer text may follow.
    let mid_line = end > 0 && text[end - 1] != b'\n';
    if mid_line && text[end..].iter().any(|byte| *byte != 0) {
        let start = text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = text[start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let place = at.saturating_add(end as u64);
        return Err(invalid("text", place, line, "no NUL inside a line").into());
    }
    Ok(&text[..end])
}

fn extents(lines: &[Line], limits: &Limits) -> Result<Vec<ExtentLine>> {
    let count = lines.iter().filter(|line| line.is_extent()).count();
    limit("number of extents", count as u64, limits.extents as u64)?;
    lines.iter().filter(|line| line.is_extent()).map(ExtentLine::parse).collect()
}

/// Looks keys up in lines. The first of several lines with one key counts.
struct Keys<'a>(&'a [Line]);

impl<'a> Keys<'a> {
    fn line(&self, key: &str) -> Option<&'a Line> {
        self.0.iter().find(|line| line.is_pair(key))
    }

    fn value(&self, key: &str) -> Option<&'a [u8]> {
        self.line(key).and_then(Line::value)
    }

    fn check_version(&self) -> Result<()> {
        match self.value("version") {
            // Files begin with the key; who leaves it out means the only version there was.
            None | Some(b"1" | b"2" | b"3") => Ok(()),
            Some(other) => {
                let version = String::from_utf8_lossy(other).into_owned();
                Err(unsupported(format!("descriptor version {version}")))
            }
        }
    }

    fn content_id(&self, key: &'static str) -> Result<Option<u32>> {
        let Some(line) = self.line(key) else { return Ok(None) };
        let value = line.value().unwrap_or_default();
        let digits = std::str::from_utf8(value).ok().filter(|text| {
            (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        match digits.and_then(|text| u32::from_str_radix(text, 16).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(invalid(key, line.at(), value, "1 to 8 hexadecimal digits").into()),
        }
    }

    fn parent(&self, at: HostOffset) -> Result<Option<Parent>> {
        let raw_content_id = match self.content_id("parentCID")? {
            None | Some(NO_PARENT) => return Ok(None),
            Some(id) => id,
        };
        let Some(name) = self.value("parentFileNameHint").filter(|name| !name.is_empty()) else {
            let expected = "the name of the parent, as parentCID says that there is one";
            return Err(Invalid {
                format: NAME,
                field: "parentFileNameHint".into(),
                at,
                found: Value::Missing,
                expected: expected.into(),
            }
            .into());
        };
        let content_id = Some(raw_content_id).filter(|id| *id != NO_CONTENT_ID);
        Ok(Some(Parent { name: name.to_vec(), content_id, raw_content_id }))
    }
}

/// An [`Invalid`] about text.
fn invalid(
    field: &'static str,
    at: HostOffset,
    found: &[u8],
    expected: impl Into<std::borrow::Cow<'static, str>>,
) -> Invalid {
    Invalid {
        format: NAME,
        field: field.into(),
        at,
        found: found.into(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests;
