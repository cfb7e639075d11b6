//! What can be wrong with an image, in one table: the word for programs, how bad it is, and what a
//! repair does about it.

use anydisk_core::{CheckReport, Error, Finding, GuestRange, HostOffset, Result, Severity};

use crate::NAME;

/// A kind of inconsistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    MarkedDirty,
    MarkedCorrupt,
    ReservedBits,
    TableUnaligned,
    DataUnaligned,
    ZeroUnaligned,
    PastEnd,
    CompressedCopied,
    CompressedInDataFile,
    CompressedBitmap,
    StreamOutOfReach,
    ZeroFlag,
    SubclusterBoth,
    SubclusterNoHost,
    DataFileMismatch,
    Copied,
    Overlap,
    RefcountLow,
    RefcountOverflow,
    Leak,
    BlockReserved,
    BlockUnaligned,
    BlockPastEnd,
    BlockShared,
    RefcountMissing,
    SnapshotShort,
    SnapshotLong,
    SnapshotL1Unaligned,
    SnapshotL1TooLarge,
    SnapshotTableTooLong,
    SnapshotsWithDataFile,
    Bitmaps,
    BitmapBits,
    BitmapInUse,
    BitmapShared,
    BitmapUnknown,
    Unreadable,
    DataUnreadable,
    StreamBroken,
    CutInside,
}

/// Several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles(u64);

impl Troubles {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn add(&mut self, trouble: Trouble) {
        self.0 |= 1 << trouble as u32;
    }

    pub(super) fn add_if(&mut self, wrong: bool, trouble: Trouble) {
        if wrong {
            self.add(trouble);
        }
    }

    pub(super) fn holds(self, trouble: Trouble) -> bool {
        self.0 >> trouble as u32 & 1 != 0
    }
}

/// What has to be done about a trouble, and so which repair does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing is lost by it.
    Harmless,
    /// The tables cannot be trusted: something may be named that was not counted.
    Structure,
    /// Data is lost, and nothing else.
    Lost,
    /// A refcount is to be raised.
    Low,
    /// A refcount is to be lowered.
    High,
    /// A COPIED flag is to be set or cleared.
    Copied,
    /// An entry is to be rewritten.
    Entry,
    /// The refcount structure is to be built anew.
    Refcounts,
    /// The same, with more bits for each.
    Narrow,
    /// The snapshot table is to be rewritten.
    SnapshotTable,
    /// The bitmaps are to be written anew.
    Bitmaps,
    /// A bitmap cannot be relied on, though it breaks no rule.
    BitmapDoubt,
    /// Data may be lost, and nobody can tell.
    Doubt,
}

impl Trouble {
    /// The word for programs, and what has to be done.
    fn facts(self) -> (&'static str, Class) {
        use Class::{
            BitmapDoubt, Bitmaps, Copied, Doubt, Entry, Harmless, High, Lost, Low, Narrow,
            Refcounts, SnapshotTable, Structure,
        };
        match self {
            Self::MarkedDirty => ("marked-dirty", Harmless),
            Self::MarkedCorrupt => ("marked-corrupt", Harmless),
            Self::ReservedBits => ("reserved-bits", Structure),
            Self::TableUnaligned => ("l2-table-unaligned", Structure),
            Self::DataUnaligned => ("cluster-unaligned", Structure),
            Self::ZeroUnaligned => ("zero-cluster-unaligned", Entry),
            Self::PastEnd => ("past-end-of-file", Structure),
            Self::CompressedCopied => ("compressed-copied", Structure),
            Self::CompressedInDataFile => ("compressed-with-data-file", Structure),
            Self::CompressedBitmap => ("compressed-with-subclusters", Structure),
            Self::StreamOutOfReach => ("compressed-out-of-reach", Structure),
            Self::ZeroFlag => ("zero-flag-in-version-2", Structure),
            Self::SubclusterBoth => ("subcluster-data-and-zero", Structure),
            Self::SubclusterNoHost => ("subcluster-without-cluster", Structure),
            Self::DataFileMismatch => ("data-file-mismatch", Structure),
            Self::Copied => ("copied-flag-wrong", Copied),
            Self::Overlap => ("metadata-overlap", Structure),
            Self::RefcountLow => ("refcount-too-low", Low),
            Self::RefcountOverflow => ("refcount-overflow", Narrow),
            Self::Leak => ("leak", High),
            Self::BlockReserved => ("refcount-table-reserved-bits", Refcounts),
            Self::BlockUnaligned => ("refcount-block-unaligned", Refcounts),
            Self::BlockPastEnd => ("refcount-block-past-end-of-file", Refcounts),
            Self::BlockShared => ("refcount-block-shared", Refcounts),
            Self::RefcountMissing => ("refcount-missing", Refcounts),
            Self::SnapshotShort => ("snapshot-entry-incomplete", SnapshotTable),
            Self::SnapshotLong => ("snapshot-extra-data-too-long", SnapshotTable),
            Self::SnapshotL1Unaligned => ("snapshot-l1-unaligned", Structure),
            Self::SnapshotL1TooLarge => ("snapshot-l1-too-large", Structure),
            Self::SnapshotTableTooLong => ("snapshot-table-too-long", Structure),
            Self::SnapshotsWithDataFile => ("snapshots-with-data-file", Structure),
            Self::Bitmaps => ("bitmaps-invalid", Bitmaps),
            Self::BitmapBits => ("bitmap-bits-invalid", Bitmaps),
            Self::BitmapInUse => ("bitmap-in-use", BitmapDoubt),
            Self::BitmapShared => ("bitmap-overlap", BitmapDoubt),
            // It may name more than can be seen.
            Self::BitmapUnknown => ("bitmap-not-understood", Structure),
            Self::Unreadable => ("unreadable", Structure),
            Self::DataUnreadable => ("data-unreadable", Lost),
            Self::StreamBroken => ("compressed-data-broken", Lost),
            Self::CutInside => ("cut-off-inside", Doubt),
        }
    }

