//! Reading a step, finding its zeroes, packing its units: all that needs no order.

use std::sync::{Mutex, PoisonError};

use anydisk_core::{Codec, GuestOffset, GuestRange, Packing, Piece};
use anydisk_storage::is_zero;

use crate::copy::bytes_in;
use crate::plan::{Run, Step, in_units};
use crate::source::Content;
use crate::{Error, Report, Result, Settings, Sources};

/// Disks of formats that pack are whole sectors.
const SECTOR: u64 = 512;

/// Turns steps into pieces that are ready to be placed.
#[derive(Debug)]
pub(crate) struct Preparer<'a> {
    source: &'a Sources<'a>,
    /// Data is handed on in multiples of this many bytes.
    unit: u64,
    packing: Option<Packing>,
    /// Size of a target that may hold data behind the end of the source, which stays.
    kept: Option<u64>,
    zero_run: usize,
    /// Buffers of windows that are done.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A step with its bytes.
#[derive(Debug)]
pub(crate) struct Prepared {
    parts: Vec<Part>,
    /// The bytes of the window, from its first byte.
    bytes: Vec<u8>,
    start: GuestOffset,
}

#[derive(Debug)]
struct Part {
    range: GuestRange,
    what: What,
}

#[derive(Debug)]
enum What {
    Data,
    Same,
    Zero,
    Leave,
    /// One unit; it may have been packed so by the source.
    Packed {
        bytes: Vec<u8>,
        codec: Codec,
        passed: bool,
    },
}

