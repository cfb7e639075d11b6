//! The files of a package, wherever they are: members of an archive, or stores of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anydisk_core::{Error, HostOffset, Limits, Result, Storage, StorageExt, Value};
use anydisk_storage::Window;

use crate::chunks::joined;
use crate::descriptor::File;
use crate::manifest::Manifest;
use crate::{Package, invalid, limits, tar, text};

/// The files of a package by name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    stores: BTreeMap<String, Arc<dyn Storage>>,
}

impl Files {
    /// The members of an archive, and the name of the first one.
    ///
    /// # Errors
    /// As reading the archive.
    pub(crate) fn of_archive(
        archive: &Arc<dyn Storage>,
        limits: &Limits,
    ) -> Result<(Self, Option<String>)> {
        let entries = tar::entries(&**archive, limits)?;
        let first = entries.first().map(|entry| entry.name.clone());
        let mut files = Self::default();
        for entry in entries {
            let window = Window::new(Arc::clone(archive), entry.at, entry.len)?;
            files.add(entry.name, Arc::new(window));
        }
        Ok((files, first))
    }

    pub(crate) fn add(&mut self, name: String, store: Arc<dyn Storage>) {
        self.stores.insert(name, store);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<dyn Storage>> {
        self.stores.get(name)
    }

    /// Whether a file begins as a descriptor does.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn has_descriptor(&self, name: &str) -> Result<bool> {
        self.get(name).map_or(Ok(false), |store| Package::is_descriptor(&**store))
    }

    /// All bytes of a small file.
    ///
    /// # Errors
    /// [`Error::Limit`], and what the store says.
    pub(crate) fn read(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>> {
        let Some(store) = self.get(name) else { return Ok(None) };
        let len = store.len()?;
        limits::check("size of a descriptor or manifest", len, limits::descriptor(limits))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        store.read_exact_at(HostOffset::ZERO, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The manifest that belongs to a descriptor: that of the same name, else the only one.
    pub(crate) fn manifest_of(&self, descriptor: &str) -> Option<&str> {
        let own = manifest_name(descriptor);
        let mut all = self.stores.keys().filter(|name| name.ends_with(".mf"));
        match (self.stores.get_key_value(&own), all.next(), all.next()) {
            (Some((name, _)), ..) => Some(name),
            (None, Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// The certificate that belongs to a descriptor: that of the same name.
    pub(crate) fn certificate_of(&self, descriptor: &str) -> Option<&str> {
        let own = certificate_name(descriptor);
        self.stores.get_key_value(&own).map(|(name, _)| name.as_str())
    }

    /// The stores that a file of the descriptor consists of, with their names.
    ///
    /// # Errors
    /// [`Error::Unusable`] for one that is not there.
    pub(crate) fn parts(&self, file: &File) -> Result<Vec<(String, Arc<dyn Storage>)>> {
        let found = |name: String| {
            let store = self.get(&name).cloned();
            store.map(|store| (name.clone(), store)).ok_or_else(|| missing(&name))
        };
        if file.chunk.is_none() {
            return Ok(vec![found(file.href.clone())?]);
        }
        let mut parts = vec![found(file.part_name(0))?];
        while self.get(&file.part_name(parts.len())).is_some() {
            parts.push(found(file.part_name(parts.len()))?);
        }
        check_chunks(file, &parts)?;
        Ok(parts)
    }

    /// A file of the descriptor as it lies in the package, with the size that it should have.
    ///
    /// # Errors
    /// As [`parts`](Self::parts); [`Invalid`](anydisk_core::Invalid) for another size.
    pub(crate) fn packed(&self, file: &File) -> Result<Arc<dyn Storage>> {
        let mut parts: Vec<_> = self.parts(file)?.into_iter().map(|(_, store)| store).collect();
        let store = match parts.len() {
            1 => parts.remove(0),
            _ => Arc::new(joined(&file.href, parts)?),
        };
        let len = store.len()?;
        match file.size {
            Some(size) if size != len => {
                let field = format!("size of {}", file.href);
                let expected = format!("{size}, as the descriptor says");
                Err(invalid(field, 0, len.into(), expected).into())
            }
            _ => Ok(store),
        }
    }

    /// Verifies what the manifest has for the parts of a file. Whether it had anything.
    ///
    /// # Errors
    /// [`Invalid`](anydisk_core::Invalid) for another digest.
    pub(crate) fn verify(&self, file: &File, manifest: &Manifest) -> Result<bool> {
        let mut all = true;
        for (name, store) in self.parts(file)? {
            match manifest.digests.get(&name) {
                Some(expected) => expected.verify(&name, &*store)?,
                None => all = false,
            }
        }
        // Cut files may also be listed as a whole.
        match manifest.digests.get(&file.href).filter(|_| file.chunk.is_some()) {
            Some(expected) => expected.verify(&file.href, &*self.packed(file)?).map(|()| true),
            None => Ok(all),
        }
    }
}

/// The manifest of a descriptor.
pub(crate) fn manifest_name(descriptor: &str) -> String {
    with_extension(descriptor, "mf")
}

/// The certificate of a descriptor.
pub(crate) fn certificate_name(descriptor: &str) -> String {
    with_extension(descriptor, "cert")
}

/// The name of a file that goes with a descriptor.
fn with_extension(descriptor: &str, extension: &str) -> String {
    format!("{}.{extension}", descriptor.rsplit_once('.').map_or(descriptor, |(stem, _)| stem))
}

/// All chunks but the last have the size that the descriptor says.
fn check_chunks(file: &File, parts: &[(String, Arc<dyn Storage>)]) -> Result<()> {
    let chunk = file.chunk.unwrap_or(u64::MAX);
    let (_, first) =
        parts.split_last().map_or((None, &[][..]), |(last, first)| (Some(last), first));
    for (name, store) in first {
        let len = store.len()?;
        if len != chunk {
            let found = Value::Number(len);
            let field = format!("size of {name}");
            return Err(invalid(field, 0, found, format!("the chunkSize, {chunk}")).into());
        }
    }
    Ok(())
}

fn missing(name: &str) -> Error {
    let why = "the descriptor names it, and it is not among the files".into();
    Error::Unusable { what: "file of the package", name: name.to_owned(), why }
}

/// Whether a manifest covers a name at all, for notes.
pub(crate) fn must_cover(manifest: &Manifest, descriptor: &str, files: &Files) -> Result<()> {
    let Some(expected) = manifest.digests.get(descriptor) else {
        let found = text(descriptor);
        return Err(invalid("manifest", 0, found, "the digest of the descriptor").into());
    };
    match files.get(descriptor) {
        Some(store) => expected.verify(descriptor, &**store),
        None => Ok(()),
    }
}
