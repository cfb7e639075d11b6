//! Into standard output, in one pass.

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;

use anydisk::convert::{Error, NewImage, Settings, Sources, copy_to_sink};
use anydisk::raw::{RAW, RawStream};
use anydisk::{Format, GuestRange, Location, Sink, SinkRequest, copy_to_ova_in};

use super::Convert;
use crate::args::refuse;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Few};
use crate::progress::Progress;
use crate::stream;

impl Convert {
    /// Writes the sources, end to end, to standard output.
    pub(super) fn to_stream(&self, paths: &[OsString], format: &dyn Format) -> Outcome {
        self.refuse_what_needs_a_file()?;
        let given = self.given(format)?;
        given.refuse_backing()?;
        let out = stream::output()?;
        let disks = self.open_sources(paths)?;
        let lines = Few::new(output::warn);
        let lost = |range: GuestRange, why: &Error| self.tell_lost(&lines, range, why);
        let sources = self.salvaging(Sources::concatenated(&disks), &lost);
        let image = NewImage::new(format, &given.options, given.size.unwrap_or(sources.size()));
        pour(&sources, &image, out, &self.settings()?, self.quiet)
    }

    /// Writes a package to standard output. Its descriptor comes first and tells the lengths of what
    /// follows, so it is made in a file without a name.
    pub(super) fn package_to_stream(&self, paths: &[OsString]) -> Outcome {
        self.refuse_what_needs_a_file()?;
        let mut out = stream::output()?;
        let disks = self.open_sources(paths)?;
        let progress = Progress::of_stream(self.quiet);
        let spool = stream::spool()?;
        copy_to_ova_in(&disks, Arc::clone(&spool), "machine", &self.settings()?, &progress)?;
        drop(progress);
        stream::pour(&*spool, &mut *out)?;
        Ok(0)
    }

    fn refuse_what_needs_a_file(&self) -> Result<(), Failure> {
        refuse(&[
            ("-n to standard output", self.no_create),
            ("-B to standard output", self.backing.is_some()),
            ("--bitmaps to standard output", self.bitmaps),
            ("--output=json with the image on standard output", !self.telling.is_text()),
        ])
    }
}

/// Writes `sources` to `out`, which is standard output, as a new image.
pub(in crate::command) fn pour(
    sources: &Sources<'_>,
    image: &NewImage<'_>,
    out: Box<dyn Write + Send>,
    settings: &Settings,
    quiet: bool,
) -> Outcome {
    let (format, size, options) = (image.format, image.size, image.options);
    let location = &Location::Other("standard output".into());
    let sink: Option<Box<dyn Sink>> = match format.name() == RAW.name() {
        true => Some(Box::new(RawStream::new(size, out))),
        false => format.sink(&SinkRequest { size, options, location }, out)?,
    };
    let sink = sink.ok_or_else(|| no_stream(format))?;
    // What goes to standard output is the image.
    let progress = Progress::of_stream(quiet);
    copy_to_sink(sources, sink, settings, &progress).map_err(|error| {
        let kind = match &error {
            Error::Write { source, .. } | Error::Target(source) => source.io_kind(),
            _ => None,
        };
        Failure::from(error).of_stream(kind)
    })?;
    Ok(0)
}

fn no_stream(format: &dyn Format) -> Failure {
    let name = format.name();
    Failure::new(format!(
        "{name} with these options is not written in one pass, as a pipe needs it"
    ))
    .with_advice("Name a file, or take raw, ova, or vmdk with -o subformat=streamOptimized.")
}
