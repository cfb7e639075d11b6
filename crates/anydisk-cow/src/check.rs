//! Checking an image: bits of sectors that are not in the file, bits of no sector, a file that is too
//! long.

use anydisk_core::{
    CheckReport, CheckRequest, Error, Finding, GuestOffset, GuestRange, HostOffset, Repair, Result,
    Severity, Storage, StorageExt,
};
use anydisk_storage::Run;

use crate::CowImage;
use crate::bitmap::{self, mask};

/// Bytes of the bitmap that are read at once.
const AT_ONCE: u64 = 64 << 10;

/// Checks the image of a request; see [`Format::check`](anydisk_core::Format::check).
pub(crate) fn check(
    request: &CheckRequest<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<CheckReport> {
    let open = &request.open;
    if request.repair != Repair::Nothing {
        open.is_writable()?;
    }
    let image = CowImage::open(open.store.clone(), open.limits)?;
    let mut checker = Checker {
        image: &image,
        request,
        found,
        report: CheckReport::default(),
        end: 0,
        missing: None,
    };
    checker.look_at_bits()?;
    checker.look_at_end()?;
    if request.repair != Repair::Nothing {
        image.store.flush()?;
    }
    Ok(checker.report)
}

struct Checker<'a> {
    image: &'a CowImage,
    request: &'a CheckRequest<'a>,
    found: &'a mut dyn FnMut(Finding),
    report: CheckReport,
    /// Behind the last sector that is here.
    end: u64,
    /// Sectors that a bit says are here, and that are not in the file: first, and first behind.
    missing: Option<(u64, u64)>,
}

impl Checker<'_> {
    fn tell(&mut self, finding: Finding) {
        self.report.count(&finding);
        (self.found)(finding);
    }

    fn look_at_bits(&mut self) -> Result<()> {
        let header = &self.image.header;
        let (len, sectors) = (header.bitmap_len, header.sectors());
        let mut done = 0;
        while done < len {
            if self.request.progress.is_some_and(|told| !told(done, len)) {
                return Err(Error::Cancelled);
            }
            let at = self.image.header.bitmap.saturating_add(done);
            let run = match self.image.store.holes() {
                Some(holes) => holes.run_at(at, len - done)?,
                None => Run { len: len - done, hole: false },
            };
            // Whole words, so that the next piece begins with one.
            let part = run.len.next_multiple_of(8).min(len - done);
            if run.hole && run.len >= 8 {
                done += run.len - run.len % 8;
                continue;
            }
            let part = part.min(AT_ONCE);
            self.look_at_piece(at, part, done * 8)?;
            done += part;
        }
        self.tell_missing()?;
        self.report.total_clusters = Some(sectors);
        Ok(())
    }

    /// Looks at `len` bytes of the bitmap, the first bit of which is that of sector `first`.
    fn look_at_piece(&mut self, at: HostOffset, len: u64, first: u64) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(len).expect("a small piece")];
        self.image.store.read_padded_at(at, &mut bytes)?;
        for (number, word) in (0_u64..).zip(bitmap::from_bytes(&bytes)) {
            if word != 0 {
                self.look_at_word(at.saturating_add(number * 8), word, first + number * 64)?;
            }
        }
        Ok(())
    }

    fn look_at_word(&mut self, at: HostOffset, word: u64, first: u64) -> Result<()> {
        let sectors = self.image.header.sectors();
        let real = mask(0, 0, sectors.saturating_sub(first));
        if word & !real != 0 {
            self.tell_unused(at, word & real)?;
        }
        let word = word & real;
        let allocated = self.report.allocated_clusters.unwrap_or(0);
        self.report.allocated_clusters = Some(allocated + u64::from(word.count_ones()));
        let mut bit = 0;
        while bit < 64 {
            let (here, count) = bitmap::run(|_| word, bit, 64);
            if here {
                self.look_at_run(first + bit, first + bit + count)?;
            }
            bit += count;
        }
        Ok(())
    }

    /// Sectors that a bit says are here.
    fn look_at_run(&mut self, first: u64, end: u64) -> Result<()> {
        let header = &self.image.header;
        let sector = u64::from(header.sector);
        self.end = (end * sector).min(header.size);
        let inside = self.image.store.len()?.saturating_sub(header.data.get());
        if self.end <= inside {
            return Ok(());
        }
        let first = first.max(inside / sector);
        match &mut self.missing {
            Some((_, behind)) if *behind == first => *behind = end,
            _ => {
                self.tell_missing()?;
                self.missing = Some((first, end));
            }
        }
        Ok(())
    }

    fn tell_missing(&mut self) -> Result<()> {
        let Some((first, end)) = self.missing.take() else { return Ok(()) };
        let header = &self.image.header;
        let sector = u64::from(header.sector);
        let start = GuestOffset(first * sector);
        let guest = GuestRange::between(start, GuestOffset(end * sector));
        let guest = guest.before(GuestOffset(header.size));
        let at = header.data.saturating_add(start.get());
        let text = format!("the sectors {first} to {} are not in the file", end - 1);
        let mut finding = Finding::new(Severity::Corruption, "past-end-of-file", at, text)
            .costing(guest)
            .mended_by("the file is made to reach their end, with zeroes, as they read now");
        // The file is grown at the end, when all is known.
        finding.repaired = self.request.repair == Repair::All;
        self.tell(finding);
        Ok(())
    }

    fn tell_unused(&mut self, at: HostOffset, kept: u64) -> Result<()> {
        let text = "bits behind the last sector are set".to_owned();
        let mut finding =
            Finding::new(Severity::Note, "unused-bits", at, text).mended_by("they are cleared");
        let mended = self.request.repair == Repair::All;
        if mended {
            let left = self.image.header.bitmap_end().get() - at.get();
            let len = usize::try_from(left.min(8)).expect("at most a word");
            self.image.store.write_at(at, &kept.to_le_bytes()[..len])?;
        }
        finding.repaired = mended;
        self.tell(finding);
        Ok(())
    }

    /// Compares the length of the file with that of its data.
    fn look_at_end(&mut self) -> Result<()> {
        let header = &self.image.header;
        let (len, repair) = (self.image.store.len()?, self.request.repair);
        let used = header.data.saturating_add(self.end);
        let longest = header.data.saturating_add(header.size).get();
        self.report.image_end = Some(used);
        if len < used.get() && self.end > 0 && repair == Repair::All {
            self.image.store.set_len(used.get())?;
        }
        if len <= longest {
            return Ok(());
        }
        let count = (len - longest).div_ceil(header.sector.into());
        let mut text = format!("{count} sectors lie behind the end of the disk");
        // What the header says of the size may be what is damaged.
        let is_data = !self.image.store.is_zero_at(HostOffset(longest), len - longest)?;
        if is_data {
            text.push_str(", and hold data: they are kept");
        }
        let mut finding = Finding::new(Severity::Leak, "leak", HostOffset(longest), text);
        if !is_data {
            finding = finding.mended_by("the file is cut");
            if repair >= Repair::Leaks {
                self.image.store.set_len(longest)?;
                finding.repaired = true;
            }
        }
        let repaired = finding.repaired;
        self.tell(finding);
        let leaks = if repaired { &mut self.report.leaks_fixed } else { &mut self.report.leaks };
        *leaks += count - 1; // One was counted with the finding.
        Ok(())
    }
}
