//! The property list: XML to the tables in it. Pure.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use anydisk_core::{HostOffset, Invalid, Result, Value};
use quick_xml::events::Event;
use quick_xml::reader::Reader;

use crate::NAME;
use crate::limits::DEPTH;

/// The keys that lead to a table.
const WAY: [&str; 3] = ["resource-fork", "blkx", "Data"];

/// Hands every table of the property list `text`, which lies at `base` of the file, to `found`, with
/// the place of its text.
///
/// The document type that Apple's files have is passed over; entities are not expanded.
///
/// # Errors
/// [`Error::Invalid`](anydisk_core::Error::Invalid) for text that is no such XML, or base64; those of
/// `found`.
pub(crate) fn tables(
    text: &[u8],
    base: HostOffset,
    mut found: impl FnMut(HostOffset, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::from_reader(text);
    let mut place = Place::default();
    loop {
        let at = base.saturating_add(reader.buffer_position());
        match reader.read_event() {
            Err(error) => return Err(broken(at, &error.to_string(), "XML")),
            Ok(Event::Eof) if place.is_closed() => return Ok(()),
            Ok(Event::Eof) => return Err(broken(at, "the end of the text", "</plist>")),
            Ok(Event::DocType(text)) if text.contains('[') => {
                return Err(broken(at, "entities of its own", "a plain document type"));
            }
            Ok(Event::GeneralRef(_)) if place.leads_to_table() => {
                return Err(broken(at, "an entity", "base64"));
            }
            Ok(Event::Start(element)) => {
                if !place.open(element.name().as_ref()) {
                    return Err(broken(at, "deeper nesting", "up to 32 elements"));
                }
            }
            Ok(Event::End(_)) => {
                if let Some((at, text)) = place.close() {
                    found(at, base64(text.as_bytes(), at)?)?;
                }
            }
            Ok(Event::Text(text)) => place.take(at, &text),
            Ok(Event::CData(text)) => place.take(at, &text),
            Ok(_) => {}
        }
    }
}

/// Where in the property list the reader is.
#[derive(Default)]
struct Place {
    /// The open elements, and the key under which each stands in its dictionary.
    open: Vec<(String, String)>,
    /// The key that was read last.
    key: String,
    /// The text of a table, and where it begins: a comment may stand in it.
    table: Option<(HostOffset, String)>,
    seen: bool,
}

impl Place {
    /// False if there are too many.
    fn open(&mut self, name: &str) -> bool {
        self.seen = true;
        let before = std::mem::take(&mut self.key);
        let key = if name == "key" { String::new() } else { before };
        self.open.push((name.to_owned(), key));
        self.open.len() <= DEPTH
    }

    /// Ends an element: the text of a table, if it was one.
    fn close(&mut self) -> Option<(HostOffset, String)> {
        self.open.pop();
        self.table.take()
    }

    /// Takes text, of which an element may have several pieces.
    fn take(&mut self, at: HostOffset, text: &str) {
        if self.leads_to_table() {
            self.table.get_or_insert_with(|| (at, String::new())).1.push_str(text);
        } else if self.is_key() {
            self.key.push_str(text);
        }
    }

    fn is_closed(&self) -> bool {
        self.seen && self.open.is_empty()
    }

    fn is_key(&self) -> bool {
        self.open.last().is_some_and(|(name, _)| name == "key")
    }

    /// Whether text here is that of a table.
    fn leads_to_table(&self) -> bool {
        let is_data = self.open.last().is_some_and(|(name, _)| name == "data");
        let keys = self.open.iter().map(|(_, key)| key.as_str()).filter(|key| !key.is_empty());
        is_data && keys.eq(WAY)
    }
}

/// The bytes that base64 text stands for; blanks and line ends are passed over.
fn base64(text: &[u8], at: HostOffset) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len().saturating_sub(text.len() / 4));
    let (mut word, mut held) = (0_u32, 0_u32);
    let mut padded = false;
    for (index, letter) in text.iter().enumerate() {
        let value = match *letter {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'=' => {
                padded = true;
                continue;
            }
            _ => digit(*letter).filter(|_| !padded),
        };
        let Some(value) = value else {
            let letter = char::from(*letter).to_string();
            return Err(broken(at.saturating_add(index as u64), &letter, "base64"));
        };
        word = word << 6 | u32::from(value);
        held = held.saturating_add(6);
        if held >= 8 {
            held = held.saturating_sub(8);
            bytes.push(u8::try_from(word >> held & 0xFF).unwrap_or(0));
        }
    }
    Ok(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    let from = |first: u8, value: u8| Some(letter.saturating_sub(first).saturating_add(value));
    match letter {
        b'A'..=b'Z' => from(b'A', 0),
        b'a'..=b'z' => from(b'a', 26),
        b'0'..=b'9' => from(b'0', 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cold]
fn broken(at: HostOffset, found: &str, expected: &'static str) -> anydisk_core::Error {
    Invalid {
        format: NAME,
        field: "property list".into(),
        at,
        found: Value::from(found.as_bytes()),
        expected: expected.into(),
    }
    .into()
}

/// A property list with one table, of the whole disk.
pub(crate) fn written(table: &[u8]) -> String {
    let mut data = String::new();
    for line in table.chunks(LINE) {
        data.push_str("\n\t\t\t\t");
        line.chunks(3).for_each(|bytes| push_base64(bytes, &mut data));
    }
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>resource-fork</key>
	<dict>
		<key>blkx</key>
		<array>
			<dict>
				<key>Attributes</key>
				<string>0x0050</string>
				<key>CFName</key>
				<string>whole disk (unknown partition : 0)</string>
				<key>Data</key>
				<data>{data}
				</data>
				<key>ID</key>
				<string>0</string>
				<key>Name</key>
				<string>whole disk (unknown partition : 0)</string>
			</dict>
		</array>
	</dict>
</dict>
</plist>
"#
    )
}

/// Bytes of such a list with a table of `len` bytes.
pub(crate) fn written_len(len: u64) -> u64 {
    let lines = len.div_ceil(LINE as u64).saturating_mul(5);
    let letters = len.div_ceil(3).saturating_mul(4);
    (written(&[]).len() as u64).saturating_add(lines).saturating_add(letters)
}

/// Bytes that stand in one line of base64.
const LINE: usize = 33;

/// Up to three bytes as four letters.
fn push_base64(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let byte = |index: usize| bytes.get(index).copied().map_or(0, u32::from);
    let word = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (place, shift) in [18_u32, 12, 6, 0].into_iter().enumerate() {
        let digit = usize::try_from(word >> shift & 63).ok().and_then(|digit| DIGITS.get(digit));
        let letter = digit.filter(|_| place <= bytes.len()).copied().unwrap_or(b'=');
        text.push(char::from(letter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: HostOffset = HostOffset(0x100);

    fn read(text: &str) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut all = Vec::new();
        tables(text.as_bytes(), BASE, |at, bytes| {
            all.push((at.get(), bytes));
            Ok(())
        })?;
        Ok(all)
    }

    fn list(inside: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"x\">\
             <plist version=\"1.0\"><dict><key>resource-fork</key><dict>{inside}</dict></dict></plist>"
        )
    }

    #[test]
    fn a_table_that_is_written_is_read() {
        for len in [0_u8, 1, 2, 3, 32, 33, 34, 200] {
            let table: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(89)).collect();
            let found = read(&written(&table)).expect("it is good");
            assert_eq!(found.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [&table]);
            assert_eq!(written_len(len.into()), written(&table).len() as u64);
        }
    }

    #[test]
    fn the_data_of_block_tables_is_found_and_nothing_else() {
        let text = list(
            "<key>plst</key><array><dict><key>Data</key><data>AAAA</data></dict></array>\
             <key>blkx</key><array><dict><key>Name</key><string>a &amp; b</string>\
             <key>Data</key><data>\n\taGVs\n\tbG8=\n</data></dict><dict><key>Data</key>\
             <data>QUJD</data><key>ID</key><string>1</string></dict></array>",
        );
        let found = read(&text).expect("it is good");
        let contents: Vec<_> = found.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        assert_eq!(contents, [&b"hello"[..], b"ABC"]);
        let place = text.find("QUJD").expect("is there") as u64;
        assert_eq!(found.last().map(|(at, _)| *at), Some(0x100 + place));
    }

    #[test]
    fn a_table_may_stand_in_several_pieces_of_text() {
        let table = |text: &str| {
            list(&format!(
                "<key>blkx</key><array><dict><key>Da<!-- x -->ta</key><data>{text}</data></dict></array>"
            ))
        };
        for text in ["aGVs<!-- a comment -->bG8=", "<![CDATA[aGVsbG8=]]>", "aG<![CDATA[Vsb]]>G8="] {
            let found = read(&table(text)).expect(text);
            assert_eq!(
                found.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
                [b"hello"],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_property_list_is_refused_with_its_place() {
        let data = |text: &str| {
            list(&format!(
                "<key>blkx</key><array><dict><key>Data</key><data>{text}</data></dict></array>"
            ))
        };
        for (text, expected) in [
            (data("QU-D"), "dmg: property list at 0x1bb is \"-\", expected base64"),
            (data("QUI=QQ"), "dmg: property list at 0x1bd is \"Q\", expected base64"),
            (data("QU&x;D"), "dmg: property list at 0x1bb is \"an entity\", expected base64"),
            (
                "<plist><dict>".into(),
                "dmg: property list at 0x10d is \"the end of the text\", expected </plist>",
            ),
            (
                "".into(),
                "dmg: property list at 0x100 is \"the end of the text\", expected </plist>",
            ),
            (
                "<!DOCTYPE plist [<!ENTITY a \"b\">]><plist/>".into(),
                "dmg: property list at 0x100 is \"entities of its own\", expected a plain document type",
            ),
            (
                "<a>".repeat(33),
                "dmg: property list at 0x160 is \"deeper nesting\", expected up to 32 elements",
            ),
        ] {
            assert_eq!(read(&text).unwrap_err().to_string(), expected);
        }
    }
}
