//! The data itself, where a check is asked to read it: clusters are read, streams are unpacked.
//!
//! Each cluster is read once, however often it is named. Nothing is decrypted, so no passphrase is
//! needed: streams are never encrypted, and of encrypted clusters it is told only whether they can
//! be read. What lies in an external data file is not read.
//!
//! Threads mark what they find wrong, and tables are then looked at again, in order, to tell it: so
//! any number of threads tells the same.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use anydisk_codec::Decoder;
use anydisk_core::{GuestRange, HostOffset, Result};

use super::judge::Named;
use super::progress::Progress;
use super::subject::PIECE;
use super::tables::{L2Table, range};
use super::trouble::{Teller, Trouble};
use super::walk::{Slot, Walk};
use crate::guard::Clusters;

/// Streams that are remembered as looked at. A stream is named once, unless snapshots share it.
const STREAMS: usize = 1 << 16;

/// A look at the data that the clusters of a window hold.
pub(super) struct DataLook<'w, 'a> {
    walk: &'w Walk<'a>,
    /// Entries of streams that were unpacked.
    streams: Mutex<HashSet<u64>>,
    /// Something is wrong.
    faulty: AtomicBool,
}

/// What one thread works with.
#[derive(Default)]
struct Hands {
    decoder: Decoder,
    packed: Vec<u8>,
    bytes: Vec<u8>,
}

/// Bytes that cannot be had.
struct Lost {
    trouble: Trouble,
    why: String,
}

impl<'w, 'a> DataLook<'w, 'a> {
    pub(super) fn new(walk: &'w Walk<'a>) -> Self {
        Self { walk, streams: Mutex::default(), faulty: AtomicBool::new(false) }
    }

    /// Reads everything that lies in the window, on several threads, and tells what cannot be.
    pub(super) fn run(
        &self,
        threads: usize,
        progress: &Progress<'_>,
        teller: &mut Teller<'_>,
    ) -> Result<()> {
        let bits = self.walk.subject.bits();
        progress.expect(self.walk.references.named() << bits);
        self.walk.on_threads(threads, progress, Hands::default, |hands, shown| {
            match shown.bytes {
                Some(bytes) => self.read_table(shown.table, bytes, hands, progress),
                None => Ok(()), // That it cannot be read was told.
            }
        })?;
        if self.faulty.load(Relaxed) {
            self.tell_all(progress, teller)?;
        }
        Ok(())
    }

    /// Reads what a table names.
    fn read_table(
        &self,
        table: &L2Table,
        bytes: &[u8],
        hands: &mut Hands,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let walk = self.walk;
        for run in walk.shape.runs(bytes) {
            let slot = Slot { table, index: run.index, entry: run.entry };
            let done = match self.walk.rules.judge(slot.entry, None).0 {
                // Nobody reads what is reserved for zeroes.
                Named::Cluster(_) if walk.rules.is_zero(run.entry) => 0,
                Named::Cluster(at) => {
                    let count = run.plain.max(1) as u64;
                    self.read_clusters(Clusters::new(at >> walk.subject.bits(), count), hands)
                }
                Named::Stream { at, len } => {
                    if self.is_new_stream(at, slot.entry.word)
                        && self.unpack(at, len, hands).is_err()
                    {
                        self.mark(at >> walk.subject.bits());
                    }
                    len
                }
                Named::Nothing | Named::Elsewhere(_) => 0,
            };
            progress.step(done)?;
        }
        Ok(())
    }

    /// Reads clusters that nobody has read yet, in large pieces; the bytes read.
    fn read_clusters(&self, run: Clusters, hands: &mut Hands) -> u64 {
        let (references, subject) = (self.walk.references, self.walk.subject);
        let most = (PIECE >> subject.bits()).max(1);
        let (mut at, mut done) = (run.first, 0);
        while at < run.end() {
            let new = (at..run.end()).take(usize::try_from(most).unwrap_or(1));
            let count = new.take_while(|cluster| references.see(*cluster)).count() as u64;
            let piece = Clusters::new(at, count);
            if count > 0 && self.read_piece(piece, hands).is_err() {
                let bad = (at..piece.end())
                    .filter(|at| self.read_piece(Clusters::new(*at, 1), hands).is_err());
                bad.for_each(|cluster| self.mark(cluster));
            }
            at += count.max(1);
            done += count << subject.bits();
        }
        done
    }