/// One part of a step, for whoever places it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready<'a> {
    /// Whole units of data.
    Data(&'a [u8]),
    /// Data that was not read.
    Same,
    /// One unit, packed.
    Packed(&'a [u8], Codec),
    /// Zero.
    Zero,
    /// Not to be touched.
    Leave,
}

impl<'a> Preparer<'a> {
    pub(crate) fn new(
        source: &'a Sources<'a>,
        unit: u64,
        packing: Option<Packing>,
        settings: &Settings,
    ) -> Self {
        // Below a page there is nothing to be won by treating zeroes apart. Packed are whole units.
        let unit = packing.as_ref().map_or(unit.max(4096), |packing| packing.unit);
        let zero_run = settings.zero_run;
        Self { source, unit, packing, kept: None, zero_run, spare: Mutex::default() }
    }

    /// For a target of this size, whose bytes behind the end of the source stay as they are.
    pub(crate) fn keeping(mut self, size: u64) -> Self {
        self.kept = Some(size);
        self
    }

    /// The unit that is packed, else that of the target, or a page if it has a smaller one.
    pub(crate) fn unit(&self) -> u64 {
        self.unit
    }

    pub(crate) fn prepare(&self, step: Step) -> Result<Prepared> {
        let start = step.range().start();
        match step {
            Step::Run(Run { range, content }) => {
                let what = unread(content).expect("a plan has no such long run");
                Ok(Prepared { parts: vec![Part { range, what }], bytes: Vec::new(), start })
            }
            Step::Window { window, parts } => {
                let mut bytes = self.buffer(bytes_in(window));
                let mut ready = Vec::new();
                for run in in_units(window, &parts, self.unit) {
                    self.prepare_run(run, start, &mut bytes, &mut ready)?;
                }
                Ok(Prepared { parts: ready, bytes, start })
            }
        }
    }

    fn prepare_run(
        &self,
        run: Run,
        start: GuestOffset,
        bytes: &mut [u8],
        ready: &mut Vec<Part>,
    ) -> Result<()> {
        if let Some(what) = unread(run.content) {
            ready.push(Part { range: run.range, what });
            return Ok(());
        }
        let skip = bytes_in(GuestRange::between(start, run.range.start()));
        let bytes = &mut bytes[skip..skip + bytes_in(run.range)];
        let is_packed = run.content == Content::Packed;
        if !is_packed {
            self.source.read(run.range, bytes)?;
        }
        let unit = usize::try_from(self.unit).expect("a unit fits in memory");
        let mut rest = run.range;
        for chunk in bytes.chunks_mut(unit) {
            let part = rest.first(chunk.len() as u64);
            rest = rest.skip(part.len());
            let packed = match is_packed {
                false => None,
                true if self.packing_of(part).is_some() => self.source.read_packed(part, chunk)?,
                true => self.source.read(part, chunk).map(|()| None)?,
            };
            push_joined(ready, Part { range: part, what: self.judge(part, chunk, packed)? });
        }
        Ok(())
    }

    /// What becomes of one unit, which the source may have packed already.
    fn judge(&self, range: GuestRange, chunk: &[u8], packed: Option<Vec<u8>>) -> Result<What> {
        if self.zero_run > 0 && is_zero(chunk) {
            return Ok(What::Zero);
        }
        let Some(packing) = self.packing_of(range) else { return Ok(What::Data) };
        match packed.filter(|packed| packed.len() < chunk.len()) {
            Some(bytes) => Ok(What::Packed { bytes, codec: packing.encoder.codec(), passed: true }),
            None => pack(packing, range, chunk),
        }
    }

    /// How the start of a unit is packed, if `range` is all that the unit has to hold. A target may
    /// end with a sector of which the source has a part.
    fn packing_of(&self, range: GuestRange) -> Option<&Packing> {
        let packing = self.packing.as_ref()?;
        let (sector, unit) = (range.grown_to(SECTOR), range.grown_to(packing.unit));
        let is_whole = |size| sector.end().get() >= unit.end().get().min(size);
        self.kept.is_none_or(is_whole).then_some(packing)
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = spare.unwrap_or_default();
        bytes.resize(len, 0);
        bytes
    }

    /// Takes back the buffer of a step that is done.
    pub(crate) fn recycle(&self, prepared: Prepared) {
        if prepared.bytes.capacity() > 0 {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(prepared.bytes);
        }
    }
}

/// What becomes of content whose bytes are not looked at.
fn unread(content: Content) -> Option<What> {
    match content {
        Content::Zero => Some(What::Zero),
        Content::Below => Some(What::Leave),
        Content::Same => Some(What::Same),
        Content::Data | Content::Packed => None,
    }
}

/// Adds a part, as one with the last if both are data, or zero.
fn push_joined(ready: &mut Vec<Part>, part: Part) {
    match (ready.last_mut(), &part.what) {
        (Some(Part { range, what: What::Data }), What::Data)
        | (Some(Part { range, what: What::Zero }), What::Zero)
            if range.end() == part.range.start() =>
        {
            *range = GuestRange::between(range.start(), part.range.end());
        }
        _ => ready.push(part),
    }
}

fn pack(packing: &Packing, range: GuestRange, chunk: &[u8]) -> Result<What> {
    let mut packed = Vec::new();
    let whole = usize::try_from(packing.unit).expect("a unit fits in memory");
    let smaller = if chunk.len() < whole && !packing.short_tail {
        // The last unit of the disk is filled up with zeroes.
        let mut full = chunk.to_vec();
        full.resize(whole, 0);
        packing.encoder.encode(&full, whole, &mut packed)
    } else {
        packing.encoder.encode(chunk, chunk.len(), &mut packed)
    };
    let smaller = smaller.map_err(|error| Error::Write {
        at: range.start().get(),
        source: anydisk_core::Error::Unsupported {
            format: "packing",
            feature: error.to_string().into(),
        },
    })?;
    Ok(if smaller {
        What::Packed { bytes: packed, codec: packing.encoder.codec(), passed: false }
    } else {
        What::Data
    })
}

impl Prepared {
    /// The parts in guest order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (GuestRange, Ready<'_>)> {
        self.parts.iter().map(|part| {
            let ready = match &part.what {
                What::Data => Ready::Data(self.bytes_of(part.range)),
                What::Same => Ready::Same,
                What::Packed { bytes, codec, .. } => Ready::Packed(bytes, *codec),
                What::Zero => Ready::Zero,
                What::Leave => Ready::Leave,
            };
            (part.range, ready)
        })
    }

    /// The parts as a sink takes them.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (GuestOffset, Piece<'_>)> {
        self.parts().map(|(range, ready)| {
            let piece = match ready {
                Ready::Data(bytes) => Piece::Data(bytes),
                Ready::Packed(bytes, codec) => Piece::Encoded { bytes, codec, unit: range },
                // Nothing is handed over to a stream.
                Ready::Zero | Ready::Leave | Ready::Same => Piece::Zero(range.len()),
            };
            (range.start(), piece)
        })
    }

    fn bytes_of(&self, range: GuestRange) -> &[u8] {
        let skip = bytes_in(GuestRange::between(self.start, range.start()));
        &self.bytes[skip..skip + bytes_in(range)]
    }

    /// What the step adds to the report.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for part in &self.parts {
            let len = part.range.len();
            match part.what {
                What::Data | What::Same => report.data += len,
                What::Packed { passed, .. } => {
                    report.data += len;
                    report.packed += len;
                    report.passed += if passed { len } else { 0 };
                }
                What::Zero => report.zero += len,
                What::Leave => report.left += len,
            }
        }
        report
    }
}
