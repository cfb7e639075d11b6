//! What must hold before anything is written: metadata lies apart from metadata, all that entries name is in
//! the file, apart from the metadata, and no cluster is named twice.
//!
//! The format says nowhere what is in use. All tables are read once, when an image is opened for writing; what
//! is kept is the list of the L2 tables, and while it lasts a bit for each cluster.

use anydisk_core::{Error, HostOffset, Owners, Result, Storage, check_limit};

use crate::header::Header;
use crate::piece::{Piece, each_word};
use crate::table::{Cluster, Geometry};
use crate::{NAME, limits};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Entries are there for what lies behind the end of the disk.
    pub(crate) names_behind_end: bool,
    /// The L1 table names a table.
    pub(crate) names_something: bool,
}

impl Survey {
    /// Reads all tables of an image whose file ends at `end`, in whole clusters.
    ///
    /// # Errors
    /// [`Error::NeedsRepair`] for what must not be written, [`Error::Limit`] for too many tables, those
    /// of the store.
    pub(crate) fn of(
        store: &dyn Storage,
        header: &Header,
        geometry: &Geometry,
        end: u64,
    ) -> Result<Self> {
        let mut job = Job {
            geometry,
            end,
            others: vec![header.piece(), header.l1_piece()],
            tables: Vec::new(),
            owners: Owners::new(geometry.cluster()),
            survey: Self::default(),
        };
        let tables = job.find_tables(store, header)?;
        job.check_metadata()?;
        job.survey.names_something = !tables.is_empty();
        for (number, table) in tables {
            job.look_at(store, header, number, table)?;
        }
        Ok(job.survey)
    }
}

struct Job<'a> {
    geometry: &'a Geometry,
    end: u64,
    /// The metadata but for the L2 tables.
    others: Vec<Piece>,
    /// The places of the L2 tables, rising.
    tables: Vec<HostOffset>,
    owners: Owners,
    survey: Survey,
}

impl Job<'_> {
    /// The L2 tables, each with the number of its entry.
    fn find_tables(
        &mut self,
        store: &dyn Storage,
        header: &Header,
    ) -> Result<Vec<(u64, HostOffset)>> {
        let l1 = header.l1_piece();
        let mut found = Vec::new();
        each_word(store, l1, &mut |at, entry| {
            let Ok(Some(table)) = self.geometry.table(entry, self.end) else {
                return Err(refused(format!("the L1 entry at {at} is {entry:#x}")));
            };
            found.push(((at.get() - l1.at.get()) / crate::table::ENTRY, table));
            check_limit(NAME, "number of L2 tables", found.len() as u64, limits::TABLES)
        })?;
        self.tables = found.iter().map(|(_, table)| *table).collect();
        self.tables.sort_unstable();
        Ok(found)
    }

    /// All metadata lies apart from the other.
    fn check_metadata(&self) -> Result<()> {
        let table = |at: &HostOffset| Piece::new(*at, self.geometry.table_len());
        let pairs = self.tables.iter().zip(self.tables.iter().skip(1));
        let tables = pairs.map(|(one, other)| (table(one), table(other)));
        let mixed = self.others.iter().filter_map(|other| Some((*other, self.table_in(*other)?)));
        let others = self.others.iter().zip(self.others.iter().skip(1));
        let mut all = tables.chain(mixed).chain(others.map(|(one, other)| (*one, *other)));
        match all.find(|(one, other)| one.meets(*other)) {
            None => Ok(()),
            Some((one, other)) => {
                let (first, second) = (one.at.min(other.at), one.at.max(other.at));
                Err(refused(format!("metadata at {second} lies on that at {first}")))
            }
        }
    }

    /// Looks at the entries of a table.
    fn look_at(
        &mut self,
        store: &dyn Storage,
        header: &Header,
        number: u64,
        table: HostOffset,
    ) -> Result<()> {
        let piece = Piece::new(table, self.geometry.table_len());
        each_word(store, piece, &mut |at, entry| {
            let from_table = (at.get() - table.get()) / crate::table::ENTRY;
            let guest = self.geometry.guest_of(number, from_table);
            self.survey.names_behind_end |= guest.is_none_or(|guest| guest >= header.image_size);
            let place = match self.geometry.decode(entry, self.end) {
                Some(Cluster::Data(place)) => place,
                Some(Cluster::Absent | Cluster::Zero) => return Ok(()),
                None => return Err(refused(format!("the L2 entry at {at} is {entry:#x}"))),
            };
            let cluster = Piece::new(place, self.geometry.cluster());
            let other = self.others.iter().copied().find(|other| other.meets(cluster));
            if let Some(other) = other.or_else(|| self.table_in(cluster)) {
                let other = other.at;
                return Err(refused(format!("the cluster at {place} lies on metadata at {other}")));
            }
            match self.owners.insert(place.get()) {
                true => Ok(()),
                false => Err(refused(format!(
                    "the L2 entry at {at} names the cluster at {place}, as another one"
                ))),
            }
        })
    }

    /// The table that shares a byte with `piece`.
    fn table_in(&self, piece: Piece) -> Option<Piece> {
        let before = self.tables.partition_point(|at| *at < piece.end());
        let table = self.tables.get(before.checked_sub(1)?)?;
        Some(Piece::new(*table, self.geometry.table_len())).filter(|table| table.meets(piece))
    }
}

fn refused(why: String) -> Error {
    Error::needs_repair(NAME, why)
}
