//! Checking: every checksum, and every chunk unpacked.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{
    CheckReport, CheckRequest, Disk, Error, Finding, GuestRange, HostOffset, Result, Severity,
    Storage, on_threads,
};
use crc32fast::Hasher;

use crate::checksum::{Checksum, of_zeroes};
use crate::image::Parts;
use crate::table::{Chunk, ChunkKind, Table};
use crate::{DmgImage, NAME, Trailer};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Chunks whose checksums are kept until they are joined.
const WINDOW: usize = 4096;

/// Checks the image. Reading the data is part of it: only that shows whether the checksums hold.
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    request.without_repair(NAME)?;
    let parts = Parts::read(&request.open)?;
    let image = DmgImage::of(&parts)?;
    let Parts { store, trailer, tables, .. } = &parts;
    let data_fork = trailer.as_ref().map_or(0, |trailer| trailer.data_fork.1);
    let chunks = tables.iter().flat_map(|table| &table.chunks);
    let stored = chunks.clone().map(Chunk::stored).fold(0, u64::saturating_add);
    let work = Work {
        request,
        disk: Disk::new(Arc::new(image)),
        done: AtomicU64::new(0),
        all: stored.saturating_add(data_fork),
    };
    let mut check = Check { work, report: CheckReport::default(), found };
    check.report.image_end = chunks.map(|chunk| chunk.at.saturating_add(chunk.stored())).max();
    if let Some(trailer) = trailer {
        check.master(trailer, tables);
        check.data_fork(&**store, trailer)?;
    }
    for table in tables {
        check.table(table)?;
    }
    Ok(check.report)
}

/// A check on the way.
struct Check<'a> {
    work: Work<'a>,
    report: CheckReport,
    found: &'a mut dyn FnMut(Finding),
}

/// What all threads share.
struct Work<'a> {
    request: &'a CheckRequest<'a>,
    disk: Disk,
    /// Bytes read, of how many.
    done: AtomicU64,
    all: u64,
}

/// Something that the file has a checksum of.
struct Summed {
    /// The kind of the finding.
    kind: &'static str,
    /// Its name, for people.
    what: &'static str,
    said: Checksum,
    /// Where it is.
    at: HostOffset,
    guest: Option<GuestRange>,
}

