//! What must be known before anything is written: where the metadata is, where everything ends that is
//! named, and that nothing is named twice.
//!
//! The format says nowhere what is free, so new space begins behind all that any entry names, and an
//! entry may name what lies behind the end of the file, or what another names. To know, all L2 tables must
//! be read, which takes as long as the image is full. Opening reads the L1 table alone; the rest is read
//! once, in pieces that are asked for as all metadata is ([`Need`](anydisk_core::Need)), by whoever first
//! writes, or gives something back, before he does. A write in place waits for it as well: another entry may
//! name the same cluster, and what is written for one part of the disk would change the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anydisk_core::{Error, HostOffset, Owners, Result, RunSpace, check_limit};

use crate::layout::RawHeader;
use crate::piece::{Piece, each_word};
use crate::table::{Cluster, ENTRY, Geometry};
use crate::{NAME, QcowImage, limits};

/// Bytes of tables that are read at once.
const AT_ONCE: u64 = 1 << 20;

/// The survey of an image, done or under way.
#[derive(Debug)]
pub(crate) struct Survey {
    done: AtomicBool,
    state: Mutex<State>,
}

/// What is known, and what is left to be read.
#[derive(Debug)]
struct State {
    /// Header, L1 table, name of the backing file: rising.
    others: Vec<Piece>,
    /// The L2 tables, rising, apart from each other and from the others.
    tables: Vec<HostOffset>,
    /// Bytes of a table.
    table_len: u64,
    /// Number of the table to be read next, and the bytes of it that were read.
    next: (usize, u64),
    /// Where the file ended when it was opened, in whole clusters.
    file_end: u64,
    /// Behind the last byte of what was found.
    end: u64,
    /// The plain clusters that were found, and the streams.
    owners: Owners,
    streams: Streams,
}

/// Most runs of streams that are kept in mind.
const MOST_STREAMS: usize = 1 << 20;

/// Where streams lie, those that follow each other as one. Where there are more than fit in memory, the rest
/// is not noted.
#[derive(Debug, Default)]
struct Streams(Vec<Piece>);

impl Streams {
    fn insert(&mut self, piece: Piece) {
        let has_room = self.0.len() < MOST_STREAMS;
        match self.0.last_mut() {
            Some(last) if last.end == piece.at => last.end = piece.end,
            _ if has_room => self.0.push(piece),
            _ => {}
        }
    }

    /// The first byte of a stream that another has too, or a plain cluster.
    fn shared(&mut self, owners: &Owners) -> Option<HostOffset> {
        self.0.sort_unstable();
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let twice = pairs.filter(|(one, other)| one.meets(**other)).map(|(_, other)| other.at());
        let on_plain = self.0.iter().filter(|it| owners.meets_part(it.at, it.end - it.at));
        twice.chain(on_plain.map(|it| it.at())).min()
    }
}

impl Survey {
    /// Reads the L1 table, and checks that no two pieces of metadata share a byte and that all begin
    /// in the file. `len`: bytes of that.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`], [`Error::Limit`] for too many L2 tables, those of the store.
    pub(crate) fn begin(image: &QcowImage, len: u64) -> Result<Self> {
        let geometry = &image.geometry;
        let mut others = vec![
            Piece::new(HostOffset::ZERO, size_of::<RawHeader>() as u64),
            Piece::new(geometry.l1_table(), geometry.l1_entries() * ENTRY),
        ];
        others.extend(image.header.backing_file.map(|(at, len)| Piece::new(at, len.into())));
        others.sort_unstable();
        let mut state = State {
            others,
            tables: tables(image)?,
            table_len: geometry.l2_len(),
            next: (0, 0),
            file_end: len.next_multiple_of(geometry.cluster()),
            end: len,
            owners: Owners::new(geometry.cluster()),
            streams: Streams::default(),
        };
        state.check_metadata()?;
        Ok(Self { done: state.tables.is_empty().into(), state: state.into() })
    }

    /// Whether all tables were read, and nothing is wrong with them.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Behind the last byte of what was found so far.
    pub(crate) fn end(&self) -> HostOffset {
        HostOffset(self.lock().end)
    }

