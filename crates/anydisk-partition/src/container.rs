//! The container: a table of either kind, and a partition as a window.

use std::sync::Arc;

use anydisk_core::{
    Container, ContainerRequest, Error, HostOffset, Invalid, Limits, Member, Members, Result,
    Sample, Storage, Value, Verdict, one_line,
};
use anydisk_storage::Window;

use crate::gpt::{self, SECTORS, Table};
use crate::layout::GPT_MAGIC;
use crate::{NAME, Partition, kinds, mbr};

/// Partition tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartitionContainer;

/// Partition tables, for a list of containers.
pub static PARTITIONS: PartitionContainer = PartitionContainer;

/// The kind of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl Container for PartitionContainer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let head = sample.head;
        let gpt = SECTORS.into_iter().filter_map(|sector| usize::try_from(sector).ok());
        let mut gpt = gpt.filter_map(|at| head.get(at..)).filter(|h| h.starts_with(&GPT_MAGIC));
        match (mbr::parse(head), gpt.next()) {
            (Some(entries), Some(_)) if entries.iter().any(is_protective) => Verdict::Magic,
            (Some(_), _) => Verdict::Likely,
            (None, Some(_)) => Verdict::Likely,
            (None, None) => Verdict::No,
        }
    }

    fn open(&self, request: ContainerRequest<'_>) -> Result<Box<dyn Members>> {
        let [file] = request.stores else {
            let feature = format!("a partition table over {} disks", request.stores.len());
            return Err(Error::Unsupported { format: NAME, feature: feature.into() });
        };
        Ok(Box::new(Partitions::open(Arc::clone(&file.store), request.limits)?))
    }
}

fn is_protective(entry: &crate::layout::MbrEntry) -> bool {
    entry.is_used() && entry.kind == kinds::PROTECTIVE
}

/// Whether an MBR that says that there is a GPT has partitions of its own.
fn has_others(entries: &[crate::layout::MbrEntry; 4]) -> bool {
    let has = |wanted: bool| entries.iter().any(|e| e.is_used() && is_protective(e) == wanted);
    has(true) && has(false)
}

/// The partitions of a disk.
#[derive(Debug)]
pub struct Partitions {
    disk: Arc<dyn Storage>,
    scheme: Scheme,
    partitions: Vec<Partition>,
    members: Vec<Member>,
}

impl Partitions {
    /// Reads the table of a disk. A GPT counts if the MBR says so, or if there is no MBR. What is
    /// wrong with a table that can be used all the same is told in the notes of all partitions.
    ///
    /// # Errors
    /// [`Invalid`] if there is no table, or what is wrong with it.
    pub fn open(disk: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let sector = mbr::first_sector(&*disk)?;
        let entries = mbr::parse(&sector);
        let protective = entries.as_ref().is_none_or(|entries| entries.iter().any(is_protective));
        let gpt = if protective { gpt::read(&*disk, limits)? } else { None };
        let (scheme, partitions, problem) = match (gpt, entries) {
            (Some(Table { partitions, problem }), entries) => {
                let is_hybrid = entries.is_some_and(|entries| has_others(&entries));
                let hybrid = is_hybrid.then(|| "the MBR lists partitions as well".to_owned());
                let notes: Vec<_> = problem.into_iter().chain(hybrid).collect();
                (Scheme::Gpt, partitions, (!notes.is_empty()).then(|| notes.join("; ")))
            }
            (None, Some(entries)) => {
                let (partitions, problem) = mbr::partitions(&*disk, &entries)?;
                (Scheme::Mbr, partitions, problem.map(|problem| problem.to_string()))
            }
            (None, None) => return Err(no_table(&sector).into()),
        };
        let len = disk.len()?;
        let members = partitions.iter().map(|partition| member(partition, len, problem.as_deref()));
        let members = members.collect();
        Ok(Self { disk, scheme, partitions, members })
    }

    /// The kind of the table.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// All partitions, in the order of the table.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
}

fn no_table(sector: &[u8]) -> Invalid {
    let found = Value::from(sector.get(510..).unwrap_or_default());
    let expected = "an MBR (55 aa, and entries) or a GPT";
    let at = HostOffset(510);
    Invalid { format: NAME, field: "partition table".into(), at, found, expected: expected.into() }
}

fn member(partition: &Partition, len: u64, problem: Option<&str>) -> Member {
    let kind = format!("partition ({})", partition.kind);
    let mut member = Member::new(partition.number.to_string(), kind);
    let end = partition.start.checked_add(partition.len);
    let inside = end.is_some_and(|end| end <= len);
    member.size = (inside && partition.problem.is_none()).then_some(partition.len);
    let name = partition.name.as_ref().map(|name| format!("name: {name}"));
    let outside = (!inside).then(|| "reaches past the end of the disk".to_owned());
    let notes: Vec<String> = [name, partition.problem.clone(), outside, problem.map(str::to_owned)]
        .into_iter()
        .flatten()
        .collect();
    member.note = (!notes.is_empty()).then(|| one_line(&notes.join("; ")));
    member
}

impl Members for Partitions {
    fn members(&self) -> &[Member] {
        &self.members
    }

    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        let found = self.partitions.iter().find(|partition| partition.number.to_string() == path);
        let Some(partition) = found else {
            return Err(Error::NotFound { what: "partition", name: path.to_owned() });
        };
        if let Some(why) = &partition.problem {
            let (name, why) = (path.to_owned(), why.clone().into());
            return Err(Error::Unusable { what: "partition", name, why });
        }
        let start = HostOffset(partition.start);
        Ok(Arc::new(Window::new(Arc::clone(&self.disk), start, partition.len)?))
    }
}
