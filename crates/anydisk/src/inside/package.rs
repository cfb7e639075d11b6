//! The disks of packages: those that change other disks lie over them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anydisk_core::{
    Access, Disk, Error, Layer, Located, Location, Member, Members, NoReferences, Opener, Result,
    Storage,
};
use anydisk_ovf::{Package, PackageDisk, Scratch};
use anydisk_storage::{MemoryStorage, OpenOptions, PendingFile};

use super::{Depth, Inside, Open, Place, Spot};
use crate::OpenDisk;

/// Files without a name in a folder.
#[derive(Debug)]
struct ScratchFiles(PathBuf);

impl Scratch for ScratchFiles {
    fn make(&self) -> Result<Arc<dyn Storage>> {
        let path = self.0.join(format!("anydisk-{}", std::process::id()));
        // Never published: it is gone when the last one who has it open is.
        let pending = PendingFile::create(path, &OpenOptions::new())?;
        Ok(Arc::clone(pending.storage()) as Arc<dyn Storage>)
    }
}

/// How the members of a package are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digests {
    Verified,
    /// For a first look.
    Unseen,
}

impl Inside {
    /// The disks of a package as places that may hold more. What is no image holds no partitions;
    /// asking for it tells why.
    pub(super) fn package_places(&mut self, found: usize, depth: Depth) -> Vec<Place> {
        let Open::Package(package) = &self.found[found].open else { return Vec::new() };
        let by_id = by_id(package);
        let mut places = Vec::new();
        let mut left_out = Vec::new();
        for (number, disk) in
            package.disks().iter().enumerate().filter(|(_, disk)| !disk.is_empty())
        {
            // The package itself is its first member, then come the disks.
            let at = Spot { found, member: 1 + number };
            let Ok(chain) = self.chain(&by_id, disk) else { continue };
            let first = self.disk_of(package, &chain, None, Digests::Unseen);
            let image = match first {
                Err(Error::Limit { .. }) if is_packed(package, &chain) => {
                    if depth != Depth::Packed || self.options.scratch_folder().is_none() {
                        left_out.push(at);
                        continue;
                    }
                    self.disk_of(package, &chain, None, Digests::Verified)
                }
                first => first,
            };
            let Ok(image) = image else { continue };
            let files = chain.into_iter().filter_map(|disk| disk.file.clone());
            let verify = files.map(|file| (found, file)).collect();
            places.push(Place { at, store: Arc::new(image), verify });
        }
        for at in left_out {
            self.left_out = true;
            self.note(at, "too large to be looked into without being asked for");
        }
        places
    }

    pub(super) fn open_package(&self, file: &Located) -> Result<Package> {
        let limits = self.options.limits_in_force();
        let package = match is_descriptor(file)? {
            true => {
                self.options.with_resolver(|resolver| Package::open_beside(file, resolver, limits))
            }
            false => Package::open_ova(Arc::clone(&file.store), limits),
        }?;
        Ok(match self.options.scratch_folder() {
            Some(folder) => package.with_scratch(Arc::new(ScratchFiles(folder.to_owned()))),
            None => package,
        })
    }

    /// The disk of a package that the member `path` is: `None` for one that is no disk's.
    pub(super) fn package_disk(
        &self,
        package: &Package,
        path: &str,
        format: Option<&str>,
    ) -> Option<Result<Disk>> {
        let is_it = |disk: &&PackageDisk| match &disk.file {
            Some(file) => file == path,
            None => disk.id == path,
        };
        let mut disks = package.disks().iter().filter(is_it);
        let disk = disks.next()?;
        let chain = self.chain(&by_id(package), disk);
        let opened =
            chain.and_then(|chain| self.disk_of(package, &chain, format, Digests::Verified));
        // Several disks may have one file.
        let agreed = opened.and_then(|opened| {
            disks.try_for_each(|other| other.check_size(opened.size()))?;
            Ok(opened)
        });
        Some(agreed.map_err(|error| error.within(path)))
    }