    fn read_piece(&self, piece: Clusters, hands: &mut Hands) -> Result<(), Lost> {
        let subject = self.walk.subject;
        let (at, len) = (subject.offset(piece.first).get(), piece.count << subject.bits());
        if subject.is_hole(at, len) {
            return Ok(());
        }
        hands.bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        let read = subject.read(at, &mut hands.bytes);
        read.map_err(|error| Lost { trouble: Trouble::DataUnreadable, why: error.to_string() })
    }

    /// Whether a stream that begins in the window has to be looked at.
    fn is_new_stream(&self, at: u64, word: u64) -> bool {
        let cluster = at >> self.walk.subject.bits();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = streams.contains(&word);
        if !known && streams.len() < STREAMS {
            streams.insert(word);
        }
        !known && self.walk.references.window().contains(&cluster)
    }

    /// Unpacks a stream, which must hold a whole cluster.
    fn unpack(&self, at: u64, len: u64, hands: &mut Hands) -> Result<(), Lost> {
        let subject = self.walk.subject;
        let size = |len: u64| usize::try_from(len).unwrap_or(0);
        hands.packed.resize(size(len), 0);
        hands.bytes.resize(size(subject.cluster_size()), 0);
        let read = subject.read(at, &mut hands.packed);
        read.map_err(|error| Lost { trouble: Trouble::DataUnreadable, why: error.to_string() })?;
        let codec = subject.header.compression.codec();
        let whole = size(subject.cluster_size());
        let unpacked = hands.decoder.decode(codec, &hands.packed, &mut hands.bytes[..whole]);
        let broken = |why: String| Lost { trouble: Trouble::StreamBroken, why };
        unpacked.map(drop).map_err(|error| broken(error.to_string()))
    }

    /// Marks the cluster in which something lies that cannot be read.
    fn mark(&self, cluster: u64) {
        self.walk.references.mark_bad(cluster);
        self.faulty.store(true, Relaxed);
    }

    /// Tells, for each entry, what of the marked clusters it loses.
    fn tell_all(&self, progress: &Progress<'_>, teller: &mut Teller<'_>) -> Result<()> {
        let mut hands = Hands::default();
        let mut bytes = vec![0; usize::try_from(self.walk.subject.cluster_size()).unwrap_or(0)];
        for table in self.walk.tables.iter().filter(|table| self.walk.is_walked(table)) {
            progress.step(0)?;
            if self.walk.subject.read(table.at, &mut bytes).is_err() {
                continue;
            }
            for run in self.walk.shape.runs(&bytes) {
                for index in run.index..run.index + run.plain.max(1) {
                    let entry = self.walk.shape.entry(&bytes, index);
                    self.tell(Slot { table, index, entry }, &mut hands, teller);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, slot: Slot<'_>, hands: &mut Hands, teller: &mut Teller<'_>) {
        let walk = self.walk;
        let named = walk.rules.judge(slot.entry, None).0;
        let (Named::Cluster(at) | Named::Stream { at, .. }) = named else { return };
        let cluster = at >> walk.subject.bits();
        if !walk.references.is_bad(cluster) {
            return;
        }
        let lost = match named {
            Named::Stream { at, len } => self.unpack(at, len, hands),
            _ => self.read_piece(Clusters::new(cluster, 1), hands),
        };
        let Err(Lost { trouble, why }) = lost else { return };
        let guest = walk.guest(slot).map(|at| self.on_disk(at));
        teller.tell_costing(trouble, walk.place(slot), guest, || {
            format!(
                "L2 entry {:#x}: what it names, at {}, is lost: {why}",
                slot.entry.word,
                HostOffset(at)
            )
        });
    }

    fn on_disk(&self, at: u64) -> GuestRange {
        range(at, self.walk.subject.cluster_size())
    }
}