    /// What is to be read next: its place and length. `None`: nothing, it is done.
    pub(crate) fn next(&self) -> Option<(HostOffset, u64)> {
        if self.is_done() { None } else { self.lock().piece(AT_ONCE) }
    }

    /// Whether the next bytes to be read, from `at` on, may be a hole: so many of them at most.
    pub(crate) fn rest_from(&self, at: HostOffset) -> u64 {
        self.lock().piece(u64::MAX).filter(|piece| piece.0 == at).map_or(0, |piece| piece.1)
    }

    /// Takes the bytes at `at`, unless they were taken before; in the end, all that is named is space
    /// that is not given out.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] for what they name; then all is asked for again.
    pub(crate) fn take(
        &self,
        geometry: &Geometry,
        space: &RunSpace,
        (at, bytes): (HostOffset, &[u8]),
    ) -> Result<()> {
        let mut state = self.lock();
        if state.piece(AT_ONCE).is_none_or(|piece| piece != (at, bytes.len() as u64)) {
            return Ok(());
        }
        let words = bytes.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word));
        for (word, number) in words.zip(0..).filter(|(word, _)| *word != 0) {
            let found = state.find(geometry, at.saturating_add(number * ENTRY), word);
            found.inspect_err(|_| state.begin_again())?;
        }
        self.go_on(&mut state, space, bytes.len() as u64)
    }

    /// The next `len` bytes, which begin at `at`, are a hole: nothing is named there.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn skip(&self, space: &RunSpace, at: HostOffset, len: u64) -> Result<()> {
        let mut state = self.lock();
        match state.piece(u64::MAX).filter(|piece| piece.0 == at) {
            Some((_, most)) => self.go_on(&mut state, space, len.min(most)),
            None => Ok(()),
        }
    }

    fn go_on(&self, state: &mut State, space: &RunSpace, len: u64) -> Result<()> {
        let len = state.next.1 + len;
        let tables = usize::try_from(len / state.table_len).unwrap_or(usize::MAX);
        state.next = (state.next.0.saturating_add(tables), len % state.table_len);
        if state.next.0 >= state.tables.len() {
            state.check_streams().inspect_err(|_| state.begin_again())?;
            let end = space.end();
            let _ = space.take_at(end, state.end.saturating_sub(end.get()));
            // Whoever sees it done takes space behind that.
            self.done.store(true, Ordering::Release);
            state.tables = Vec::new();
            state.begin_again();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The tables to be read next that lie in a row, at most `most` bytes of them.
    fn piece(&self, most: u64) -> Option<(HostOffset, u64)> {
        let (next, within) = self.next;
        let rest = self.tables.get(next..)?;
        let first = rest.first()?;
        let follows = |(number, at): &(u64, &HostOffset)| {
            let before = number * self.table_len;
            first.saturating_add(before) == **at && before < most.saturating_add(within)
        };
        let count = (0..).zip(rest).take_while(follows).count() as u64;
        let len = (count * self.table_len - within).min(most);
        Some((first.saturating_add(within), len))
    }

    /// Takes in what the entry at `at` names.
    fn find(&mut self, geometry: &Geometry, at: HostOffset, entry: u64) -> Result<()> {
        let piece = match geometry.decode(entry) {
            Some(Cluster::Absent) => return Ok(()),
            Some(Cluster::Data(place)) => Piece::new(place, geometry.cluster()),
            Some(Cluster::Packed { at, len }) => Piece::new(at, len.into()),
            None => {
                return Err(Error::needs_repair(
                    NAME,
                    format!("the L2 entry at {at} is {entry:#x}"),
                ));
            }
        };
        self.check_cluster(piece)?;
        self.end = self.end.max(piece.end);
        let is_twice = match geometry.decode(entry) {
            Some(Cluster::Data(_)) => !self.owners.insert(piece.at),
            _ => {
                self.streams.insert(piece);
                false
            }
        };
        match is_twice {
            true => Err(Error::needs_repair(
                NAME,
                format!("the L2 entry at {at} names the cluster at {}, as another one", piece.at()),
            )),
            false => Ok(()),
        }
    }

    /// No stream shares a byte with another, or with a plain cluster: its space may be given back.
    fn check_streams(&mut self) -> Result<()> {
        match self.streams.shared(&self.owners) {
            None => Ok(()),
            Some(at) => Err(Error::needs_repair(
                NAME,
                format!(
                    "two L2 entries name what lies at {at}, where one has a compressed cluster"
                ),
            )),
        }
    }

    /// Forgets what was found, so that nothing is found twice.
    fn begin_again(&mut self) {
        self.next = (0, 0);
        self.owners = Owners::new(self.owners.unit());
        self.streams = Streams::default();
    }

    fn check_cluster(&self, piece: Piece) -> Result<()> {
        self.check_inside(piece, "a cluster")?;
        match self.metadata_in(piece) {
            None => Ok(()),
            Some(other) => {
                let (found, other) = (HostOffset(piece.at), HostOffset(other.at));
                Err(Error::needs_repair(
                    NAME,
                    format!("the cluster at {found} lies on metadata at {other}"),
                ))
            }
        }
    }

    /// What begins behind the end of the file would be handed out again. Its end may lie there: the
    /// last cluster need not be whole, and programs leave tables unwritten when they die.
    fn check_inside(&self, piece: Piece, what: &str) -> Result<()> {
        if piece.at <= self.file_end {
            return Ok(());
        }
        let (at, end) = (HostOffset(piece.at), HostOffset(self.file_end));
        Err(Error::needs_repair(
            NAME,
            format!("{what} at {at} lies behind the end of the file at {end}"),
        ))
    }

    /// The metadata that shares a byte with `piece`.
    fn metadata_in(&self, piece: Piece) -> Option<Piece> {
        let other = self.others.iter().copied().find(|other| other.meets(piece));
        other.or_else(|| self.table_in(piece))
    }

    /// The table that shares a byte with `piece`.
    fn table_in(&self, piece: Piece) -> Option<Piece> {
        let before = self.tables.partition_point(|at| at.get() < piece.end);
        let table = self.tables.get(before.checked_sub(1)?)?;
        Some(Piece::new(*table, self.table_len)).filter(|table| table.meets(piece))
    }

    /// All metadata begins in the file, each piece apart from the others: where all of it ends.
    fn check_metadata(&mut self) -> Result<()> {
        let table = |at: &HostOffset| Piece::new(*at, self.table_len);
        let tables = self.tables.iter().zip(self.tables.iter().skip(1));
        let tables = tables.map(|(first, second)| (table(first), table(second)));
        let others = self.others.iter().zip(self.others.iter().skip(1));
        let mixed = self.others.iter().filter_map(|other| Some((*other, self.table_in(*other)?)));
        let pairs = others.map(|(first, second)| (*first, *second)).chain(mixed).chain(tables);
        if let Some((one, other)) = pairs.into_iter().find(|(one, other)| one.meets(*other)) {
            let (first, second) =
                (HostOffset(one.at.min(other.at)), HostOffset(one.at.max(other.at)));
            return Err(Error::needs_repair(
                NAME,
                format!("metadata at {second} lies on that at {first}"),
            ));
        }
        let last = [self.others.last().copied(), self.tables.last().map(table)];
        for piece in last.into_iter().flatten() {
            self.check_inside(piece, "metadata")?;
            self.end = self.end.max(piece.end);
        }
        Ok(())
    }
}

/// The places of all L2 tables, rising.
fn tables(image: &QcowImage) -> Result<Vec<HostOffset>> {
    let len = image.geometry.l1_entries() * ENTRY;
    let mut tables = Vec::new();
    each_word(image, image.geometry.l1_table(), len, &mut |at, entry| {
        match image.geometry.table(entry) {
            Ok(table) => tables.extend(table),
            Err(entry) => {
                return Err(Error::needs_repair(
                    NAME,
                    format!("the L1 entry at {at} is {entry:#x}"),
                ));
            }
        }
        check_count(tables.len())
    })?;
    tables.sort_unstable();
    Ok(tables)
}

fn check_count(tables: usize) -> Result<()> {
    let what = "number of L2 tables of an image to be written";
    check_limit(NAME, what, tables as u64, limits::TABLES)
}
