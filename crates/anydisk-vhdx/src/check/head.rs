//! What lies before the table: headers, region tables, the log, metadata.

use std::sync::Arc;

use anydisk_core::{Error, Finding, HostOffset, Reference, Repair, Result, Severity};

use super::{Check, Headers};
use crate::header::{Header, Place, headers, region_tables};
use crate::image::log_of;
use crate::layout::{HEADERS, LOG_SIGNATURE, MIB, REGION_TABLES};
use crate::log::Replay;
use crate::metadata::{Items, Metadata};
use crate::replayed::Replayed;
use crate::table::Shape;

/// Bytes of a header that mean something.
const HEADER_USED: usize = 80;

/// Bytes of a sector of the log.
const LOG_SECTOR: usize = 4096;

impl Check<'_> {
    pub(super) fn look_at_headers(&mut self, head: &[u8]) {
        let found = headers(head);
        for (header, at) in found.iter().zip(HEADERS) {
            let at = HostOffset(at);
            match header {
                None => {
                    let text = "this header is not one, or its checksum is wrong";
                    self.note_mended("header-damaged", at, text, "both are written anew");
                    self.headers = Some(Headers::Renew);
                    self.has_doubt = true;
                }
                Some((_, bytes, _)) if has_more(bytes, HEADER_USED) => {
                    self.note("reserved-not-zero", at, "reserved bytes of the header are not zero");
                }
                Some(_) => {}
            }
        }
        if let [Some((one, ..)), Some((other, ..))] = &found
            && one.SequenceNumber == other.SequenceNumber
        {
            let text = format!("both headers have the number {}", one.SequenceNumber.get());
            let at = HostOffset(HEADERS[1]);
            self.note_mended("headers-same-number", at, text, "both are written anew");
            self.headers = Some(Headers::Renew);
        }
    }

    /// Replays the log, in memory or for good. Whether the rest can be looked at.
    pub(super) fn look_at_log(&mut self, header: &Header) -> Result<bool> {
        let Some((guid, bytes)) = log_of(&*self.file, header)? else { return Ok(true) };
        match crate::log::Log::new(&bytes, guid, header.log).replay(self.file.len()?) {
            Ok(replay) => self.replay(header, replay),
            Err(Error::Invalid(_)) if !has_entry(&bytes, guid) => {
                self.forget_log(header);
                Ok(true)
            }
            Err(error @ Error::Invalid(_)) => {
                let text = error.to_string();
                let kind = "log-damaged";
                self.tell(Finding::new(Severity::Corruption, kind, header.log.at, text));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// As qemu-img, which counts a log that was replayed.
    fn replay(&mut self, header: &Header, replay: Replay) -> Result<bool> {
        let mends = self.repair != Repair::Nothing;
        let severity = if mends { Severity::Corruption } else { Severity::Note };
        let count = replay.changes.len();
        let text = format!("the image was not closed cleanly: {count} changes are in its log");
        let finding = Finding::new(severity, "log-to-replay", header.log.at, text);
        let mut finding = finding.mended_by("it is replayed");
        finding.repaired = mends;
        self.tell(finding);
        self.has_doubt = true;
        match mends {
            true => {
                replay.write_to(&*self.file)?;
                self.headers = Some(Headers::ForgetLog);
            }
            false => self.store = Arc::new(Replayed::new(Arc::clone(&self.file), replay)),
        }
        Ok(true)
    }

    /// A header names a log before anything is written to it, so there was nothing to lose.
    fn forget_log(&mut self, header: &Header) {
        let text = "the header names a log, and there is no entry of it".to_owned();
        let finding = Finding::new(Severity::Corruption, "log-without-entry", header.log.at, text);
        let mut finding = finding.mended_by("the log is forgotten");
        finding.repaired = self.mends();
        if self.mends() {
            self.headers = Some(Headers::ForgetLog);
        }
        self.has_doubt = true;
        self.tell(finding);
    }

    pub(super) fn look_at_region_tables(&mut self, head: &[u8]) {
        let places = REGION_TABLES.map(HostOffset);
        let damaged = "this region table is not one, or its checksum is wrong";
        let (at, bytes) = match region_tables(head) {
            [Some(one), Some(other)] if one == other => return,
            [Some(_), Some(_)] => {
                let text = "it is not as the first one, which counts";
                self.has_doubt = true;
                return self.note("region-tables-differ", places[1], text);
            }
            [Some(good), None] => (places[1], good),
            [None, Some(good)] => (places[0], good),
            [None, None] => return,
        };
        self.note_mended("region-table-damaged", at, damaged, "the other one is written there");
        self.region_table = Some((at, bytes.to_vec()));
        self.has_doubt = true;
    }

    pub(super) fn look_at_items(&mut self, items: &Items, table: &[u8], region: Place) {
        let used = 32 * (1 + items.count);
        if has_more(table, used) {
            let text = "bytes behind the entries of the metadata table are not zero";
            self.note("reserved-not-zero", region.at, text);
        }
        let mut places = items.all.clone();
        places.sort_unstable_by_key(|place| place.at);
        for pair in places.windows(2) {
            if let [one, other] = pair
                && other.at < one.at.saturating_add(one.len)
            {
                let text = format!("the item at {} lies on the one at {}", other.at, one.at);
                let kind = "metadata-overlap";
                self.tell(Finding::new(Severity::Corruption, kind, other.at, text));
            }
        }
    }

    pub(super) fn look_at_parent(
        &mut self,
        items: &Items,
        metadata: &Metadata,
        below: Option<&Reference>,
    ) {
        match (items.parent_locator(), below) {
            (Some(place), None) => {
                let text = "there is a parent's locator, and the disk has no parent";
                self.note("locator-unused", place.at, text);
            }
            (Some(place), Some(parent)) if parent.content_id.is_none() => {
                let text = "the locator does not name one content of the parent: parent_linkage is \
                            no GUID, or there are two";
                self.note("parent-linkage-missing", place.at, text);
            }
            _ => {}
        }
        if !matches!(metadata.physical_sector, 512 | 4096) {
            let text = format!("the physical sector size is {}", metadata.physical_sector);
            let at = items.physical_sector().map_or(HostOffset::ZERO, |place| place.at);
            self.note("sector-size", at, text);
        }
    }

    pub(super) fn look_at_file_end(&mut self, shape: &Shape) {
        if !shape.end.get().is_multiple_of(MIB) {
            let text = format!("the file has {} bytes, which are no whole MiB", shape.end.get());
            self.note_mended("file-not-aligned", shape.end, text, "it is made longer");
        }
    }
}

/// Whether there is anything but zeroes behind the first `used` bytes.
fn has_more(bytes: &[u8], used: usize) -> bool {
    bytes.get(used..).unwrap_or_default().iter().any(|byte| *byte != 0)
}

/// Whether a sector of the log begins an entry of this GUID, be it whole or not.
fn has_entry(log: &[u8], guid: [u8; 16]) -> bool {
    log.chunks_exact(LOG_SECTOR)
        .any(|sector| sector.starts_with(&LOG_SIGNATURE) && sector.get(32..48) == Some(&guid[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_counts_by_its_signature_and_guid_alone() {
        let mut log = vec![0; 2 * LOG_SECTOR];
        assert!(!has_entry(&log, [7; 16]));
        log[LOG_SECTOR..][..4].copy_from_slice(&LOG_SIGNATURE);
        log[LOG_SECTOR + 32..][..16].fill(7);
        assert!(has_entry(&log, [7; 16]) && !has_entry(&log, [8; 16]));
    }
}
