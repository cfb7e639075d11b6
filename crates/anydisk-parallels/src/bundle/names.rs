//! What people call the states of a bundle: `Snapshots.xml`, where there is one.
//!
//! ```text
//!   ParallelsSavedStates
//!     SavedStateItem guid="{...}"     Name, and the states that were made over it
//! ```
//!
//! It lies beside the descriptor, or beside the bundle where that is a disk of a machine (`name.pvm`). The disk is
//! read the same without it, so nothing that is wrong with it keeps a bundle from being opened.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::HashMap;

use anydisk_core::{
    Access, HostOffset, Limits, OpenRequest, Reference, Result, Role, Storage, StorageExt, Uuid,
};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::descriptor::known_entity;

const ITEM: &str = "SavedStateItem";

/// Elements inside each other, so also states over each other.
const DEPTH: usize = 1 << 12;

/// Where it is looked for, as seen from the descriptor.
const PLACES: [&str; 2] = ["Snapshots.xml", "../Snapshots.xml"];

/// The names of the states that somebody gave one to.
pub(super) fn find(request: &OpenRequest<'_>) -> HashMap<Uuid, String> {
    let found = PLACES.iter().find_map(|place| {
        let reference = Reference::new(Role::Extent, *place);
        let file = request.resolver.resolve(&reference, request.location, Access::Read).ok()?;
        bytes_of(&*file.store, request.limits).ok().flatten()
    });
    found.map_or_else(HashMap::new, |bytes| parse(&bytes))
}

/// All of a file, if it is no longer than a descriptor may be.
fn bytes_of(store: &dyn Storage, limits: &Limits) -> Result<Option<Vec<u8>>> {
    let len = usize::try_from(store.len()?).ok().filter(|len| *len <= limits.descriptor);
    let Some(mut bytes) = len.map(|len| vec![0; len]) else { return Ok(None) };
    store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
    Ok(Some(bytes))
}

/// What is read until something is wrong.
fn parse(bytes: &[u8]) -> HashMap<Uuid, String> {
    let mut reader = Reader::from_reader(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes));
    let mut reading = Reading::default();
    while let Ok(event) = reader.read_event() {
        if reading.take(event).is_none() {
            break;
        }
    }
    reading.names
}

#[derive(Default)]
struct Reading {
    names: HashMap<Uuid, String>,
    /// The elements that are open, and the states that they are.
    open: Vec<Element>,
    text: String,
}

struct Element {
    is_name: bool,
    is_item: bool,
    guid: Option<Uuid>,
}

impl Element {
    fn of(start: &BytesStart<'_>) -> Self {
        let name = start.local_name().into_inner();
        let guid = start.try_get_attribute("guid").ok().flatten();
        let guid = guid.and_then(|guid| guid.value.parse().ok());
        Self { is_name: name == "Name", is_item: name == ITEM, guid }
    }
}

impl Reading {
    /// `None` where it ends.
    fn take(&mut self, event: Event<'_>) -> Option<()> {
        match event {
            Event::Start(_) if self.open.len() >= DEPTH => return None,
            Event::Start(start) => {
                self.open.push(Element::of(&start));
                self.text.clear();
            }
            Event::Text(part) => self.text.push_str(&part.xml10_content()),
            Event::CData(part) => self.text.push_str(&part.xml10_content()),
            Event::GeneralRef(entity) => {
                let letter = entity.resolve_char_ref().ok()?;
                self.text.push(letter.or_else(|| known_entity(&entity))?);
            }
            Event::End(_) => self.end(),
            Event::DocType(_) | Event::Eof => return None,
            _ => {}
        }
        Some(())
    }

    fn end(&mut self) {
        let element = self.open.pop();
        let item = self.open.last().filter(|around| around.is_item);
        let (name, guid) = (self.text.trim(), item.and_then(|item| item.guid));
        if let (Some(guid), false) = (guid, name.is_empty())
            && element.is_some_and(|element| element.is_name)
        {
            self.names.insert(guid, name.to_owned());
        }
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_state_around_them_however_deep() {
        let text = "<?xml version='1.0'?><ParallelsSavedStates><SavedStateItem guid=''><Name/>\
             <SavedStateItem guid='{11111111-2222-3333-4444-555555555555}'><Name>a &amp; b</Name>\
             <Creator><Name>me</Name></Creator><Description><![CDATA[x]]></Description>\
             <SavedStateItem guid='{22222222-2222-3333-4444-555555555555}' current='yes'>\
             <Name><![CDATA[before <it>]]></Name></SavedStateItem></SavedStateItem>\
             </SavedStateItem></ParallelsSavedStates>";
        let names = parse(text.as_bytes());
        let name = |guid: &str| names.get(&guid.parse().expect("a GUID")).map(String::as_str);
        assert_eq!(name("{11111111-2222-3333-4444-555555555555}"), Some("a & b"));
        assert_eq!(name("{22222222-2222-3333-4444-555555555555}"), Some("before <it>"));
        assert_eq!(names.len(), 2);
        for end in 0..text.len() {
            let _ = parse(&text.as_bytes()[..end]);
        }
        assert!(parse(&"<SavedStateItem guid='x'>".repeat(10_000).into_bytes()).is_empty());
    }
}