    pub(super) fn class(self) -> Class {
        self.facts().1
    }

    fn severity(self) -> Severity {
        match self {
            Self::Unreadable | Self::SnapshotTableTooLong | Self::DataUnreadable => {
                Severity::Unreadable
            }
            _ => match self.class() {
                Class::Harmless | Class::BitmapDoubt | Class::Doubt => Severity::Note,
                Class::High => Severity::Leak,
                _ => Severity::Corruption,
            },
        }
    }
}

impl Class {
    fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::Structure | Self::Lost | Self::Doubt => return None,
            Self::Harmless => "the mark is removed when nothing is wrong any more",
            Self::Low => "the refcount is raised",
            Self::High => "the refcount is lowered, if no table is damaged",
            Self::Copied => "the flag is made to agree with the refcount",
            Self::Entry => "the entry becomes one that reads as zeroes, as it did before",
            Self::Refcounts => "the refcounts are built anew",
            Self::Narrow => {
                "the refcounts are built anew with more bits, if every table can be followed and the version is 3"
            }
            Self::SnapshotTable => "the snapshot table is written anew",
            Self::Bitmaps => {
                "bitmaps that break the format are removed; one whose bits alone are lost says that everything has changed"
            }
            Self::BitmapDoubt => "the bitmap says that everything has changed, and is valid again",
        })
    }
}

/// What a repair will mend; decided before anything is told or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Refcounts are raised, and COPIED flags of what is shared cleared: both only protect.
    pub(super) protect: bool,
    /// Refcounts are lowered, and COPIED flags set, where every reference is known.
    pub(super) release: bool,
    /// Entries that break the format are replaced by ones that read the same.
    pub(super) entries: bool,
    /// The refcounts are built anew, elsewhere.
    pub(super) rebuild: bool,
    /// They are too narrow for what is named, and get more bits then.
    pub(super) widen: bool,
    /// The snapshot table is written anew.
    pub(super) snapshot_table: bool,
    /// Bitmaps that cannot be relied on are written anew, or removed.
    pub(super) bitmaps: bool,
    /// The marks in the header are removed.
    pub(super) marks: bool,
}

impl Plan {
    /// What a repair of everything does. `sound`: every reference is known, apart from those of the
    /// refcounts themselves, which may have to be built anew.
    pub(super) fn all(tally: &Tally, sound: bool) -> Self {
        let disturbed = [Class::Refcounts, Class::Structure, Class::Narrow];
        let rebuild = sound && disturbed.iter().any(|class| tally.count(*class) > 0);
        Self {
            // In the old place of a count there may be an entry of a table, or data.
            protect: rebuild || tally.shared_blocks == 0,
            release: sound,
            entries: sound,
            rebuild,
            widen: rebuild && tally.count(Class::Narrow) > 0,
            snapshot_table: sound,
            bitmaps: false, // That was done before.
            marks: sound,
        }
    }

