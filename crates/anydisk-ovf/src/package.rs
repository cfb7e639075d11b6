//! An open package: its disks, its files, and each of them as a store.

use std::io::ErrorKind;
use std::sync::Arc;

use anydisk_core::{
    Access, Error, Limits, Located, Location, Member, Members, Reference, Resolver, Result, Role,
    Storage,
};
use anydisk_storage::MemoryStorage;

use crate::descriptor::{Descriptor, Disk, File};
use crate::files::{Files, manifest_name, must_cover};
use crate::manifest::Manifest;
use crate::{gzip, invalid, text};

/// A package.
#[derive(Debug)]
pub struct Package {
    files: Files,
    descriptor: Descriptor,
    manifest: Option<Manifest>,
    disks: Vec<PackageDisk>,
    members: Vec<Member>,
    limits: Limits,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageDisk {
    /// Its id in the descriptor.
    pub id: String,
    /// Size for the guest, in bytes.
    pub capacity: u64,
    /// The member with its content; `None`: it is empty.
    pub file: Option<String>,
    /// The format that the descriptor names, as `-f` takes it. To be believed no more than any name.
    pub format: Option<String>,
    /// The id of the disk that it changes.
    pub parent: Option<String>,
}

impl PackageDisk {
    /// Holds the size of the image that was found against the capacity.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) if they differ.
    pub fn check_size(&self, size: u64) -> Result<()> {
        if size == self.capacity {
            return Ok(());
        }
        let field = format!("capacity of disk {}", self.id);
        let expected = format!("{size}, the size of the image");
        Err(invalid(field, 0, self.capacity.into(), expected).into())
    }
}

impl Package {
    /// Opens an archive. Its descriptor is the first member.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) for an archive, descriptor or manifest that breaks a
    /// rule, [`Error::Denied`] for names that are not plain, [`Error::Limit`].
    pub fn open_ova(archive: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let (files, first) = Files::of_archive(&archive, limits)?;
        match first {
            Some(first) if first.ends_with(".ovf") => Self::open(files, &first, limits),
            other => {
                let found = text(other.as_deref().unwrap_or("nothing"));
                Err(invalid("first member", 0, found, "a descriptor, NAME.ovf").into())
            }
        }
    }

    /// Opens a descriptor and the files beside it, which are matched by the last part of their
    /// paths. Files that are not given are missed only when they are opened.
    ///
    /// # Errors
    /// As [`open_ova`](Self::open_ova).
    pub fn open_folder(descriptor: &Located, others: &[Located], limits: &Limits) -> Result<Self> {
        let mut files = Files::default();
        for file in others {
            if let Some(name) = file_name(&file.location) {
                files.add(name, Arc::clone(&file.store));
            }
        }
        let name = file_name(&descriptor.location).unwrap_or_else(|| "package.ovf".to_owned());
        files.add(name.clone(), Arc::clone(&descriptor.store));
        Self::open(files, &name, limits)
    }

    /// Opens a descriptor and the files it names, which the resolver finds beside it. Files that
    /// are not there are missed only when they are opened.
    ///
    /// # Errors
    /// As [`open_ova`](Self::open_ova), and what the resolver says of files that are there.
    pub fn open_beside(
        descriptor: &Located,
        resolver: &dyn Resolver,
        limits: &Limits,
    ) -> Result<Self> {
        let find = |name: &str| {
            let reference = Reference::new(Role::Extent, name);
            match resolver.resolve(&reference, &descriptor.location, Access::Read) {
                Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => Ok(None),
                outcome => outcome.map(Some),
            }
        };
        let alone = Self::open_folder(descriptor, &[], limits)?;
        let mut others = Vec::new();
        let own = file_name(&descriptor.location).unwrap_or_default();
        others.extend(find(&manifest_name(&own))?);
        for file in &alone.descriptor.files {
            let parts = (0..limits.extents).map(|number| file.part_name(number));
            for name in parts.take(if file.chunk.is_some() { limits.extents } else { 1 }) {
                let Some(part) = find(&name)? else { break };
                others.push(part);
            }
        }
        Self::open_folder(descriptor, &others, limits)
    }

    fn open(files: Files, name: &str, limits: &Limits) -> Result<Self> {
        let descriptor = files.read(name, limits)?.unwrap_or_default();
        let manifest = match files.manifest_of(name) {
            Some(own) => {
                let manifest = Manifest::parse(&files.read(own, limits)?.unwrap_or_default())?;
                must_cover(&manifest, name, &files)?;
                Some(manifest)
            }
            None => None,
        };
        let descriptor = Descriptor::parse(&descriptor)?;
        let disks = descriptor.disks.iter().map(|disk| package_disk(disk, &descriptor)).collect();
        let limits = limits.clone();
        let mut package = Self { files, descriptor, manifest, disks, members: Vec::new(), limits };
        package.members = package.list();
        Ok(package)
    }

    /// The disks of the machine, in the order of the descriptor.
    #[must_use]
    pub fn disks(&self) -> &[PackageDisk] {
        &self.disks
    }

    /// Unpacks a member that is packed with gzip into `target`, which is empty; the digest of the
    /// packed bytes is verified first. Whether the member is packed at all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Limit`] for more bytes than the disk can need, and as opening.
    pub fn unpack(&self, path: &str, target: &dyn Storage) -> Result<bool> {
        let file = self.file(path)?;
        if !file.gzip {
            return Ok(false);
        }
        // An image of a disk is hardly larger than the disk.
        let capacity = self.disks.iter().find(|disk| disk.file.as_deref() == Some(path));
        let most = capacity.map_or(u64::MAX, |disk| disk.capacity);
        let most = most.saturating_add(most / 10).saturating_add(1 << 20);
        gzip::unpack(path, &self.verified(file)?, target, most)?;
        Ok(true)
    }

