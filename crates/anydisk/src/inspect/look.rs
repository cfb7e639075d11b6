//! Looking at an image by itself, with bounded work.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anydisk_core::{
    Access, CheckReport, CheckRequest, Disk, Error, Extent, Finding, Format, GuestRange, Image,
    Limits, Located, NoReferences, NoSecrets, OnlyNames, OpenRequest, Opened, Reference, Registry,
    Result, Sample, Source, Verdict,
};

use super::judge::{is_one_file, judge};
use super::{Certainty, Inspection, Mark, MarkKind, Rules, marks};
use crate::OpenDisk;

/// Runs of the map between two looks at the clock.
const STRIDE: u32 = 1024;

impl OpenDisk {
    /// Tells what the file at `path` is, and whether to take it. No other file is opened, whatever
    /// the [policy](Self::policy). A [format](Self::format) that was named is what the image is said
    /// to be; other options count as in opening.
    ///
    /// # Errors
    /// What keeps the file itself from being opened or read. What is wrong *inside* it is told in
    /// the remarks.
    pub fn inspect(&self, path: impl AsRef<Path>, rules: &Rules) -> Result<Inspection> {
        self.inspect_located(&self.file_at(path.as_ref(), Access::Read)?, rules)
    }

    /// As [`inspect`](Self::inspect), of bytes wherever they are.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    pub fn inspect_located(&self, file: &Located, rules: &Rules) -> Result<Inspection> {
        let said = self.said_format().map(|name| self.registry().by_name(name)).transpose()?;
        let known = Sample::of_store(&*file.store, |sample| {
            Known::of(self.registry(), said, sample, file.store.name())
        })?
        .ok_or_else(|| Error::UnknownFormat(file.location.to_string()))?;
        let look = Look { file, format: known.format, limits: self.limits_in_force() };
        let seen = look.see(rules);
        let allocated = file.store.holes().and_then(|holes| holes.allocated().ok());
        let mut inspection = Inspection {
            format: known.format.name(),
            certainty: known.certainty,
            marks: known.others.clone(),
            references: seen.references.clone(),
            len: file.store.len()?,
            allocated,
            size: seen.image.as_ref().map(|image| image.size()),
            data: seen.data,
            info: seen.image.as_ref().map(|image| image.info()),
            snapshots: seen.snapshots,
            bitmaps: seen.bitmaps,
            check: match &seen.check {
                Some(Ok(report)) => Some(report.clone()),
                _ => None,
            },
            findings: seen.findings.clone(),
            package: Vec::new(),
            remarks: Vec::new(),
        };
        inspection.remarks = judge(&inspection, &known, &seen, rules);
        Ok(inspection)
    }
}

/// What the bytes themselves tell.
pub(super) struct Known {
    pub(super) format: &'static dyn Format,
    pub(super) certainty: Certainty,
    /// The format that its bytes tell, if they tell one.
    pub(super) told: Option<&'static str>,
    /// The file begins with what tells its format: it is nothing else at its beginning.
    pub(super) at_head: bool,
    /// What else they could be taken for.
    pub(super) others: Vec<Mark>,
}

impl Known {
    fn of(
        registry: &Registry,
        said: Option<&'static dyn Format>,
        sample: &Sample<'_>,
        name: &str,
    ) -> Option<Self> {
        let (found, _) = registry.probe_named(sample, name)?;
        let verdict = found.probe(sample);
        let told = (verdict != Verdict::Anything).then(|| found.name());
        let format = said.unwrap_or(found);
        let certainty = match verdict {
            _ if said.is_some() => Certainty::Named,
            Verdict::Magic => Certainty::Magic,
            Verdict::Likely | Verdict::AtEnd => Certainty::Likely,
            _ => Certainty::Nothing,
        };
        let head = Sample { tail: &[], ..*sample };
        let at_head = format.probe(&head) >= Verdict::Likely;
        let mut others = marks::marks(registry, sample);
        others.retain(|mark| mark.name != format.name());
        Some(Self { format, certainty, told, at_head, others })
    }
}

/// What was seen of an image. Everything of it may be missing.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) references: Vec<Reference>,
    pub(super) image: Option<Arc<dyn Image>>,
    /// Why there is no image, or why its map ended early.
    pub(super) trouble: Vec<Error>,
    pub(super) warnings: Vec<String>,
    pub(super) data: Option<u64>,
    /// Bytes of data that are missing in the unit in which the file ends.
    pub(super) loose: u64,
    /// The map was longer than there was time.
    pub(super) walk_cut: bool,
    pub(super) snapshots: usize,
    pub(super) bitmaps: usize,
    pub(super) check: Option<Result<CheckReport>>,
    pub(super) findings: Vec<Finding>,
}

/// How an image is looked at.
struct Look<'a> {
    file: &'a Located,
    format: &'static dyn Format,
    limits: &'a Limits,
}

