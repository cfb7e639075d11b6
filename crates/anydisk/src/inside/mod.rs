//! What lies in disks: packages, partitions, volume groups, as a tree; and opening a member.

mod look;
mod names;
mod package;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anydisk_core::{
    Access, Changes, Disk, Error, Located, Location, Member, Members, NoReferences, Opener, Result,
    Storage,
};
use anydisk_lvm2::VolumeGroups;
use anydisk_ovf::Package;
use anydisk_partition::Partitions;

use crate::OpenDisk;

/// What lies in the disks of one machine.
///
/// ```text
///   a.qcow2                disk: an image of any format, or a package with several
///     a.qcow2/1            partition
///     a.qcow2/2            partition, and a physical volume in it
///   vg0                    volume group: over all disks
///     vg0/root             logical volume
/// ```
///
/// A member is asked for by its [path](Member::path), which no other has: files of one name have
/// the paths by which they were given, and where packages, volume groups and files would share
/// names, those of a package begin with the package's, and those of groups with `lvm2/`. Of a
/// single file, `1` is the first partition as well.
#[derive(Debug)]
pub struct Inside {
    options: OpenDisk,
    found: Vec<Found>,
    /// How many of them are the files that were given; they come first.
    files: usize,
    members: Vec<Member>,
    entries: HashMap<String, Entry>,
    /// Something packed was too large to be looked into.
    left_out: bool,
    /// What should be known of packages and what is in them.
    findings: Vec<MemberFinding>,
}

/// A file that was given, or what was found in one.
#[derive(Debug)]
struct Found {
    open: Open,
    /// As it calls them itself. The first one of a package is the package.
    members: Vec<Member>,
    /// What it lies in.
    under: Option<Spot>,
    /// Where the stores are that volume groups lie over.
    over: Vec<Spot>,
    /// Members of packages that it lies in, which must be verified before it is read.
    verify: Vec<(usize, String)>,
}

/// A member of what was found, both by number.
#[derive(Clone, Copy, Debug)]
struct Spot {
    found: usize,
    member: usize,
}

/// What was opened.
#[derive(Debug)]
enum Open {
    /// An image, which is its only member.
    Disk(Arc<Disk>),
    Package(Package),
    Partitions(Partitions),
    Groups(VolumeGroups),
}

/// Where a member is.
#[derive(Clone, Debug)]
struct Entry {
    found: usize,
    /// Its path in there.
    path: String,
}

/// A store that may hold more: where it is, and the members of packages that it lies in.
struct Place {
    at: Spot,
    store: Arc<dyn Storage>,
    verify: Vec<(usize, String)>,
}

/// What is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// The files themselves.
    Files,
    /// What is found as well; of what is packed, only what fits in memory.
    Found,
    /// All of what is packed, unpacked into files.
    Packed,
}

/// What should be known of a package, or of a member of it, before it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberFinding {
    /// The path of the member.
    pub path: String,
    /// Its kind, for programs; those of [`PackageFinding`](anydisk_ovf::PackageFinding).
    pub kind: &'static str,
    /// For people.
    pub text: String,
}

impl OpenDisk {
    /// Opens the disks of one machine and lists what lies in them. `deep`: also in what was found
    /// (volume groups in partitions, partitions in the disks of a package); else only in the
    /// files themselves. Packed disks of a package that do not fit in memory, all together, are
    /// listed and not looked into.
    ///
    /// # Errors
    /// What opening the disks says. A container that is broken is told as a note of its disk.
    pub fn inside(&self, paths: &[impl AsRef<Path>], deep: bool) -> Result<Inside> {
        self.inside_to(paths, if deep { Depth::Found } else { Depth::Files })
    }

    /// As [`inside`](Self::inside), for the sake of one member: what is packed is unpacked into
    /// [scratch files](Self::scratch) if that is what it takes to find it.
    ///
    /// # Errors
    /// As [`inside`](Self::inside). Whether the member is there is told when it is opened.
    pub fn inside_for(
        &self,
        paths: &[impl AsRef<Path>],
        member: &str,
        deep: bool,
    ) -> Result<Inside> {
        let inside = self.inside(paths, deep)?;
        match inside.left_out && inside.entry(member).is_err() {
            true => self.inside_to(paths, Depth::Packed),
            false => Ok(inside),
        }
    }

    fn inside_to(&self, paths: &[impl AsRef<Path>], depth: Depth) -> Result<Inside> {
        let mut inside = Inside {
            options: self.clone().write(false),
            found: Vec::new(),
            files: paths.len(),
            members: Vec::new(),
            entries: HashMap::new(),
            findings: Vec::new(),
            left_out: false,
        };
        for path in paths {
            inside.add_file(path.as_ref())?;
        }
        let places = (0..paths.len()).flat_map(|file| inside.places_in(file, depth)).collect();
        inside.look_into(places, depth)?;
        inside.name_all(paths);
        Ok(inside)
    }
}

