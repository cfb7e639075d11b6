//! `anydisk convert`.

mod to_stream;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anydisk::convert::{
    CopyBitmaps, Error, NewImage, Offload, Settings, Sources, copy_to_disk, copy_to_file,
    copy_to_overlay,
};
use anydisk::raw::RAW;
use anydisk::storage::name;
use anydisk::{Disk, Format, GuestRange, Layer, Location, Reference, Role, copy_to_ova};
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
    pub(crate) fn run(self) -> Outcome {
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
        let target = naming::without_protocol(target);
        self.copy(&disks, Path::new(&target), format, &progress)
            .map_err(|failure| failure.in_creation(&target, format.name()))?;
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

    fn copy(
        &self,
        disks: &[Disk],
        target: &Path,
        format: &dyn Format,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let settings = self.settings()?;
        self.check_bitmaps(disks)?;
        let lines = Few::new(output::warn);
        let lost = |range: GuestRange, why: &Error| self.tell_lost(&lines, range, why);
        let sources = self.salvaging(Sources::concatenated(disks), &lost);
        if self.no_create {
            self.refuse_creation_options()?;
            let below = self.below_existing(target)?;
            let sources = match (&below, disks) {
                (Some(below), [source]) => self.above(source, below),
                (Some(_), _) => return Err(several()),
                (None, _) => sources,
            };
            return self.copy_into(&sources, target, format, settings, progress);
        }
        let given = self.given(format)?;
        if given.backing_file.is_none() && given.backing_format.is_some() {
            let (target, format) = (name::of(target), format.name());
            return Err(Failure::new(format!(
                "{target}: error while converting {format}: Backing format cannot be used without \
                 backing file"
            )));
        }
        let takes = |option| format.create_options().iter().any(|spec| spec.name == option);
        if given.backing_file.is_some() && takes("backing_file") && given.backing_format.is_none() {
            return Err(Failure::new("Use of backing file requires explicit backing format"));
        }
        let backing = create::backing(&given, format)?;
        if self.compress {
            check_packs(&given)?;
        }
        let keys = given.keys(&self.reading.naming)?;
        let image = given.image(format, sources.size(), &keys);
        let image = NewImage { backing: backing.as_ref(), ..image };
        match backing.clone() {
            Some(backing) => {
                self.copy_over(disks, target, &image, backing, &settings, progress)?;
            }
            None => {
                copy_to_file(&sources, target, &image, &settings, progress)?;
            }
        }
        Ok(())
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

    /// Whether the bitmaps can go along, and which are left out.
    fn check_bitmaps(&self, disks: &[Disk]) -> Result<(), Failure> {
        let [source] = disks else {
            return match self.bitmaps {
                true => Err(Failure::new("Copying bitmaps only possible with single source")),
                false => Ok(()),
            };
        };
        if !self.bitmaps {
            return Ok(());
        }
        let Some(bitmaps) = source.top().bitmaps() else {
            return Err(Failure::new("Source lacks bitmap support"));
        };
        for broken in bitmaps.list()?.iter().filter(|one| one.inconsistent) {
            let name = &broken.name;
            if !self.skip_broken_bitmaps {
                return Err(Failure::new(format!("Cannot copy inconsistent bitmap '{name}'"))
                    .with_advice("Leave it out with --skip-broken-bitmaps, or remove it."));
            }
            if !self.quiet {
                output::warn(&format!("Skipping inconsistent bitmap '{name}'"));
            }
        }
        Ok(())
    }

    /// Nothing is asked of an image that is not made.
    fn refuse_creation_options(&self) -> Result<(), Failure> {
        let given = [("-o", !self.options.is_empty())];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                Err(Failure::new(format!("{name} has no effect when skipping image creation"))
                    .with_advice("Leave it out, or leave out -n to make a new image."))
            }
            None => Ok(()),
        }
    }

    /// What `-o`, `-B` and `-F` say.
    fn given(&self, format: &dyn Format) -> Result<Given, Failure> {
        let mut given = Given::parse(&self.options, format)?;
        given.backing_file = self.backing.clone().or(given.backing_file);
        given.backing_format = self.backing_format.clone().or(given.backing_format);
        Ok(given)
    }

    /// Copies what the source holds above the image that is to be below the target.
    fn copy_over(
        &self,
        disks: &[Disk],
        target: &Path,
        image: &NewImage<'_>,
        mut backing: Reference,
        settings: &Settings,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let [source] = disks else {
            return Err(several());
        };
        create::refuse_same_file(&backing, target)?;
        let below = create::look_below(&mut backing, target, &self.reading).map_err(|failure| {
            let why = failure.text.lines().next().unwrap_or_default().to_owned();
            let target = name::of(target);
            Failure::new(format!("Could not open '{target}': Could not open backing file: {why}"))
        })?;
        let lines = Few::new(output::warn);
        let lost = |range: GuestRange, why: &Error| self.tell_lost(&lines, range, why);
        let sources = self.salvaging(self.above(source, &below), &lost);
        let image = NewImage { backing: Some(&backing), ..image.clone() };
        copy_to_overlay(&sources, target, &image, below.layers(), settings, progress)?;
        Ok(())
    }

    /// With -n and -B: what lies below the image that is written to.
    fn below_existing(&self, target: &Path) -> Result<Option<Disk>, Failure> {
        let Some(name) = &self.backing else { return Ok(None) };
        let mut reference = Reference::new(Role::Backing, name.as_bytes());
        reference.format = self.backing_format.clone();
        create::look_below(&mut reference, target, &self.reading).map(Some)
    }

    /// The part of the source that does not come from the image below the target. If that is none
    /// of the source's own, it is taken for a copy of the one below the source's top, as qemu-img
    /// does.
    fn above<'a>(&self, source: &'a Disk, below: &Disk) -> Sources<'a> {
        let all = Sources::one(source);
        let wanted = &below.layers()[0];
        let own = source.layers().iter().position(|layer| is_same(layer, wanted));
        match own {
            Some(layer) => all.above(layer),
            None if source.layers().len() > 1 => {
                if !self.quiet {
                    output::warn(&format!(
                        "{} is not the file below the source; it must hold the same",
                        wanted.location
                    ));
                }
                all.above(1)
            }
            None => all,
        }
    }

    /// How the target is named, and its format where the name does not say it.
    fn as_target<'f>(&self, format: &'f dyn Format) -> (Reading, Option<&'f str>) {
        let mut reading = self.reading.clone();
        reading.naming.image_opts = self.target_image_opts;
        (reading, (!self.target_image_opts).then(|| format.name()))
    }

    /// Copies into an image that is there.
    fn copy_into(
        &self,
        sources: &Sources<'_>,
        target: &Path,
        format: &dyn Format,
        mut settings: Settings,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let direct = self.target_cache.is_direct();
        let (reading, format) = self.as_target(format);
        let disk = reading.disk_to_write(target.as_os_str(), format, direct)?;
        if settings.target_is_zero && disk.layers().len() > 1 {
            return Err(Failure::new(
                "Cannot use --target-is-zero when the destination image has a backing file",
            ));
        }
        // The image's tables reach its file only when it is flushed.
        settings.durable = true;
        copy_to_disk(sources, &disk, &settings, progress)?;
        Ok(())
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

/// Fails if what is packed would be encrypted, or if space is taken for what is not packed.
fn check_packs(given: &Given) -> Result<(), Failure> {
    let said = |option| given.options.text(option);
    let what = match () {
        _ if given.options.flag("encryption") || said("encrypt.format").is_some() => "encryption",
        _ if said("preallocation").is_some_and(|how| how != "off") => "preallocation",
        _ => return Ok(()),
    };
    Err(Failure::new(format!("Compression and {what} not supported at the same time")))
}

fn several() -> Failure {
    Failure::new(
        "Having a backing file for the target makes no sense when concatenating multiple input \
         images",
    )
}

/// Whether two layers are one file, read as the same format.
fn is_same(one: &Layer, other: &Layer) -> bool {
    let id = |layer: &Layer| match &layer.location {
        Location::Path(path) => std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino())),
        _ => None,
    };
    let format = |layer: &Layer| layer.image.info().format;
    format(one) == format(other) && id(one).is_some_and(|one| Some(one) == id(other))
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
