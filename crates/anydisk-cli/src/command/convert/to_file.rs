//! A copy into a file: a new one, perhaps over another image, or one that is there.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anydisk::convert::{
    Error, NewImage, Settings, Sources, copy_to_disk, copy_to_file, copy_to_overlay,
};
use anydisk::storage::name;
use anydisk::{Disk, Format, GuestRange, Layer, Location, Reference, Role};

use super::Convert;
use crate::command::create;
use crate::failure::Failure;
use crate::options::Given;
use crate::output::{self, Few};
use crate::progress::Progress;

impl Convert {
    pub(super) fn copy(
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
            return Err(Failure::new("Source lacks bitmap support").with_advice(
                "Bitmaps are kept in qcow2 images of version 3: leave out --bitmaps.",
            ));
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