    /// A disk and those that it changes, the one below last. The descriptor was checked to have no
    /// loops.
    fn chain<'p>(
        &self,
        by_id: &HashMap<&str, &'p PackageDisk>,
        disk: &'p PackageDisk,
    ) -> Result<Vec<&'p PackageDisk>> {
        let most = self.options.limits_in_force().chain;
        let below = |disk: &&'p PackageDisk| by_id.get(disk.parent.as_deref()?).copied();
        let chain = std::iter::successors(Some(disk), below).take(most.saturating_add(1));
        let chain: Vec<_> = chain.collect();
        if chain.len() > most {
            let (what, found) = ("disks that change each other".into(), chain.len() as u64);
            return Err(Error::Limit { format: "ovf", what, found, limit: most as u64 });
        }
        Ok(chain)
    }

    /// The first disk of a chain with those that it changes below it. `format`: that of its own
    /// image.
    fn disk_of(
        &self,
        package: &Package,
        chain: &[&PackageDisk],
        format: Option<&str>,
        digests: Digests,
    ) -> Result<Disk> {
        let mut layers = Vec::new();
        for (number, disk) in chain.iter().enumerate() {
            let format = format.filter(|_| number == 0);
            layers.extend(self.layer(package, disk, format, digests)?);
        }
        let opened = Disk::from_layers(layers, self.options.limits_in_force());
        chain.first().map_or(Ok(()), |disk| disk.check_size(opened.size()))?;
        Ok(self.options.padded_as_asked(opened))
    }

    /// The image of one disk; `None` for one that has no file and is what is below it.
    fn layer(
        &self,
        package: &Package,
        disk: &PackageDisk,
        format: Option<&str>,
        digests: Digests,
    ) -> Result<Option<Layer>> {
        let name = disk.file.as_ref().unwrap_or(&disk.id);
        let (store, format) = match (&disk.file, digests) {
            (None, _) if disk.parent.is_some() => return Ok(None),
            (None, _) => (zeroes(disk.capacity)?, Some("raw")),
            (Some(file), Digests::Verified) => (package.open(file)?, format),
            (Some(file), Digests::Unseen) => (package.open_unverified(file)?, format),
        };
        let file = Located { store, location: Location::Other(name.clone()) };
        let layer = self.top_image(file, format)?;
        disk.check_size(layer.image.size())?;
        match &layer.backing {
            // The package says what is below.
            Some(reference) if disk.parent.is_none() => {
                Err(reference.denied("files that an image in a package names are not opened"))
            }
            _ => Ok(Some(layer)),
        }
    }

    /// An image without what is below it. In a package, too, raw is not guessed.
    fn top_image(&self, file: Located, format: Option<&str>) -> Result<Layer> {
        let registry = self.options.registry();
        let opener = Opener::new(registry, &NoReferences)
            .with_limits(self.options.limits_in_force().clone());
        if format.is_none() {
            OpenDisk::untrusted().formats(registry.clone()).format_of(&file)?;
        }
        opener.open_one(file, format, Access::Read)
    }
}

/// A package as the first of its members.
pub(super) fn members_of(package: &Package) -> Vec<Member> {
    let mut whole = Member::new("", "package");
    whole.note = note_of(package);
    std::iter::once(whole).chain(package.members().iter().cloned()).collect()
}

/// Whether a file of a chain must be unpacked.
fn is_packed(package: &Package, chain: &[&PackageDisk]) -> bool {
    chain.iter().filter_map(|disk| disk.file.as_deref()).any(|file| package.is_packed(file))
}

/// The disks of a package by their names for each other.
fn by_id(package: &Package) -> HashMap<&str, &PackageDisk> {
    package.disks().iter().map(|disk| (&*disk.id, disk)).collect()
}

fn zeroes(len: u64) -> Result<Arc<dyn Storage>> {
    let zeroes = MemoryStorage::default();
    zeroes.set_len(len)?;
    Ok(Arc::new(zeroes))
}

/// What should be known of a package as a whole.
fn note_of(package: &Package) -> Option<String> {
    let certificate = package.certificate().map(|name| format!("{name} is not verified"));
    let manifest = (!package.has_manifest()).then(|| "no manifest: nothing is verified".to_owned());
    let notes: Vec<_> = [certificate, manifest].into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// Whether a file is a descriptor by its name, also where it is broken, or by its content.
fn is_descriptor(file: &Located) -> Result<bool> {
    let extension = match &file.location {
        Location::Path(path) => path.extension(),
        _ => None,
    };
    let named = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("ovf"));
    Ok(named || Package::is_descriptor(&*file.store)?)
}
