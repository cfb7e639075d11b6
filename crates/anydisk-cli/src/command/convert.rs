//! `anydisk convert`.

mod to_file;
mod to_stream;

pub(super) use to_stream::pour;

use std::ffi::OsString;
use std::path::Path;

use anydisk::convert::{CopyBitmaps, Error, Offload, Settings, Sources};
use anydisk::raw::RAW;
use anydisk::{Disk, Format, GuestRange, copy_to_ova};
use clap::Args;

use super::{create, snapshot};
use crate::args::{Cache, Part, Reading, Telling, any_name, refuse};
use crate::failure::{Failure, Outcome};
use crate::options::{self, Given};
use crate::output::Few;
use crate::progress::Progress;
use crate::{naming, option_help, output, stream};

const EXAMPLES: &str = "\
Examples:
  anydisk convert disk.vmdk disk.raw
  anydisk convert -p -O qcow2 -c disk.raw disk.qcow2
  anydisk convert -O qcow2 -o compression_type=zstd -c disk.vmdk disk.qcow2
  anydisk convert part1.raw part2.raw whole.raw
  anydisk convert --member vg0/root -O qcow2 a.vmdk b.vmdk root.qcow2
  anydisk convert -O ova system.qcow2 data.qcow2 machine.ova
  curl https://.../disk.qcow2 | anydisk convert --untrusted -f qcow2 -O raw - disk.raw
  anydisk convert -O raw disk.qcow2 - | ssh host 'dd of=/dev/vg/disk bs=1M'

- is standard input (which is stored in a file without a name first) or standard output (for raw,
  ova, and vmdk with -o subformat=streamOptimized), unless a file is called so.

The new file gets its name when it is whole: an error leaves what was there before.";

/// The format that is a package of disks, not an image.
const OVA: &str = "ova";

/// Copies disks into a new image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Convert {
    /// The format of the sources, instead of looking at their bytes
    #[arg(short = 'f', long)]
    source_format: Option<String>,
    /// The format of the new image [default: raw]
    #[arg(short = 'O', long, alias = "output-format")]
    target_format: Option<String>,
    /// Options of the new image's format, name=value,...; `help` lists them
    #[arg(short = 'o', long = "target-options", alias = "options")]
    options: Vec<OsString>,
    /// Compress the data
    #[arg(short, long)]
    compress: bool,
    /// Zeroes of at least this size are not written; 0: all are [default: 4k]
    #[arg(short = 'S', long)]
    sparse_size: Option<String>,
    /// Threads; as many as the machine has cores if it is not given
    #[arg(short = 'm', long)]
    parallel: Option<String>,
    /// Write in any order (always done; for qemu-img's sake)
    #[arg(short = 'W', long)]
    oob_writes: bool,
    /// Let the kernel copy, and do not look for zeroes in the data. Without it blocks are shared where
    /// the file system can, and zeroes are looked for in the rest
    #[arg(short = 'C', long)]
    copy_range_offloading: bool,
    /// Write into an image that exists
    #[arg(short, long)]
    no_create: bool,
    /// Bytes that are written in a second at most
    #[arg(short, long)]
    rate: Option<String>,
    /// Print progress
    #[arg(short, long)]
    progress: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// How the host caches the new file; only `unsafe` may end before all is on stable storage, and
    /// not with -n
    #[arg(short = 't', long, value_enum, default_value = "unsafe")]
    target_cache: Cache,
    /// How the host caches the sources
    #[arg(short = 'T', long, value_enum, default_value = "writeback")]
    source_cache: Cache,
    /// The image below the new one; it must hold what is below the source
    #[arg(short = 'B', long)]
    backing: Option<OsString>,
    /// The format of the image below
    #[arg(short = 'F', long)]
    backing_format: Option<String>,
    /// Copy this snapshot of the source: its ID or name, or snapshot.id=ID,snapshot.name=NAME
    #[arg(short = 'l', long = "source-snapshot", value_name = "SNAPSHOT")]
    #[arg(value_parser = any_name())]
    snapshot: Option<String>,
    /// With -n: the target reads as zero, so zeroes need not be written
    #[arg(long)]
    target_is_zero: bool,
    /// The dirty bitmaps of the source go along
    #[arg(long)]
    bitmaps: bool,
    /// With --bitmaps: leave those out that cannot be trusted
    #[arg(long)]
    skip_broken_bitmaps: bool,
    /// With -n: the name of the target is a list of options, as with --image-opts
    #[arg(long)]
    target_image_opts: bool,
    /// What cannot be read becomes zero, and is told
    #[arg(long)]
    salvage: bool,
    /// The sources, end to end, and the new file
    #[arg(required_unless_present = "options")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

