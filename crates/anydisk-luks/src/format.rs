//! Recognising, opening, creating, amending.

use std::sync::Arc;

use anydisk_core::{
    AmendRequest, CreateRequest, Format, Image, Measure, MeasureRequest, OpenRequest, Opened,
    OptionSpec, PassphraseChange, Result, Sample, Verdict,
};
use anydisk_crypto::luks::Luks;

use crate::{NAME, amend, create, open};

/// The format.
#[derive(Clone, Copy, Debug, Default)]
pub struct LuksFormat;

/// The format, for a registry.
pub static LUKS: LuksFormat = LuksFormat;

impl Format for LuksFormat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self, sample: &Sample<'_>) -> Verdict {
        let version = sample.head.get(6..8);
        let known = matches!(version, Some([0, 1 | 2]));
        if known && Luks::probe(sample.head) { Verdict::Magic } else { Verdict::No }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Opened> {
        open::open(&request)
    }

    fn create_options(&self) -> &'static [OptionSpec] {
        create::OPTIONS
    }

    fn create(&self, request: CreateRequest<'_>) -> Result<Arc<dyn Image>> {
        create::create(&request)
    }

    fn starts_as_zero(&self) -> bool {
        false
    }

    fn measure(&self, request: &MeasureRequest<'_>) -> Result<Measure> {
        create::measure(request)
    }

    fn amend_options(&self) -> &'static [OptionSpec] {
        amend::OPTIONS
    }

    fn amend(&self, request: AmendRequest<'_>) -> Result<()> {
        amend::amend(&request)
    }

    fn change_passphrases(
        &self,
        request: &OpenRequest<'_>,
        change: &PassphraseChange,
        force: bool,
    ) -> Result<()> {
        amend::change_passphrases(request, change, force)
    }
}
