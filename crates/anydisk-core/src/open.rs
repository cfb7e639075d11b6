//! Opening a chain: formats, policy, loops and depth in one place.

use std::sync::Arc;

use anydisk_storage::Identity;

use crate::{
    Access, Chosen, Disk, Error, Format, Layer, Limits, Located, Location, NoSecrets, OpenRequest,
    Opened, Reference, Registry, Resolver, Result, Secrets,
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
        let (format, chosen) = match format {
            Some(name) => (self.registry.by_name(name)?, Chosen::Named),
            None => self.registry.probe_store(&*file.store)?,
        };
        let opened = self.open_as(format, &file, access)?;
        let Opened { image, backing, warnings } = opened;
        Ok(Layer { image, location: file.location, chosen, backing, warnings })
    }

    fn open_as(&self, format: &dyn Format, file: &Located, access: Access) -> Result<Opened> {
        let request = OpenRequest {
            store: Arc::clone(&file.store),
            location: &file.location,
            access,
            resolver: self.resolver,
            limits: &self.limits,
            secrets: self.secrets,
        };
        format.open(request).map_err(|error| error.within(&file.location.to_string()))
    }

    /// Opens an image and the whole chain below it. The images below are opened for reading.
    ///
    /// # Errors
    /// As [`open_one`](Self::open_one); [`Error::Denied`] for a reference that the resolver does
    /// not follow; [`Error::Loop`]; [`Error::Limit`] for a chain that is too deep.
    pub fn open(&self, file: Located, format: Option<&str>, access: Access) -> Result<Disk> {
        let mut seen = Vec::new();
        remember(&mut seen, &file)?;
        let mut layers = vec![self.open_one(file, format, access)?];
        while let Some((reference, from)) = next_reference(&layers) {
            if layers.len() >= self.limits.chain {
                return Err(too_deep(layers.len(), &self.limits).within(&from.to_string()));
            }
            let found = self.resolver.resolve(&reference, &from, Access::Read);
            let file = found.map_err(|error| error.within(&from.to_string()))?;
            remember(&mut seen, &file)?;
            let layer = self.open_one(file, reference.format.as_deref(), Access::Read)?;
            check_content(&reference, &layer, &from)?;
            layers.push(layer);
        }
        Ok(Disk::from_layers(layers, &self.limits))
    }
}

fn next_reference(layers: &[Layer]) -> Option<(Reference, Location)> {
    let lowest = layers.last()?;
    Some((lowest.backing.clone()?, lowest.location.clone()))
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

/// A parent that is another image, or was written since the child was made, does not fit it.
fn check_content(reference: &Reference, below: &Layer, from: &Location) -> Result<()> {
    let info = below.image.info();
    let refuse = |why: String| Err(reference.denied(why).within(&from.to_string()));
    if let (Some(expected), Some(found)) = (reference.id, info.id)
        && expected != found
    {
        return refuse(format!("its ID is {found}, the image above was made over {expected}"));
    }
    match (reference.content_id, info.content_id) {
        (Some(expected), Some(found)) if expected != found => {
            refuse(format!("its content ID is {found}, the image above was made for {expected}"))
        }
        _ => Ok(()),
    }
}