impl Inside {
    /// All that was found, as [`Members`] has it.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The disk that a member is. What lies in a partition or volume is a raw disk, whatever its
    /// bytes look like, unless `format` names another; what lies in a package is recognised.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what opening it says.
    pub fn disk(&self, path: &str, format: Option<&str>) -> Result<Disk> {
        let entry = self.entry(path)?;
        if let (Open::Disk(disk), None) = (&self.found[entry.found].open, format) {
            self.verify(entry)?;
            let limits = self.options.limits_in_force();
            let disk = Disk::from_layers(disk.layers().to_vec(), limits);
            return Ok(self.options.padded_as_asked(disk));
        }
        let package = match &self.found[entry.found].open {
            Open::Package(package) => Some(package),
            _ => None,
        };
        if let Some(disk) = package.and_then(|one| self.package_disk(one, &entry.path, format)) {
            return disk;
        }
        // A file of a package may be an image of any format; all else is raw.
        let format = format.or(package.is_none().then_some("raw"));
        self.image(self.open(path)?, path, format)
    }

    /// What should be known of packages and what is in them before it is believed.
    #[must_use]
    pub fn findings(&self) -> &[MemberFinding] {
        &self.findings
    }

    /// Those about a member and all that it lies in. A volume may lie in any of the disks.
    #[must_use]
    pub fn findings_about(&self, path: &str) -> Vec<&MemberFinding> {
        let in_group = |entry: &Entry| matches!(self.found[entry.found].open, Open::Groups(_));
        if self.entry(path).is_ok_and(in_group) {
            return self.findings.iter().collect();
        }
        let by_path = |path: &str| self.members.iter().find(|member| member.path == path);
        let only = self.members.first().filter(|_| self.files == 1);
        let full = only.map(|only| format!("{}/{path}", only.path));
        let own = by_path(path).or_else(|| by_path(&full?));
        // Deeper trees than the members are many there are none.
        let above = |member: &&Member| member.parent.as_deref().and_then(by_path);
        let places: Vec<_> = std::iter::successors(own, above).take(self.members.len()).collect();
        let is_about =
            |finding: &&MemberFinding| places.iter().any(|place| place.path == finding.path);
        self.findings.iter().filter(is_about).collect()
    }

    /// The disks that were opened, in the order in which they were given; not those in packages.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.found.iter().filter_map(|found| match &found.open {
            Open::Disk(disk) => Some(&**disk),
            _ => None,
        })
    }

    /// An image in a store; no file that it names is opened.
    fn image(&self, store: Arc<dyn Storage>, name: &str, format: Option<&str>) -> Result<Disk> {
        let location = Location::Other(name.to_owned());
        let registry = self.options.registry();
        let opener = Opener::new(registry, &NoReferences)
            .with_limits(self.options.limits_in_force().clone());
        let file = Located { store, location };
        let format = match format {
            Some(format) => format,
            // In a package, too, raw is not guessed.
            None => {
                let options = OpenDisk::untrusted().formats(registry.clone());
                options.format_of(&file)?;
                return opener.open(file, None, Access::Read);
            }
        };
        opener.open(file, Some(format), Access::Read)
    }

    fn entry(&self, path: &str) -> Result<&Entry> {
        let found = self.entries.get(path).or_else(|| {
            // Of a single file the name may be left out.
            let only = self.members.first().filter(|_| self.files == 1)?;
            self.entries.get(&format!("{}/{path}", only.path))
        });
        found.ok_or_else(|| Error::NotFound { what: "member", name: path.to_owned() })
    }

    fn verify(&self, entry: &Entry) -> Result<()> {
        let mut verify = self.found[entry.found].verify.iter();
        verify.try_for_each(|(found, path)| match &self.found[*found].open {
            Open::Package(package) => package.verify(path),
            _ => Ok(()),
        })
    }

    /// Keeps what was found; its number.
    fn add(&mut self, found: Found) -> usize {
        self.found.push(found);
        self.found.len() - 1
    }

    /// Adds to what is to be known of a member.
    fn note(&mut self, at: Spot, note: &str) {
        add_note(&mut self.found[at.found].members[at.member], note);
    }
}

fn add_note(member: &mut Member, note: &str) {
    member.note = Some(match member.note.take() {
        Some(known) => format!("{known}; {note}"),
        None => note.to_owned(),
    });
}

impl Found {
    /// Where the physical volume is that a member of volume groups is: in several places if it was
    /// copied.
    fn places_of(&self, path: &str) -> Vec<Spot> {
        match &self.open {
            Open::Groups(groups) => {
                groups.places_of(path).filter_map(|place| self.over.get(place).copied()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Open {
    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        match self {
            Self::Disk(disk) => Ok(Arc::clone(disk) as Arc<dyn Storage>),
            Self::Package(package) => package.open(path),
            Self::Partitions(table) => table.open(path),
            Self::Groups(groups) => groups.open(path),
        }
    }
}

impl Members for Inside {
    fn members(&self) -> &[Member] {
        Self::members(self)
    }

    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        let entry = self.entry(path)?;
        self.verify(entry)?;
        self.found[entry.found].open.open(&entry.path)
    }

    fn changes(&self, since: &str, path: &str) -> Result<Box<dyn Changes + '_>> {
        let (then, now) = (self.entry(since)?, self.entry(path)?);
        match &self.found[now.found].open {
            Open::Groups(groups) if then.found == now.found => {
                groups.changes(&then.path, &now.path)
            }
            _ => {
                let feature = format!("comparing {since} and {path} without reading them,").into();
                Err(Error::Unsupported { format: "container", feature })
            }
        }
    }
}
