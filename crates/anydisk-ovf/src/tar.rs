//! An archive as a list of places: its members are read where they are.

use anydisk_core::{HostOffset, Limits, Result, Storage, StorageExt, Value};
use anydisk_storage::is_zero;

use crate::{invalid, limits, name, text};

/// Bytes of a header, and the unit of everything.
const BLOCK: u64 = 512;

/// Bytes of an extended header that are read.
const EXTENDED: u64 = 64 << 10;

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Where its bytes are in the archive.
    pub(crate) at: HostOffset,
    /// In bytes.
    pub(crate) len: u64,
}

/// Whether the first block of a file is the header of an archive. Pure.
pub(crate) fn is_header(block: &[u8]) -> bool {
    block.first_chunk().is_some_and(|block| checksum_is_right(block) && block[0] != 0)
}

/// What an extended header says of the next file.
#[derive(Debug, Default)]
struct Extended {
    name: Option<String>,
    len: Option<u64>,
}

/// The first file of an archive, as far as its head has it: its name, and where its bytes begin. Pure.
pub(crate) fn first(head: &[u8]) -> Option<(String, usize)> {
    let mut extended = Extended::default();
    let mut at = 0_usize;
    loop {
        let block = head.get(at..)?.first_chunk().filter(|_| is_header(&head[at..]))?;
        let (kind, data) = (block[156], at.checked_add(block.len())?);
        if is_file(kind) {
            return Some((extended.name.unwrap_or_else(|| name_of(block)), data));
        }
        let len = usize::try_from(size(block)?).ok()?;
        let end = data.checked_add(len)?;
        match kind {
            b'x' | b'L' => extended.add(head.get(data..end)?, kind)?,
            b'g' | b'K' => {}
            _ => return None,
        }
        at = end.checked_next_multiple_of(block.len())?;
    }
}

/// All files of an archive, in order.
///
/// # Errors
/// [`Invalid`](anydisk_core::Invalid) for a broken or cut archive, members that are not regular
/// files, and two of one name; [`Error::Denied`](anydisk_core::Error::Denied) for names that are
/// not plain; [`Error::Limit`](anydisk_core::Error::Limit) for too many.
pub(crate) fn entries(archive: &dyn Storage, limits: &Limits) -> Result<Vec<Entry>> {
    let end = archive.len()?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut extended = Extended::default();
    let (mut at, mut blocks) = (0, 0);
    while let Some(header) = header_at(archive, at, end)? {
        blocks += 1;
        limits::check("members of the archive", blocks, 2 * limits.extents as u64)?;
        let kind = header[156];
        let own = extended.len.filter(|_| is_file(kind));
        let len = match own {
            Some(len) => len,
            None => size(&header).ok_or_else(|| {
                let found = Value::from(&header[124..136]);
                invalid("size of a member", at + 124, found, "a number that is not negative")
            })?,
        };
        let data = at + BLOCK;
        let next = len.checked_next_multiple_of(BLOCK).and_then(|len| data.checked_add(len));
        let (Some(next), true) = (next, len <= end - data) else {
            let expected = format!("at most the {} bytes that follow", end - data);
            return Err(invalid("size of a member", at + 124, len.into(), expected).into());
        };
        match kind {
            b'x' | b'L' => read_extended(archive, (data, len), kind, &mut extended)?,
            // For all members that follow: times, comments. And the name of a link.
            b'g' | b'K' => {}
            _ if is_file(kind) => {
                let taken = std::mem::take(&mut extended);
                let full = taken.name.unwrap_or_else(|| name_of(&header));
                let name = name::plain(&full)?.to_owned();
                if entries.iter().any(|entry| entry.name == name) {
                    let expected = "no other member of this name";
                    return Err(invalid("name of a member", at, text(&name), expected).into());
                }
                entries.push(Entry { name, at: HostOffset(data), len });
            }
            _ => {
                let found = Value::from(&header[156..157]);
                return Err(invalid("type of a member", at + 156, found, "a regular file").into());
            }
        }
        at = next;
    }
    Ok(entries)
}

fn is_file(kind: u8) -> bool {
    matches!(kind, b'0' | 0)
}

/// The header at `at`; `None` at the end of the archive, also where the blocks of zeroes that
/// should stand there are missing.
fn header_at(archive: &dyn Storage, at: u64, end: u64) -> Result<Option<[u8; 512]>> {
    let mut block = [0; 512];
    if at >= end {
        return Ok(None);
    }
    if end - at < BLOCK {
        let expected = "a header of 512 bytes";
        return Err(invalid("header of a member", at, Value::Missing, expected).into());
    }
    archive.read_exact_at(HostOffset(at), &mut block)?;
    if is_zero(&block) {
        return Ok(None);
    }
    if !checksum_is_right(&block) {
        let found = Value::from(&block[148..156]);
        let expected = "the sum of the header's bytes";
        return Err(invalid("checksum of a header", at + 148, found, expected).into());
    }
    Ok(Some(block))
}

/// The sum of all bytes, those of the checksum counted as blanks.
fn checksum_is_right(block: &[u8; 512]) -> bool {
    let byte = |(at, byte): (usize, &u8)| {
        if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) }
    };
    let sum: u64 = block.iter().enumerate().map(byte).sum();
    octal(&block[148..156]) == Some(sum)
}

/// Digits in base 8 among blanks, up to a NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = str::from_utf8(field).ok()?.trim();
    u64::from_str_radix(text, 8).ok().filter(|_| !text.starts_with('+'))
}

