//! Opening a chain: formats, policy, loops and depth in one place.

use std::sync::Arc;

use anydisk_storage::Identity;

use crate::secret::ByNames;
use crate::{
    Access, CheckReport, CheckRequest, Chosen, Disk, Error, Finding, Format, HostOffset, Layer,
    Limits, Located, Location, NoReferences, NoSecrets, OpenRequest, Opened, Reference, Registry,
    Resolver, Result, Secrets, Severity,
};

/// Opens images and the chains below them: which formats, who may open named files, what it may
/// cost.
#[derive(Clone, Debug)]
pub struct Opener<'a> {
    registry: &'a Registry,
    resolver: &'a dyn Resolver,
    limits: Limits,
    secrets: &'a dyn Secrets,
}

impl<'a> Opener<'a> {
    /// An opener with the default limits.
    #[must_use]
    pub fn new(registry: &'a Registry, resolver: &'a dyn Resolver) -> Self {
        Self { registry, resolver, limits: Limits::default(), secrets: &NoSecrets }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same, asking `secrets` for the passphrases of encrypted images.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &'a dyn Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Opens one image and nothing below it. Without `format` the bytes decide.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`], or what the format says, with the name of the file.
    pub fn open_one(&self, file: Located, format: Option<&str>, access: Access) -> Result<Layer> {
        let (format, chosen) = self.format(&file, format)?;
        let opened = format.open(self.request(&file, access));
        let opened = opened.map_err(|error| error.within(&file.location.to_string()))?;
        let Opened { image, backing, warnings } = opened;
        Ok(Layer { image, location: file.location, chosen, backing, warnings })
    }

    /// The format of this name, else the one that recognises the bytes.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`].
    pub fn format(
        &self,
        file: &Located,
        name: Option<&str>,
    ) -> Result<(&'static dyn Format, Chosen)> {
        match name {
            Some(name) => Ok((self.registry.by_name(name)?, Chosen::Named)),
            None => self.registry.probe_store(&*file.store),
        }
    }

    /// What a format is given to open `file`, with the resolver, limits and secrets of this opener.
    #[must_use]
    pub fn request<'r>(&'r self, file: &'r Located, access: Access) -> OpenRequest<'r> {
        OpenRequest {
            store: Arc::clone(&file.store),
            location: &file.location,
            access,
            resolver: self.resolver,
            limits: &self.limits,
            secrets: self.secrets,
        }
    }

    /// Checks one image, as [`Format::check`] does, and what it says of the one below it: whether that
    /// is the one, with the content, that it was made for, and whether the chain comes back to itself.
    /// Images below are not checked. One that cannot be looked at, because it is missing or the
    /// resolver does not follow the name, is told.
    ///
    /// # Errors
    /// Those of the format, with the name of the file; [`Error::Unsupported`] where the data is to
    /// be read and the format [cannot](Format::checks_data).
    pub fn check(
        &self,
        format: &dyn Format,
        file: &Located,
        request: &CheckRequest<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<CheckReport> {
        let checked = match request.data && !format.checks_data() {
            true => {
                let feature = "reading the data in a check".into();
                Err(Error::Unsupported { format: format.name(), feature })
            }
            false => format.check(request, found),
        };
        let mut report = checked.map_err(|error| error.within(&file.location.to_string()))?;
        let again = Located { store: Arc::clone(&file.store), location: file.location.clone() };
        if let Some(finding) = self.check_below(again, format.name()) {
            report.count(&finding);
            found(finding);
        }
        Ok(report)
    }

    /// What is wrong with the chain below an image. One that does not open has none.
    fn check_below(&self, file: Located, format: &str) -> Option<Finding> {
        let mut seen = Vec::new();
        remember(&mut seen, &file).ok()?;
        let top = self.open_one(file, Some(format), Access::Read).ok()?;
        let mut above = match self.next_checked(&top, &mut seen) {
            Ok(below) => below?,
            Err(error) => return Some(finding_below(top.backing.as_ref()?, &error)),
        };
        if let Some(finding) = finding_of_link(&top, &above) {
            return Some(finding);
        }
        // Further down only what keeps all of the chain from being opened.
        for _ in 0..self.limits.chain {
            let below = match self.next_checked(&above, &mut seen) {
                Ok(below) => below?,
                Err(error) => return finding_of_loop(&error),
            };
            if let Some(finding) = finding_of_link(&above, &below) {
                return Some(finding);
            }
            above = below;
        }
        None
    }

    /// The image below `above`, if it is none of those that were seen.
    fn next_checked(&self, above: &Layer, seen: &mut Vec<Identity>) -> Result<Option<Layer>> {
        let Some((reference, file)) = self.find_next(above, Access::Read)? else { return Ok(None) };
        remember(seen, &file)?;
        self.open_below(file, reference, Access::Read).map(Some)
    }

    /// Opens an image below another. If nobody names its format, it must need no other file, unless
    /// the resolver [trusts it](Resolver::trusts_bytes).
    fn open_below(&self, file: Located, reference: &Reference, access: Access) -> Result<Layer> {
        let said = self.resolver.said(reference);
        if said.format.is_some() || self.resolver.trusts_bytes() {
            let secrets = ByNames { secrets: self.secrets, names: &said.secrets };
            let named = Opener { secrets: &secrets, ..self.clone() };
            let mut layer = named.open_one(file, said.format.as_deref(), access)?;
            layer.backing = said.below(layer.backing.take());
            return Ok(layer);
        }
        let alone = Opener { resolver: &NoReferences, ..self.clone() };
        let layer = alone.open_one(file, None, access)?;
        match &layer.backing {
            None => Ok(layer),
            Some(next) => {
                let why = "the image above does not say that the one that names it is an image";
                Err(next.denied(why).within(&layer.location.to_string()))
            }
        }
    }

    /// Opens an image and the whole chain below it. The images below are opened for reading.
    ///
    /// # Errors
    /// As [`open_one`](Self::open_one); [`Error::Denied`] for a reference that the resolver does
    /// not follow; [`Error::Loop`]; [`Error::Limit`] for a chain that is too deep. Where the resolver
    /// [bears loss](Resolver::bears_loss), those of the top alone: below the lowest image that could
    /// be opened lies then one that cannot be read.
    pub fn open(&self, file: Located, format: Option<&str>, access: Access) -> Result<Disk> {
        let mut seen = Vec::new();
        remember(&mut seen, &file)?;
        let top = self.open_one(file, format, access)?;
        self.complete_knowing(top, seen)
    }

    /// Opens the image that `above` says lies below it, and nothing below that; `None` if it names
    /// none. That its content is the one that `above` was made for is **not** checked: whoever
    /// mends a chain, or goes on with a commit that was cut short, opens it one by one.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the content.
    pub fn open_next(&self, above: &Layer, access: Access) -> Result<Option<Layer>> {
        let Some((reference, file)) = self.find_next(above, access)? else { return Ok(None) };
        let layer = self.open_below(file, reference, access)?;
        check_id(reference, &layer, &above.location)?;
        Ok(Some(layer))
    }

    /// The file of the image that `above` says lies below it, and nothing of what is in it; `None` if it
    /// names none. Where several could be meant, [`Access::ReadWrite`] is refused.
    ///
    /// # Errors
    /// Those of the resolver.
    pub fn file_below(&self, above: &Layer, access: Access) -> Result<Option<Located>> {
        Ok(self.find_next(above, access)?.map(|(_, file)| file))
    }

    /// The disk whose top image is `top`: opens the whole chain below it, for reading.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn complete(&self, top: Layer) -> Result<Disk> {
        self.complete_knowing(top, Vec::new())
    }

    fn complete_knowing(&self, top: Layer, mut seen: Vec<Identity>) -> Result<Disk> {
        let mut layers = vec![top];
        while let Some(above) = layers.last() {
            match self.lower(above, layers.len(), &mut seen) {
                Ok(Some(layer)) => layers.push(layer),
                Ok(None) => break,
                Err(why) if self.resolver.bears_loss() => {
                    layers.push(Layer::missing_below(above, &why));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(Disk::from_layers(layers, &self.limits))
    }

    /// The image below `above`, which is number `depth` of a chain, if it names one.
    fn lower(
        &self,
        above: &Layer,
        depth: usize,
        seen: &mut Vec<Identity>,
    ) -> Result<Option<Layer>> {
        if above.backing.is_some() && depth >= self.limits.chain {
            let from = above.location.to_string();
            return Err(too_deep(depth, &self.limits).within(&from));
        }
        let Some((reference, file)) = self.find_next(above, Access::Read)? else { return Ok(None) };
        remember(seen, &file)?;
        let layer = self.open_below(file, reference, Access::Read)?;
        check_id(reference, &layer, &above.location)?;
        check_content(reference, &layer, &above.location)?;
        Ok(Some(layer))
    }

    /// The file of the image that `above` names as the one below it.
    fn find_next<'l>(
        &self,
        above: &'l Layer,
        access: Access,
    ) -> Result<Option<(&'l Reference, Located)>> {
        let Some(reference) = &above.backing else { return Ok(None) };
        let found = self.resolver.resolve(reference, &above.location, access);
        let file = found.map_err(|error| error.within(&above.location.to_string()))?;
        Ok(Some((reference, file)))
    }
}

/// Loops are found by what a file is, not by what it is called.
fn remember(seen: &mut Vec<Identity>, file: &Located) -> Result<()> {
    if let Some(identity) = file.store.identity() {
        if seen.contains(&identity) {
            return Err(Error::Loop(file.location.to_string()));
        }
        seen.push(identity);
    }
    Ok(())
}

fn too_deep(depth: usize, limits: &Limits) -> Error {
    Error::Limit {
        format: "chain",
        what: "number of images".into(),
        found: depth as u64 + 1,
        limit: limits.chain as u64,
    }
}

/// A parent that is another image does not fit its child.
fn check_id(reference: &Reference, below: &Layer, from: &Location) -> Result<()> {
    let fits = fits_id(reference, below);
    fits.map_err(|why| reference.denied(why).within(&from.to_string()))
}

/// A parent that was written since the child was made does not fit it.
fn check_content(reference: &Reference, below: &Layer, from: &Location) -> Result<()> {
    let fits = fits_content(reference, below);
    fits.map_err(|why| reference.denied(why).within(&from.to_string()))
}

/// Both, for a check: what is wrong.
fn finding_of_link(above: &Layer, below: &Layer) -> Option<Finding> {
    let reference = above.backing.as_ref()?;
    let fits = fits_id(reference, below).and_then(|()| fits_content(reference, below));
    let why = fits.err()?;
    let text = format!("{} does not fit {}: {why}", below.location, above.location);
    Some(Finding::new(Severity::Corruption, "parent-mismatch", HostOffset::ZERO, text))
}

fn fits_id(reference: &Reference, below: &Layer) -> Result<(), String> {
    match (reference.id, below.image.info().id) {
        (Some(expected), Some(found)) if expected != found => {
            Err(format!("its ID is {found}, the image above was made over {expected}"))
        }
        _ => Ok(()),
    }
}

fn fits_content(reference: &Reference, below: &Layer) -> Result<(), String> {
    match (reference.content_id, below.image.info().content_id) {
        (Some(expected), Some(found)) if expected != found => {
            Err(format!("its content ID is {found}, the image above was made for {expected}"))
        }
        _ => Ok(()),
    }
}

/// What a check says of an image below that was not opened. It is missed where it is named, and a
/// number is kept of what it holds: then that could not be checked.
fn finding_below(reference: &Reference, error: &Error) -> Finding {
    finding_of_loop(error).unwrap_or_else(|| {
        let is_missed = reference.content_id.is_some() && reference.nameless().is_none();
        let severity = if is_missed { Severity::Unreadable } else { Severity::Note };
        let text = format!("the image below was not looked at: {error}");
        Finding::new(severity, "parent-unreadable", HostOffset::ZERO, text)
    })
}

fn finding_of_loop(error: &Error) -> Option<Finding> {
    let Error::Loop(name) = error.kind() else { return None };
    let text = format!("the chain of backing files comes back to {name}");
    Some(Finding::new(Severity::Corruption, "backing-loop", HostOffset::ZERO, text))
}
