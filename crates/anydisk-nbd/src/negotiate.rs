//! The handshake: what the client and the server agree on. The fixed newstyle negotiation, without TLS.

use std::io::{Read, Write};

use zerocopy::IntoBytes;

use crate::error::{Result, protocol};
use crate::export::{Context, Export, MOST};
use crate::layout::{
    GREETING, OPTION, OPTION_REPLY, RawBlockSizes, RawExport, RawGreeting, RawOption,
    RawOptionReply, handshake, info, option, reply,
};
use crate::wire::{self, Fields};

/// The most bytes of an option: names have 4096 at most.
const LONGEST_OPTION: u32 = 64 << 10;

/// What was agreed on.
#[derive(Debug)]
pub(crate) struct Agreed<'a> {
    pub(crate) export: &'a Export,
    /// Answers are structured.
    pub(crate) structured: bool,
    /// What is asked for by `NBD_CMD_BLOCK_STATUS`, with the numbers that the client knows.
    pub(crate) contexts: Vec<(u32, &'a Context)>,
}

/// Agrees with a client; `None` if it only wanted to know something.
///
/// # Errors
/// A broken connection, and what the protocol does not allow.
pub(crate) fn negotiate<'a, R: Read, W: Write>(
    exports: &'a [Export],
    input: &mut R,
    output: &mut W,
) -> Result<Option<Agreed<'a>>> {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    let greeting =
        RawGreeting { magic: GREETING.into(), option_magic: OPTION.into(), flags: flags.into() };
    wire::write(output, &[greeting.as_bytes()])?;
    let theirs = wire::read::<zerocopy::big_endian::U32>(input)?.get();
    if theirs & !u32::from(flags) != 0 {
        return Err(protocol(format!("flags {theirs:#x}, expected {flags:#x} at most")));
    }
    let padded = theirs & u32::from(handshake::NO_ZEROES) == 0;
    let talk = Talk { exports, input, output, padded, structured: false, chosen: None };
    talk.until_agreed()
}

/// A negotiation on its way.
struct Talk<'a, 's, R, W> {
    exports: &'a [Export],
    input: &'s mut R,
    output: &'s mut W,
    /// The client takes the zeroes of old behind what `NBD_OPT_EXPORT_NAME` is answered.
    padded: bool,
    structured: bool,
    /// The contexts that were chosen, and of which export.
    chosen: Option<(&'a Export, Vec<(u32, &'a Context)>)>,
}

