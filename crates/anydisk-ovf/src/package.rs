//! An open package: its disks, its files, and each of them as a store.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use anydisk_core::{
    Access, Error, HostOffset, Limits, Located, Location, Member, Members, Reference, Resolver,
    Result, Role, Storage,
};
use anydisk_storage::MemoryStorage;

use crate::descriptor::{Descriptor, File, HEAD, begins};
use crate::disk::package_disk;
use crate::files::{Files, certificate_name, manifest_name, must_cover};
use crate::manifest::Manifest;
use crate::packed::Kept;
use crate::{PackageDisk, Scratch, invalid, text};

/// A package.
#[derive(Debug)]
pub struct Package {
    pub(crate) files: Files,
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Option<Manifest>,
    /// Name of the certificate.
    certificate: Option<String>,
    disks: Vec<PackageDisk>,
    members: Vec<Member>,
    pub(crate) limits: Limits,
    pub(crate) scratch: Option<Arc<dyn Scratch>>,
    pub(crate) unpacked: Mutex<Kept>,
}

impl Package {
    /// Opens an archive. Its descriptor is the first member, known by its name or by its content.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) for an archive, descriptor or manifest that breaks a
    /// rule, [`Error::Denied`] for names that are not plain, [`Error::Limit`].
    pub fn open_ova(archive: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let (files, first) = Files::of_archive(&archive, limits)?;
        match first {
            Some(first) if first.ends_with(".ovf") || files.has_descriptor(&first)? => {
                Self::open(files, &first, limits)
            }
            other => {
                let found = text(other.as_deref().unwrap_or("nothing"));
                Err(invalid("first member", 0, found, "a descriptor, NAME.ovf").into())
            }
        }
    }

    /// Whether a file begins as a descriptor does, also one that would be refused.
    ///
    /// # Errors
    /// What the store says.
    pub fn is_descriptor(file: &dyn Storage) -> Result<bool> {
        let mut head = [0; HEAD];
        let count = file.read_at(HostOffset::ZERO, &mut head)?;
        Ok(begins(&head[..count]))
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
        others.extend(find(&certificate_name(&own))?);
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
        let descriptor = Descriptor::parse(&descriptor, limits)?;
        let disks = descriptor.disks.iter().map(|disk| package_disk(disk, &descriptor)).collect();
        let mut package = Self {
            certificate: files.certificate_of(name).map(str::to_owned),
            files,
            descriptor,
            manifest,
            disks,
            members: Vec::new(),
            limits: limits.clone(),
            scratch: None,
            unpacked: Mutex::default(),
        };
        package.members = package.list();
        Ok(package)
    }

    /// The disks of the machine, in the order of the descriptor.
    #[must_use]
    pub fn disks(&self) -> &[PackageDisk] {
        &self.disks
    }

    /// Whether there are digests, by which members are verified.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// The name of the certificate, if the package has one. It says who made the manifest, and is
    /// not verified.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
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
        match self.file(path) {
            Err(_) if self.is_empty_disk(path) => self.empty_disk(path),
            file => file.and_then(|file| self.unpacked_to_look(file, self.files.packed(file)?)),
        }
    }

    fn is_empty_disk(&self, path: &str) -> bool {
        self.disks.iter().any(|disk| disk.is_empty() && disk.id == path)
    }

    fn empty_disk(&self, path: &str) -> Result<Arc<dyn Storage>> {
        let zeroes = MemoryStorage::default();
        let disk = self.disks.iter().find(|disk| disk.id == path);
        zeroes.set_len(disk.map_or(0, |disk| disk.capacity))?;
        Ok(Arc::new(zeroes))
    }

    pub(crate) fn file(&self, path: &str) -> Result<&File> {
        let found = self.descriptor.files.iter().find(|file| file.href == path);
        found.ok_or_else(|| Error::NotFound { what: "member", name: path.to_owned() })
    }

    /// The bytes of a file as they lie in the package, with the digest of the manifest.
    pub(crate) fn verified(&self, file: &File) -> Result<Arc<dyn Storage>> {
        let store = self.files.packed(file)?;
        if let Some(manifest) = &self.manifest {
            self.files.verify(file, manifest)?;
        }
        Ok(store)
    }
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
        match self.file(path) {
            Err(_) if self.is_empty_disk(path) => self.empty_disk(path),
            file => file.and_then(|file| self.unpacked(file, self.verified(file)?)),
        }
    }
}