impl Convert {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        self.check_combination()?;
        let name = self.target_format.as_deref().unwrap_or(RAW.name());
        if name == OVA {
            return self.package();
        }
        let registry = anydisk::formats();
        let format = registry.by_name(name).map_err(|_| create::unknown(name))?;
        if options::asks_for_help(&self.options)? {
            output::print(&option_help::creation(format, self.files.len() > 1))?;
            return Ok(0);
        }
        let Some((target, sources @ [_, ..])) = self.files.split_last() else {
            return Err(Failure::new("Must specify image file name"));
        };
        if stream::is_meant(target) {
            return self.to_stream(sources, format);
        }
        let disks = self.open_sources(sources)?;
        let progress = Progress::new(self.progress, self.quiet)?;
        let target = match self.no_create {
            true => naming::without_protocol(target),
            false => naming::new_file(target)?,
        };
        self.copy(&disks, Path::new(&target), format, &progress).map_err(|failure| {
            match self.no_create {
                true => failure,
                false => failure.in_creation(&target, format.name()),
            }
        })?;
        progress.finish();
        drop((progress, disks));
        let (reading, format) = self.as_target(format);
        self.telling.tell(&reading, &target, format)
    }

    /// Options that go only with others, or not with others.
    fn check_combination(&self) -> Result<(), Failure> {
        let wrong = [
            (
                self.snapshot.is_some() && self.files.len() > 2 && self.part.member.is_none(),
                "No support for concatenating multiple snapshot",
            ),
            (
                self.copy_range_offloading && self.sparse_size.is_some(),
                "Cannot enable copy offloading when -S is used",
            ),
            (
                self.copy_range_offloading && self.compress,
                "Cannot enable copy offloading when -c is used",
            ),
            (
                self.copy_range_offloading && self.salvage,
                "Cannot use copy offloading in salvaging mode",
            ),
            (
                self.skip_broken_bitmaps && !self.bitmaps,
                "Use of --skip-broken-bitmaps requires --bitmaps",
            ),
            (self.target_is_zero && !self.no_create, "--target-is-zero requires use of -n flag"),
            (
                self.target_image_opts && !self.no_create,
                "--target-image-opts requires use of -n flag",
            ),
            (
                self.target_image_opts && self.target_format.is_some(),
                "--image-opts and --format are mutually exclusive",
            ),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, why)) => Err(Failure::new(why)),
            None => Ok(()),
        }
    }

    /// Each source becomes a disk of a package.
    fn package(&self) -> Outcome {
        refuse(&[
            ("-o", !self.options.is_empty()),
            ("-n", self.no_create),
            ("-B", self.backing.is_some()),
            ("--salvage into a package", self.salvage),
            ("--output=json of a package", !self.telling.is_text()),
        ])?;
        let Some((target, sources @ [_, ..])) = self.files.split_last() else {
            return Err(Failure::new("Must specify image file name"));
        };
        if stream::is_meant(target) {
            return self.package_to_stream(sources);
        }
        let disks = self.open_sources(sources)?;
        let progress = Progress::new(self.progress, self.quiet)?;
        copy_to_ova(&disks, Path::new(target), &self.settings()?, &progress)?;
        progress.finish();
        Ok(0)
    }

    fn open_sources(&self, paths: &[OsString]) -> Result<Vec<Disk>, Failure> {
        let direct = self.source_cache.is_direct();
        if self.part.member.is_some() {
            let format = self.source_format.as_deref();
            let disk = self.reading.part(&self.part, paths, format, direct)?;
            return Ok(vec![snapshot::disk_at(disk, self.snapshot.as_deref())?]);
        }
        let open = |path: &OsString| {
            let disk = self.reading.disk(path, self.source_format.as_deref(), direct)?;
            snapshot::disk_at(disk, self.snapshot.as_deref())
        };
        paths.iter().map(open).collect()
    }

    /// With --salvage, what cannot be read is told to `lost`.
    fn salvaging<'a>(
        &self,
        sources: Sources<'a>,
        lost: &'a (dyn Fn(GuestRange, &Error) + Sync),
    ) -> Sources<'a> {
        if self.salvage { sources.salvaging(lost) } else { sources }
    }

    fn tell_lost(&self, lines: &Few, range: GuestRange, why: &Error) {
        if !self.quiet {
            let (start, len) = (range.start().get(), range.len());
            lines.tell(|| format!("error while reading offset {start}: {len} bytes: {why}"));
        }
    }

    /// What `-o`, `-B` and `-F` say.
    fn given(&self, format: &dyn Format) -> Result<Given, Failure> {
        let mut given = Given::parse(&self.options, format)?;
        given.backing_file = self.backing.clone().or(given.backing_file);
        given.backing_format = self.backing_format.clone().or(given.backing_format);
        Ok(given)
    }

    /// How the target is named, and its format where the name does not say it.
    fn as_target<'f>(&self, format: &'f dyn Format) -> (Reading, Option<&'f str>) {
        let mut reading = self.reading.clone();
        reading.naming.image_opts = self.target_image_opts;
        // It is said of the sources.
        reading.force_share = false;
        (reading, (!self.target_image_opts).then(|| format.name()))
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        settings.threads = threads(self.parallel.as_deref())?;
        settings.compress = self.compress;
        settings.zero_run = zero_run(self.sparse_size.as_deref().unwrap_or("4k"))?;
        settings.target_is_zero = self.target_is_zero;
        settings.rate = options::rate(self.rate.as_deref())?;
        settings.durable = self.target_cache.is_durable();
        settings.direct = self.target_cache.is_direct();
        // Whoever names a size wants zeroes to be looked for.
        settings.offload = match (self.copy_range_offloading, &self.sparse_size) {
            (true, _) => Offload::Kernel,
            (false, Some(_)) => Offload::No,
            (false, None) => Offload::Share,
        };
        settings.bitmaps = match (self.bitmaps, self.skip_broken_bitmaps) {
            (false, _) => CopyBitmaps::No,
            (true, false) => CopyBitmaps::All,
            (true, true) => CopyBitmaps::Trusted,
        };
        Ok(settings)
    }
}

/// Threads; 0: as many as there are cores.
fn threads(text: Option<&str>) -> Result<usize, Failure> {
    const MOST: u64 = 1024;
    let Some(text) = text else { return Ok(0) };
    let count = options::count_in(text, "number of coroutines", 1..=MOST)?;
    Ok(usize::try_from(count).unwrap_or(1))
}

/// Longest run of zeroes that is looked for, as in qemu-img.
const MAX_ZERO_RUN: usize = 16 << 20;

/// Zeroes are looked for sector by sector.
fn zero_run(text: &str) -> Result<usize, Failure> {
    let size = options::number_of_bytes(text, "buffer size for sparse output")?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size.is_multiple_of(512) && size <= MAX_ZERO_RUN {
        return Ok(size);
    }
    Err(Failure::new(format!(
        "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
         {MAX_ZERO_RUN}. Select 0 to disable sparse detection (fully allocates output)."
    )))
}