impl<'a, R: Read, W: Write> Talk<'a, '_, R, W> {
    fn until_agreed(mut self) -> Result<Option<Agreed<'a>>> {
        loop {
            let raw: RawOption = wire::read(self.input)?;
            if raw.magic != OPTION {
                let found = raw.magic.get();
                return Err(protocol(format!(
                    "magic {found:#x} of an option, expected {OPTION:#x}"
                )));
            }
            let data = wire::read_bytes(self.input, raw.length.get(), LONGEST_OPTION)?;
            let option = raw.option.get();
            match option {
                option::EXPORT_NAME => return self.take_at_once(&data).map(Some),
                option::ABORT => {
                    // The client may be gone already.
                    let _ = self.reply(option, reply::ACK, &[]);
                    return Ok(None);
                }
                option::LIST if data.is_empty() => self.list(option)?,
                option::STRUCTURED_REPLY if data.is_empty() => {
                    self.structured = true;
                    self.reply(option, reply::ACK, &[])?;
                }
                option::LIST | option::STRUCTURED_REPLY => {
                    self.refuse(option, "it takes no data")?
                }
                option::INFO | option::GO => {
                    if let Some(export) = self.tell(option, &data)?
                        && option == option::GO
                    {
                        return Ok(Some(self.agreed(export)));
                    }
                }
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                    self.contexts(option, &data)?;
                }
                _ => self.reply(option, reply::ERR_UNSUP, &[])?,
            }
        }
    }

    fn agreed(self, export: &'a Export) -> Agreed<'a> {
        let chosen = self.chosen.filter(|(of, _)| std::ptr::eq(*of, export));
        let contexts = chosen.map_or_else(Vec::new, |(_, contexts)| contexts);
        Agreed { export, structured: self.structured, contexts }
    }

    /// The export of this name; the empty one stands for the first.
    fn find(&self, name: &str) -> Option<&'a Export> {
        let named = self.exports.iter().find(|export| export.name == name);
        named.or_else(|| self.exports.first().filter(|_| name.is_empty()))
    }

    /// The oldest way to choose, which has no word for "there is none".
    fn take_at_once(self, name: &[u8]) -> Result<Agreed<'a>> {
        let export = std::str::from_utf8(name).ok().and_then(|name| self.find(name));
        let Some(export) = export else {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(protocol(format!("asked for the export {name:?}, which is not here")));
        };
        let raw = raw_export(export, self.structured);
        let zeroes = [0; 124];
        let padding = if self.padded { &zeroes[..] } else { &[] };
        wire::write(self.output, &[raw.as_bytes(), padding])?;
        Ok(self.agreed(export))
    }

    fn list(&mut self, option: u32) -> Result<()> {
        for export in self.exports {
            let name = with_length(&export.name);
            self.reply(option, reply::SERVER, &[&name, export.description.as_bytes()])?;
        }
        self.reply(option, reply::ACK, &[])
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`: what the export is.
    fn tell(&mut self, option: u32, data: &[u8]) -> Result<Option<&'a Export>> {
        let Some((name, wanted)) = info_request(data) else {
            self.refuse(option, "a name and a list of informations are expected")?;
            return Ok(None);
        };
        let Some(export) = self.find(name) else {
            self.reply(option, reply::ERR_UNKNOWN, &[b"there is no such export"])?;
            return Ok(None);
        };
        let sizes = RawBlockSizes {
            minimum: 1.into(),
            preferred: export.preferred().into(),
            maximum: MOST.into(),
        };
        let raw = raw_export(export, self.structured);
        let facts: [(u16, &[u8]); 4] = [
            (info::EXPORT, raw.as_bytes()),
            (info::NAME, export.name.as_bytes()),
            (info::DESCRIPTION, export.description.as_bytes()),
            (info::BLOCK_SIZE, sizes.as_bytes()),
        ];
        for (number, fact) in facts {
            if number == info::EXPORT || wanted.contains(&number) {
                self.reply(option, reply::INFO, &[&number.to_be_bytes(), fact])?;
            }
        }
        self.reply(option, reply::ACK, &[])?;
        Ok(Some(export))
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let sets = option == option::SET_META_CONTEXT;
        if sets {
            self.chosen = None;
        }
        if sets && !self.structured {
            return self.refuse(option, "structured replies come first");
        }
        let Some((name, queries)) = context_request(data) else {
            return self.refuse(option, "a name and a list of queries are expected");
        };
        let Some(export) = self.find(name) else {
            return self.reply(option, reply::ERR_UNKNOWN, &[b"there is no such export"]);
        };
        let all = !sets && queries.is_empty();
        let is_meant = |name: &str| queries.iter().any(|query| matches(query, name, sets));
        let found: Vec<_> =
            export.contexts().filter(|(_, context)| all || is_meant(&context.name())).collect();
        for (number, context) in &found {
            // Only what was chosen has a number.
            let number = if sets { *number } else { 0 };
            let name = context.name();
            self.reply(option, reply::META_CONTEXT, &[&number.to_be_bytes(), name.as_bytes()])?;
        }
        if sets {
            self.chosen = Some((export, found));
        }
        self.reply(option, reply::ACK, &[])
    }

    fn refuse(&mut self, option: u32, why: &str) -> Result<()> {
        self.reply(option, reply::ERR_INVALID, &[why.as_bytes()])
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[&[u8]]) -> Result<()> {
        let data = data.concat();
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let raw = RawOptionReply {
            magic: OPTION_REPLY.into(),
            option: option.into(),
            reply: kind.into(),
            length: length.into(),
        };
        Ok(wire::write(self.output, &[raw.as_bytes(), &data])?)
    }
}

fn raw_export(export: &Export, structured: bool) -> RawExport {
    RawExport { size: export.disk().size().into(), flags: export.flags(structured).into() }
}

fn with_length(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// The name of an export, and what is to be told of it.
fn info_request(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u16()?;
    let wanted = (0..count).map(|_| fields.u16()).collect::<Option<_>>()?;
    fields.is_empty().then_some((name, wanted))
}

/// The name of an export, and what its contexts are to match.
fn context_request(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u32()?;
    let queries = (0..count).map(|_| fields.text()).collect::<Option<_>>()?;
    fields.is_empty().then_some((name, queries))
}

/// Whether a context is meant. Who lists may name a namespace (`base:`), or the bitmaps of one
/// (`qemu:dirty-bitmap:`).
fn matches(query: &str, name: &str, sets: bool) -> bool {
    query == name || (!sets && query.ends_with(':') && name.starts_with(query))
}
