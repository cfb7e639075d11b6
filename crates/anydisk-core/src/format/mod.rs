//! What a format crate offers: recognise, open, create; and the list of formats a caller uses.

mod number;
mod options;
mod registry;
mod request;

use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;

pub use number::{parse_number, parse_size};
pub use options::{OptionKind, OptionSpec, Options};
pub use registry::{Chosen, Registry, Sample, Verdict};
pub use request::{
    AmendRequest, CreateRequest, Measure, MeasureRequest, OpenRequest, Opened, SinkRequest,
};

use crate::{
    Access, BitmapInfo, CheckReport, CheckRequest, Error, Feature, Finding, Ids, Image, OnlyNames,
    PassphraseChange, Reference, Result, Sink,
};

/// A disk image format.
pub trait Format: Send + Sync + Debug {
    /// The name, as `-f` takes it.
    fn name(&self) -> &'static str;

    /// Other names that `-f` takes.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the bytes look like this format. Pure: no I/O.
    fn probe(&self, sample: &Sample<'_>) -> Verdict;

    /// The numbers that tell this image, and its content, from every other one, if the format keeps them
    /// and the sample holds them. Pure: no I/O. By them an image is found that another names by number
    /// alone.
    fn identify(&self, sample: &Sample<'_>) -> Option<Ids> {
        let _ = sample;
        None
    }

    /// Opens one image. Files it is made of come through the request's resolver; the image below
    /// is only named in the answer.
    fn open(&self, request: OpenRequest<'_>) -> Result<Opened>;

    /// The files that the image names: what it is made of, then what lies below it. None of them is
    /// opened, whatever the request's resolver would do.
    ///
    /// The default opens the image with empty files in their places. A format that does not open so
    /// (because of what it expects of an extent) reads its names without.
    ///
    /// # Errors
    /// What keeps the names from being read.
    fn references(&self, request: &OpenRequest<'_>) -> Result<Vec<Reference>> {
        let names = OnlyNames::default();
        let request = OpenRequest { access: Access::Read, resolver: &names, ..request.clone() };
        let opened = self.open(request);
        let mut found = names.into_names();
        match opened {
            Ok(opened) => found.extend(opened.backing),
            // What an empty file could not be: at least its name is known.
            Err(_) if !found.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// The options that creation takes; empty if this format is only read.
    fn create_options(&self) -> &'static [OptionSpec] {
        &[]
    }

    /// Makes a new, empty image in the request's store, which is empty, and returns it open for
    /// writing. What it needs on the medium is there after the image's first flush.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot be written in place.
    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: "creating an image".into() })
    }

    /// Whether a new image reads as zero, as it does in nearly all formats; else as noise, until it
    /// is written (an encrypted container, which has no tables).
    fn starts_as_zero(&self) -> bool {
        true
    }

    /// A writer for one pass over `out`, or `None` if this format with these options is written
    /// in place.
    fn sink(
        &self,
        request: &SinkRequest<'_>,
        out: Box<dyn Write + Send>,
    ) -> Result<Option<Box<dyn Sink>>> {
        let (_, _) = (request, out);
        Ok(None)
    }

    /// The options that [`amend`](Self::amend) takes; empty if there are none.
    fn amend_options(&self) -> &'static [OptionSpec] {
        &[]
    }

    /// Changes options of an image that exists. Durable when it returns; after an error, or a power
    /// failure on the way, the image is as it was or as it was to be.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format cannot; [`Error::Option`] for what this image cannot
    /// become.
    fn amend(&self, request: AmendRequest<'_>) -> Result<()> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: Feature::Amend })
    }

    /// Adds or removes passphrases of an encrypted image that nobody has open for writing. Its data
    /// stays as it is. Durable when it returns; after a power failure each passphrase opens the
    /// image or does not, as before or as wanted. Key material of a removed one is overwritten.
    /// `force`: also where no passphrase is left, after which nobody can read the data any more.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format or this image cannot; [`Error::Secret`] for a
    /// passphrase that opens nothing; [`Error::Unusable`] for key slots that cannot be so, and the
    /// last one without `force`: then nothing changed.
    fn change_passphrases(
        &self,
        request: &OpenRequest<'_>,
        change: &PassphraseChange,
        force: bool,
    ) -> Result<()> {
        let (_, _, _) = (request, change, force);
        Err(Error::Unsupported { format: self.name(), feature: "changing passphrases".into() })
    }

    /// Whether a check can [read the data](CheckRequest::data) too.
    fn checks_data(&self) -> bool {
        false
    }

    /// Checks an image, which need not be one that opens, and repairs it if asked to. Each finding
    /// is told to `found` as soon as it is known; memory does not grow with their number.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the format has no check; what keeps the image from being
    /// checked at all; [`Error::Cancelled`].
    fn check(
        &self,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        let (_, _) = (request, found);
        Err(Error::Unsupported { format: self.name(), feature: Feature::Check })
    }

    /// Bytes that a new image would take for the given data ranges (rising, not overlapping).
    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        let _ = request;
        Err(Error::Unsupported { format: self.name(), feature: "measuring".into() })
    }

    /// Bytes that these bitmaps would take besides in a new image with these options; `None`: it holds
    /// none.
    fn measure_bitmaps(&self, request: &MeasureRequest<'_>, bitmaps: &[BitmapInfo]) -> Option<u64> {
        let (_, _) = (request, bitmaps);
        None
    }
}