impl Look<'_> {
    fn see(&self, rules: &Rules) -> Seen {
        let end = Instant::now() + rules.time;
        // If there is an error, opening tells it again.
        let references = self.format.references(&self.request(&NoReferences)).unwrap_or_default();
        let mut seen = Seen { references, ..Seen::default() };
        match self.format.open(self.request(&OnlyNames::default())) {
            Ok(Opened { image, warnings, .. }) => {
                seen.warnings = warnings;
                seen.count_states(&*image);
                seen.image = Some(image);
            }
            Err(error) => seen.trouble.push(error),
        }
        if !is_one_file(&seen.references) {
            // What it says without the other files, or does not say, means nothing.
            seen.trouble.clear();
            return seen;
        }
        self.walk(&mut seen, end);
        if rules.check {
            self.check(&mut seen, rules, end);
        }
        seen
    }

    fn request<'r>(&'r self, resolver: &'r dyn anydisk_core::Resolver) -> OpenRequest<'r> {
        OpenRequest {
            store: Arc::clone(&self.file.store),
            location: &self.file.location,
            access: Access::Read,
            resolver,
            limits: self.limits,
            secrets: &NoSecrets,
        }
    }

    fn walk(&self, seen: &mut Seen, end: Instant) {
        let Some(image) = &seen.image else { return };
        // What lies behind the end of a file that was cut off does not read as zeroes.
        let disk = Disk::new(Arc::clone(image)).unpadded_but_for_last_unit();
        match data(&disk, end) {
            Ok(Some(Data { len, loose })) => (seen.data, seen.loose) = (Some(len), loose),
            Ok(None) => seen.walk_cut = true,
            // What is encrypted is not looked into; the check needs no key.
            Err(Error::Secret { .. }) => {}
            Err(error) => seen.trouble.push(error),
        }
    }

    fn check(&self, seen: &mut Seen, rules: &Rules, end: Instant) {
        let goes_on = |_, _| Instant::now() < end;
        let mut request = CheckRequest::new(self.request(&NoReferences));
        request.threads = rules.threads;
        request.progress = Some(&goes_on);
        let findings = &mut seen.findings;
        let mut keep = |finding: Finding| {
            if findings.len() < rules.findings {
                findings.push(finding);
            }
        };
        seen.check = Some(self.format.check(&request, &mut keep));
    }
}

impl Known {
    /// Whether it has no mark of an image or a package.
    pub(super) fn is_unmarked(&self) -> bool {
        self.others.iter().all(|mark| mark.kind == MarkKind::Content)
    }
}

impl Seen {
    fn count_states(&mut self, image: &dyn Image) {
        match image.snapshots().map(anydisk_core::Snapshots::list) {
            Some(Ok(list)) => self.snapshots = list.len(),
            Some(Err(error)) => self.trouble.push(error),
            None => {}
        }
        if let Some(Ok(list)) = image.bitmaps().map(anydisk_core::Bitmaps::list) {
            self.bitmaps = list.len();
        }
    }
}

/// What the map of a disk comes to.
#[derive(Default)]
struct Data {
    /// Bytes of the disk that the image holds data for.
    len: u64,
    /// Of these the ones that lie behind the end of the file.
    loose: u64,
}

/// What the map comes to; `None` if that took too long.
fn data(disk: &Disk, end: Instant) -> Result<Option<Data>> {
    let mut rest = GuestRange::whole(disk.size());
    let (mut sum, mut steps) = (Data::default(), 0_u32);
    while !rest.is_empty() {
        let extent = disk.map(rest)?.extent;
        let (len, behind) = (extent.len, behind_end(&extent)?);
        let is_packed = matches!(extent.source, Source::Encoded(_));
        if is_packed || matches!(extent.source, Source::Data { .. }) {
            sum.len = sum.len.saturating_add(len);
        }
        drop(extent);
        if behind > 0 && is_packed {
            // Whether the file holds all of the stream, only unpacking tells.
            disk.read(rest.start(), &mut [0])?;
        } else {
            sum.loose = sum.loose.saturating_add(behind);
        }
        rest = rest.skip(len);
        steps = steps.wrapping_add(1);
        if (behind > 0 || steps.is_multiple_of(STRIDE)) && Instant::now() >= end {
            return Ok(None);
        }
    }
    Ok(Some(sum))
}

/// Bytes of an extent that lie behind the end of its file.
fn behind_end(extent: &Extent<'_>) -> Result<u64> {
    let (store, at, len) = match &extent.source {
        Source::Data { store, at, .. } => (*store, at, extent.len),
        Source::Encoded(packed) => (packed.store, &packed.at, packed.len as u64),
        _ => return Ok(0),
    };
    Ok(at.get().saturating_add(len).saturating_sub(store.len()?).min(len))
}