    /// What a repair of leaks does: nothing where anything else is wrong than what leaks entail.
    pub(super) fn leaks(tally: &Tally) -> Self {
        let others = [
            Class::Structure,
            Class::Low,
            Class::Entry,
            Class::Refcounts,
            Class::Narrow,
            Class::SnapshotTable,
            Class::Bitmaps,
        ];
        let release = others.iter().all(|class| tally.count(*class) == 0);
        Self { protect: release, release, ..Self::default() }
    }

    fn mends(&self, trouble: Trouble) -> bool {
        match trouble.class() {
            Class::Harmless => self.marks,
            // Of these, only an overlap with the old refcounts lets every reference be known.
            Class::Structure | Class::Refcounts => self.rebuild,
            Class::Narrow => self.widen,
            Class::Lost | Class::Doubt => false,
            Class::Low => self.protect,
            Class::High | Class::Copied => self.release,
            Class::Entry => self.entries,
            Class::SnapshotTable => self.snapshot_table,
            Class::Bitmaps | Class::BitmapDoubt => self.bitmaps,
        }
    }
}

/// How often each class was met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    classes: [u64; 13],
    /// Refcount blocks in whose place something else lies.
    shared_blocks: u64,
}

impl Tally {
    pub(super) fn count(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }
}

/// Takes what is found: counts it, and tells it on.
pub(super) struct Teller<'a> {
    /// `None`: only counted.
    found: Option<&'a mut dyn FnMut(Finding)>,
    plan: Plan,
    /// Only these are told and counted, if not all.
    only: Option<&'static [Class]>,
    pub(super) tally: Tally,
    pub(super) report: CheckReport,
}

impl<'a> Teller<'a> {
    /// Tells `found` each finding, as mended where `plan` mends it.
    pub(super) fn new(found: &'a mut dyn FnMut(Finding), plan: Plan) -> Self {
        Self { found: Some(found), plan, ..Self::quiet() }
    }

    /// The same, deaf to all but these classes.
    pub(super) fn of_classes(self, only: &'static [Class]) -> Self {
        Self { only: Some(only), ..self }
    }

    /// Only counts.
    pub(super) fn quiet() -> Self {
        Self {
            found: None,
            plan: Plan::default(),
            only: None,
            tally: Tally::default(),
            report: CheckReport::default(),
        }
    }

    /// Refuses to go on where a part of the tables could not be read: whoever frees space must know
    /// every reference.
    pub(super) fn knows_all(&self) -> Result<()> {
        match self.report.check_errors {
            0 => Ok(()),
            _ => {
                let why = "a part of its tables could not be read, so nothing is freed".into();
                Err(Error::NeedsRepair { format: NAME, why })
            }
        }
    }

    pub(super) fn tell(&mut self, trouble: Trouble, at: HostOffset, text: impl FnOnce() -> String) {
        self.tell_costing(trouble, at, None, text);
    }

    /// As [`tell`](Self::tell), for what costs or endangers a part of the disk.
    pub(super) fn tell_costing(
        &mut self,
        trouble: Trouble,
        at: HostOffset,
        guest: Option<GuestRange>,
        text: impl FnOnce() -> String,
    ) {
        self.tell_times(trouble, at, (guest, 1), text);
    }

    /// The same, for what is wrong as often as it is named: told once, counted each time.
    pub(super) fn tell_times(
        &mut self,
        trouble: Trouble,
        at: HostOffset,
        (guest, times): (Option<GuestRange>, u64),
        text: impl FnOnce() -> String,
    ) {
        let (word, class) = trouble.facts();
        if self.only.is_some_and(|only| !only.contains(&class)) {
            return;
        }
        self.tally.classes[class as usize] += 1;
        self.tally.shared_blocks += u64::from(matches!(trouble, Trouble::BlockShared));
        let told = self.found.is_some();
        let text = if told { text() } else { String::new() };
        let mut finding = Finding::new(trouble.severity(), word, at, text);
        finding.guest = guest;
        finding.remedy = class.remedy().map(Into::into);
        finding.repaired = self.plan.mends(trouble);
        self.report.count_times(&finding, times);
        if let Some(found) = &mut self.found {
            found(finding);
        }
    }
}