    /// Verifies the digest of a member. An empty disk, and a member that the manifest does not
    /// have, are good.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) if it differs, and what the store says.
    pub fn verify(&self, path: &str) -> Result<()> {
        match self.file(path) {
            Err(_) if self.is_empty_disk(path) => Ok(()),
            file => self.verified(file?).map(drop),
        }
    }

    /// As [`open`](Members::open), and the digest is not looked at: for a first look at what must
    /// be [verified](Self::verify) before it is believed.
    ///
    /// # Errors
    /// As opening.
    pub fn open_unverified(&self, path: &str) -> Result<Arc<dyn Storage>> {
        if self.is_empty_disk(path) {
            return self.empty_disk(path);
        }
        let file = self.file(path)?;
        self.unpacked(file, self.files.packed(file)?)
    }

    fn is_empty_disk(&self, path: &str) -> bool {
        self.disks.iter().any(|disk| disk.file.is_none() && disk.id == path)
    }

    fn empty_disk(&self, path: &str) -> Result<Arc<dyn Storage>> {
        let zeroes = MemoryStorage::default();
        let disk = self.disks.iter().find(|disk| disk.id == path);
        zeroes.set_len(disk.map_or(0, |disk| disk.capacity))?;
        Ok(Arc::new(zeroes))
    }

    /// A file of the package as it is, or out of its packing.
    fn unpacked(&self, file: &File, store: Arc<dyn Storage>) -> Result<Arc<dyn Storage>> {
        if !file.gzip {
            return Ok(store);
        }
        let (unpacked, most) = (MemoryStorage::default(), self.limits.unit);
        match gzip::unpack(&file.href, &store, &unpacked, most) {
            Err(Error::Limit { .. }) => Err(gzip::too_large(&file.href, most)),
            outcome => outcome.map(|()| Arc::new(unpacked) as Arc<dyn Storage>),
        }
    }

    fn file(&self, path: &str) -> Result<&File> {
        let found = self.descriptor.files.iter().find(|file| file.href == path);
        found.ok_or_else(|| Error::NotFound { what: "member", name: path.to_owned() })
    }

    /// The bytes of a file as they lie in the package, with the digest of the manifest.
    fn verified(&self, file: &File) -> Result<Arc<dyn Storage>> {
        let store = self.files.packed(file)?;
        if let Some(manifest) = &self.manifest {
            self.files.verify(file, manifest)?;
        }
        Ok(store)
    }

    fn list(&self) -> Vec<Member> {
        let disks = self.disks.iter().map(|disk| self.disk_member(disk));
        let is_disk = |file: &&File| {
            self.disks.iter().any(|disk| disk.file.as_deref() == Some(file.href.as_str()))
        };
        let others = self.descriptor.files.iter().filter(|file| !is_disk(file));
        disks.chain(others.map(|file| self.file_member(file, "package member (file)"))).collect()
    }

    fn disk_member(&self, disk: &PackageDisk) -> Member {
        let file = disk.file.as_ref().and_then(|href| self.file(href).ok());
        let Some(file) = file else {
            let mut member = Member::new(disk.id.clone(), "package member (empty disk)");
            member.size = Some(disk.capacity);
            member.format = Some("raw".to_owned());
            return member;
        };
        let mut member = self.file_member(file, "package member (disk)");
        member.format.clone_from(&disk.format);
        let capacity = format!("capacity {} bytes", disk.capacity);
        member.note =
            Some(member.note.map_or(capacity.clone(), |note| format!("{capacity}; {note}")));
        member
    }

    fn file_member(&self, file: &File, kind: &'static str) -> Member {
        let mut member = Member::new(file.href.clone(), kind);
        match self.files.packed(file) {
            Ok(store) if !file.gzip => member.size = store.len().ok(),
            Ok(_) => member.note = Some("packed with gzip".to_owned()),
            Err(error) => member.note = Some(error.to_string()),
        }
        if let Some(manifest) = &self.manifest
            && !manifest.digests.contains_key(&file.href)
            && file.chunk.is_none()
        {
            member.note = Some("the manifest does not have it".to_owned());
        }
        member
    }
}

fn package_disk(disk: &Disk, descriptor: &Descriptor) -> PackageDisk {
    let file = disk.file.as_ref().and_then(|id| descriptor.file(id));
    PackageDisk {
        id: disk.id.clone(),
        capacity: disk.capacity,
        file: file.map(|file| file.href.clone()),
        format: disk.format.as_deref().and_then(format_of).map(str::to_owned),
        parent: disk.parent.clone(),
    }
}

/// The format that a URI means.
fn format_of(uri: &str) -> Option<&'static str> {
    let uri = uri.to_ascii_lowercase();
    // In this order: "vhdx" has "vhd" in it.
    [("vmdk", "vmdk"), ("qcow", "qcow2"), ("vhdx", "vhdx"), ("vhd", "vpc"), ("raw", "raw")]
        .into_iter()
        .find_map(|(part, format)| uri.contains(part).then_some(format))
}

fn file_name(location: &Location) -> Option<String> {
    match location {
        Location::Path(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
        Location::Other(name) => Some(name.rsplit('/').next()?.to_owned()),
        _ => None,
    }
}

impl Members for Package {
    fn members(&self) -> &[Member] {
        &self.members
    }

    /// Opens a file of the package, after its digest was verified, or an empty disk by its id.
    fn open(&self, path: &str) -> Result<Arc<dyn Storage>> {
        if self.is_empty_disk(path) {
            return self.empty_disk(path);
        }
        let file = self.file(path)?;
        self.unpacked(file, self.verified(file)?)
    }
}
