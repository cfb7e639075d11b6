//! What lies in disks: packages, partitions, volume groups, as a tree; and opening a member.

mod look;
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
/// A member is asked for by its [path](Member::path). With a single disk, `1` is its first
/// partition as well.
#[derive(Debug)]
pub struct Inside {
    options: OpenDisk,
    containers: Vec<Open>,
    members: Vec<Member>,
    entries: HashMap<String, Entry>,
}

/// An open container.
#[derive(Debug)]
enum Open {
    Package(Package),
    Partitions(Partitions),
    Groups(VolumeGroups),
    /// An image that was opened, which has one member.
    Disk(Arc<Disk>),
}

/// Where a member is.
#[derive(Clone, Debug)]
struct Entry {
    container: usize,
    /// Its path in the container.
    path: String,
    /// Members of packages that it lies in, which must be verified before it is read.
    verify: Vec<(usize, String)>,
}

/// A store that may hold more: what it is called, and the members of packages that it lies in.
struct Place {
    name: String,
    store: Arc<dyn Storage>,
    verify: Vec<(usize, String)>,
}

impl OpenDisk {
    /// Opens the disks of one machine and lists what lies in them. `deep`: also in what was found
    /// (volume groups in partitions, partitions in the disks of a package); else only in the
    /// files themselves.
    ///
    /// # Errors
    /// What opening the disks says. A container that is broken is told as a note of its disk.
    pub fn inside(&self, paths: &[impl AsRef<Path>], deep: bool) -> Result<Inside> {
        let mut inside = Inside {
            options: self.clone().write(false),
            containers: Vec::new(),
            members: Vec::new(),
            entries: HashMap::new(),
        };
        let mut places = Vec::new();
        for path in paths {
            places.extend(inside.add_file(path.as_ref(), deep)?);
        }
        inside.look_into(places, deep)?;
        Ok(inside)
    }
}

impl Inside {
    /// The disk that a member is. What lies in a partition or volume is a raw disk, whatever its
    /// bytes look like, unless `format` names another; what lies in a package is recognised.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what opening it says.
    pub fn disk(&self, path: &str, format: Option<&str>) -> Result<Disk> {
        let entry = self.entry(path)?;
        if let (Open::Disk(disk), None) = (&self.containers[entry.container], format) {
            self.verify(entry)?;
            return Ok(Disk::from_layers(disk.layers().to_vec(), self.options.limits_in_force()));
        }
        let package = match &self.containers[entry.container] {
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

    /// The disks that were opened, in the order in which they were given; not those in packages.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.containers.iter().filter_map(|open| match open {
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
            // With one disk its name may be left out.
            let mut disks = self.members.iter().filter(|member| member.parent.is_none());
            let only = disks.next().filter(|_| disks.all(|member| member.kind == GROUP))?;
            self.entries.get(&format!("{}/{path}", only.path))
        });
        found.ok_or_else(|| Error::NotFound { what: "member", name: path.to_owned() })
    }

    fn verify(&self, entry: &Entry) -> Result<()> {
        entry.verify.iter().try_for_each(|(container, path)| match &self.containers[*container] {
            Open::Package(package) => package.verify(path),
            _ => Ok(()),
        })
    }

    fn add(&mut self, member: Member, open: Open, inner: &str) {
        let (container, path) = (self.containers.len(), inner.to_owned());
        let entry = Entry { container, path, verify: Vec::new() };
        self.entries.insert(member.path.clone(), entry);
        self.members.push(member);
        self.containers.push(open);
    }

    /// Puts a member of a container into the tree, under another path.
    fn list(
        &mut self,
        container: usize,
        member: &Member,
        path: &str,
        parent: &str,
        verify: Vec<(usize, String)>,
    ) {
        let mut listed = member.clone();
        path.clone_into(&mut listed.path);
        // What belongs to nothing in its container belongs to what the container lies in.
        if listed.parent.is_none() {
            listed.parent = (!parent.is_empty()).then(|| parent.to_owned());
        }
        let entry = Entry { container, path: member.path.clone(), verify };
        self.entries.entry(path.to_owned()).or_insert(entry);
        self.members.push(listed);
    }

    fn note(&mut self, path: &str, note: &str) {
        if let Some(member) = self.members.iter_mut().find(|member| member.path == path) {
            member.note = Some(note.to_owned());
        }
    }
}

/// The kind of a member that lies over all disks.
const GROUP: &str = "volume group";

impl Open {
    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        match self {
            Self::Package(package) => package.open(path),
            Self::Partitions(table) => table.open(path),
            Self::Groups(groups) => groups.open(path),
            Self::Disk(disk) => Ok(Arc::clone(disk) as Arc<dyn Storage>),
        }
    }
}

impl Members for Inside {
    fn members(&self) -> &[Member] {
        &self.members
    }

    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        let entry = self.entry(path)?;
        self.verify(entry)?;
        self.containers[entry.container].open(&entry.path)
    }

    fn changes(&self, since: &str, path: &str) -> Result<Box<dyn Changes + '_>> {
        let (then, now) = (self.entry(since)?, self.entry(path)?);
        match &self.containers[now.container] {
            Open::Groups(groups) if then.container == now.container => {
                groups.changes(&then.path, &now.path)
            }
            _ => {
                let feature = format!("comparing {since} and {path} without reading them,").into();
                Err(Error::Unsupported { format: "container", feature })
            }
        }
    }
}