impl Check<'_> {
    /// The checksum of the checksums of all tables.
    fn master(&mut self, trailer: &Trailer, tables: &[Table]) {
        let mut hasher = Hasher::new();
        for table in tables {
            match table.checksum {
                Checksum::Crc32(sum) => hasher.update(&sum.to_be_bytes()),
                Checksum::None => {}
                // Nobody says how these are joined.
                Checksum::Other(_) => return,
            }
        }
        let (said, at) = (trailer.master_checksum, trailer.at);
        let (kind, what) = ("master-checksum", "the checksums of the tables");
        self.compare(Summed { kind, what, said, at, guest: None }, hasher);
    }

    fn data_fork(&mut self, store: &dyn Storage, trailer: &Trailer) -> Result<()> {
        let (at, len) = trailer.data_fork;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; PIECE];
        let mut done = 0;
        while done < len {
            let most = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
            let count = store.read_at(at.saturating_add(done), &mut buffer[..most])?;
            hasher.update(&buffer[..count]);
            done += count as u64;
            self.work.tell(count as u64)?;
            if count == 0 {
                break; // The file became shorter meanwhile.
            }
        }
        let (kind, what, said) = ("data-checksum", "the data fork", trailer.data_checksum);
        self.compare(Summed { kind, what, said, at, guest: None }, hasher);
        Ok(())
    }

    /// Unpacks the chunks of a table, each on any thread, and joins their checksums.
    fn table(&mut self, table: &Table) -> Result<()> {
        self.covered(table);
        let mut hasher = Hasher::new();
        let mut whole = true;
        for window in table.chunks.chunks(WINDOW) {
            for (chunk, sum) in window.iter().zip(self.work.sums(window)) {
                match sum {
                    Ok(sum) => hasher.combine(&sum),
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => {
                        whole = false;
                        self.broken(chunk, &error);
                    }
                }
            }
        }
        if whole {
            let (said, at, guest) = (table.checksum, table.at, Some(table.range()));
            let (kind, what) = ("table-checksum", "the sectors of a table");
            self.compare(Summed { kind, what, said, at, guest }, hasher);
        }
        Ok(())
    }

    /// Tells of sectors of the table that no chunk has: hdiutil gives each of them one.
    fn covered(&mut self, table: &Table) {
        let has = table.chunks.iter().map(|chunk| chunk.count).fold(0, u64::saturating_add);
        let missing = (table.end - table.sector).saturating_sub(has);
        if missing > 0 {
            let text = format!("{missing} sectors of the table have no chunk, and read as zero");
            let finding = Finding::new(Severity::Note, "sectors-without-chunk", table.at, text);
            self.report(finding.costing(table.range()));
        }
    }

    fn compare(&mut self, summed: Summed, hasher: Hasher) {
        let Summed { kind, what, said, at, guest } = summed;
        let finding = match (said, hasher.finalize()) {
            (Checksum::None, _) => return,
            (Checksum::Crc32(said), is) if said == is => return,
            (Checksum::Crc32(said), is) => {
                let text = format!("the CRC-32 of {what} is {is:#010x}, expected {said:#010x}");
                Finding::new(Severity::Corruption, kind, at, text)
            }
            (Checksum::Other(number), _) => {
                let text = format!("the checksum of {what} is of kind {number}: not verified");
                Finding::new(Severity::Note, kind, at, text)
            }
        };
        self.report(match guest {
            Some(guest) => finding.costing(guest),
            None => finding,
        });
    }

    /// A chunk that cannot be read or unpacked.
    fn broken(&mut self, chunk: &Chunk, error: &Error) {
        let (severity, kind) = match error {
            Error::Storage(_) => (Severity::Unreadable, "unreadable"),
            _ => (Severity::Corruption, "chunk-broken"),
        };
        let finding = Finding::new(severity, kind, chunk.at, error.to_string());
        self.report(finding.costing(chunk.range()));
    }

    fn report(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }
}

impl Work<'_> {
    /// The checksums of the sectors of these chunks.
    fn sums(&self, chunks: &[Chunk]) -> Vec<Result<Hasher>> {
        let next = AtomicUsize::new(0);
        let sums = Mutex::new(Vec::with_capacity(chunks.len()));
        on_threads(self.request.threads, &|| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(chunk) = chunks.get(index) else { return };
                let sum = self.sum(chunk);
                sums.lock().unwrap_or_else(PoisonError::into_inner).push((index, sum));
            }
        });
        let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.sort_unstable_by_key(|(index, _)| *index);
        sums.into_iter().map(|(_, sum)| sum).collect()
    }

    /// The checksum of the sectors of a chunk; free space is left out.
    fn sum(&self, chunk: &Chunk) -> Result<Hasher> {
        let mut hasher = Hasher::new();
        let mut rest = chunk.range();
        match chunk.kind {
            ChunkKind::Free => return Ok(hasher),
            ChunkKind::Zero => return Ok(of_zeroes(rest.len())),
            _ => self.tell(chunk.stored())?,
        }
        // What is packed is unpacked as a whole.
        let piece = if chunk.kind == ChunkKind::Raw { PIECE as u64 } else { rest.len() };
        while !rest.is_empty() {
            let part = rest.first(piece);
            let mut bytes = vec![0; usize::try_from(part.len()).unwrap_or(usize::MAX)];
            self.disk.read(part.start(), &mut bytes)?;
            hasher.update(&bytes);
            rest = rest.skip(part.len());
        }
        Ok(hasher)
    }

    /// Tells of bytes that are done.
    fn tell(&self, bytes: u64) -> Result<()> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let goes_on = self.request.progress.is_none_or(|tell| tell(done.min(self.all), self.all));
        if goes_on { Ok(()) } else { Err(Error::Cancelled) }
    }
}