/// The size of a header: in base 8, or in base 256 where the highest bit is set.
fn size(header: &[u8; 512]) -> Option<u64> {
    let field = &header[124..136];
    match field[0] {
        0x80 => {
            let (high, low) = field[1..].split_at(3);
            let low = low.first_chunk().map(|low| u64::from_be_bytes(*low));
            low.filter(|_| is_zero(high))
        }
        0x81.. => None,
        _ => octal(field),
    }
}

/// The name of a header, with the prefix of ustar.
fn name_of(header: &[u8; 512]) -> String {
    let until_nul = |field: &[u8]| {
        let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(field).into_owned()
    };
    let name = until_nul(&header[..100]);
    let posix = header[257..263] == *b"ustar\0";
    match until_nul(&header[345..500]) {
        prefix if posix && !prefix.is_empty() => format!("{prefix}/{name}"),
        _ => name,
    }
}

/// Reads a header of pax (records `LEN KEY=VALUE\n`), or GNU's long name.
fn read_extended(
    archive: &dyn Storage,
    (at, len): (u64, u64),
    kind: u8,
    extended: &mut Extended,
) -> Result<()> {
    limits::check("size of an extended header in bytes", len, EXTENDED)?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    archive.read_exact_at(HostOffset(at), &mut bytes)?;
    extended.add(&bytes, kind).ok_or_else(|| {
        invalid("extended header", at, Value::Missing, "records LEN KEY=VALUE").into()
    })
}

impl Extended {
    /// Adds what the bytes behind an extended header say; `None` for what are no records.
    fn add(&mut self, bytes: &[u8], kind: u8) -> Option<()> {
        if kind == b'L' {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            self.name = Some(String::from_utf8_lossy(name).into_owned());
            return Some(());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value, behind) = record(rest)?;
            match key {
                b"path" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
                b"size" => self.len = Some(str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
            rest = behind;
        }
        Some(())
    }
}

/// The first record: key, value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().position(|byte| *byte == b' ')?;
    let len: usize = str::from_utf8(bytes.get(..blank)?).ok()?.parse().ok()?;
    let body = bytes.get(blank + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_storage::MemoryStorage;
    use proptest::prelude::*;

    fn header(name: &str, size: &[u8], kind: u8) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..124 + size.len()].copy_from_slice(size);
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        sealed(block)
    }

    fn sealed(mut block: Vec<u8>) -> Vec<u8> {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn file(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = header(name, format!("{:011o}", data.len()).as_bytes(), b'0');
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<Vec<Entry>> {
        entries(&MemoryStorage::new(bytes), &Limits::default())
    }

    fn refusal(bytes: Vec<u8>) -> String {
        read(bytes).expect_err("it is refused").to_string()
    }

    #[test]
    fn files_are_found_with_and_without_the_blocks_at_the_end() {
        let whole = [file("a.ovf", b"abc"), file("b", &[7; 600])].concat();
        let expected = [
            Entry { name: "a.ovf".into(), at: HostOffset(512), len: 3 },
            Entry { name: "b".into(), at: HostOffset(1536), len: 600 },
        ];
        assert_eq!(read(whole.clone()).unwrap(), expected);
        assert_eq!(read([whole, vec![0; 1024]].concat()).unwrap(), expected);
    }

    #[test]
    fn sizes_in_base_256_and_names_and_sizes_of_pax_count() {
        let mut wide = [0; 12];
        wide[0] = 0x80;
        wide[11] = 5;
        let mut bytes = header("x", &wide, b'0');
        bytes.extend([7; 512]);
        assert_eq!(read(bytes).unwrap()[0].len, 5);
        let records = b"18 path=long name\n9 size=7\n";
        let mut pax = header("ignored", format!("{:011o}", records.len()).as_bytes(), b'x');
        pax.extend_from_slice(records);
        pax.resize(1024, 0);
        pax.extend(header("short", b"00000000000", b'0'));
        pax.resize(2048, 0);
        let entry = Entry { name: "long name".into(), at: HostOffset(1536), len: 7 };
        assert_eq!(read(pax).unwrap(), [entry]);
    }

    #[test]
    fn what_is_no_plain_regular_file_once_is_refused() {
        for (bytes, complaint) in [
            (header("link", b"0", b'2'), "type of a member at 0x9c"),
            (header("folder", b"0", b'5'), "type of a member"),
            (file("../x", b""), "not paths or URLs"),
            (file("/x", b""), "not paths or URLs"),
            ([file("x", b"1"), file("x", b"2")].concat(), "no other member of this name"),
            (header("x", b"77777777777", b'0'), "expected at most the 0 bytes that follow"),
            (header("x", &[0xFF; 12], b'0'), "size of a member"),
            (
                header("x", &[0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], b'0'),
                "is 18446744073709551615",
            ),
            (vec![b'x'; 512], "checksum of a header at 0x94"),
            (vec![b'x'; 100], "a header of 512 bytes"),
        ] {
            let refusal = refusal(bytes);
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(
            changes in proptest::collection::vec((0_usize..512, 0_u8..), 0..6),
            kind in proptest::sample::select(b"0x5LgK\0".to_vec()),
        ) {
            let mut block = header("name", b"00000000100", kind);
            for (at, byte) in changes {
                block[at] = byte;
            }
            let mut bytes = sealed(block);
            bytes.resize(2048, b'9');
            let _ = read(bytes);
        }
    }
}
