//! What stands for files that cannot be had, where a disk is to be salvaged.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use anydisk_storage::{Error as StorageError, HostOffset, Result as StorageResult, Storage};

use crate::{
    Access, Error, Extent, GuestRange, Image, ImageInfo, Layer, Located, Location, Lookup, Need,
    OpenRequest, Reference, Resolver, Result, Source, Supplied,
};

/// Stands for a file that cannot be had: no byte of it can be read, and every attempt says why. The
/// kind of that error is [`NotFound`](ErrorKind::NotFound), which reading a file never answers.
///
/// It has no end, so that nothing is taken for a file that was cut off.
#[derive(Debug)]
pub struct MissingStorage {
    name: String,
    why: String,
}

impl MissingStorage {
    /// In the place of the file of this name, which `why` keeps from being opened.
    #[must_use]
    pub fn new(name: String, why: &Error) -> Self {
        match why.kind() {
            Error::Storage(StorageError::Io(io)) => {
                Self { name: io.store.to_string(), why: io.source.to_string() }
            }
            other => Self { name, why: other.to_string() },
        }
    }

    #[cold]
    fn refusal(&self, operation: &'static str) -> StorageError {
        let why = io::Error::new(ErrorKind::NotFound, self.why.clone());
        StorageError::whole(operation, self.name.as_str(), why)
    }
}

impl Storage for MissingStorage {
    fn len(&self) -> StorageResult<u64> {
        Ok(i64::MAX.unsigned_abs())
    }

    fn read_at(&self, _: HostOffset, _: &mut [u8]) -> StorageResult<usize> {
        Err(self.refusal("open"))
    }

    fn write_at(&self, _: HostOffset, _: &[u8]) -> StorageResult<()> {
        Err(self.refusal("write"))
    }

    fn set_len(&self, _: u64) -> StorageResult<()> {
        Err(self.refusal("resize"))
    }

    fn flush(&self) -> StorageResult<()> {
        Ok(())
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// In the place of an image below that cannot be had. Nothing is known of it, so all of the disk
/// above is taken to show it.
#[derive(Debug)]
struct MissingImage {
    size: u64,
    store: Arc<dyn Storage>,
}

impl Image for MissingImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn map_cached(&self, range: GuestRange) -> Result<Lookup<'_>> {
        let at = HostOffset(range.start().get());
        let source = Source::Data { store: &self.store, at, shared: false };
        Ok(Lookup::Found(Extent::without_data(range.len(), source)))
    }

    fn supply(&self, _: &Need<'_>, _: &[u8]) -> Result<Supplied> {
        Ok(Supplied::Taken) // It asks for nothing.
    }

    fn info(&self) -> ImageInfo {
        ImageInfo::new("missing")
    }
}

impl OpenRequest<'_> {
    /// The file of the first of `names` that can be had: a part of the image itself, with the other
    /// names that it may have. Where loss is [borne](Resolver::bears_loss), a
    /// [store that cannot be read](MissingStorage) stands for one that cannot.
    ///
    /// # Errors
    /// What the resolver says of the first name.
    pub fn part(
        &self,
        names: impl IntoIterator<Item = Reference>,
        access: Access,
    ) -> Result<Located> {
        let mut first = None;
        for name in names {
            match self.resolver.resolve(&name, self.location, access) {
                Ok(located) => return Ok(located),
                Err(why) => first = first.or(Some((name, why))),
            }
        }
        let (name, why) = first.expect("a file has a name");
        if !self.resolver.bears_loss() {
            return Err(why);
        }
        let name = name.display_name();
        let store = Arc::new(MissingStorage::new(name.clone(), &why));
        Ok(Located { store, location: Location::Other(name) })
    }
}

impl Layer {
    /// Stands for the image that `above` names below itself, and that `why` keeps from being opened:
    /// reading it fails.
    #[must_use]
    pub fn missing_below(above: &Self, why: &Error) -> Self {
        let name = above.backing.as_ref().map(Reference::display_name).unwrap_or_default();
        let store = Arc::new(MissingStorage::new(name.clone(), why));
        Self::new(Arc::new(MissingImage { size: above.image.size(), store }), &name)
    }
}

/// Opens what another resolver opens, for those who want an image of which parts cannot be had:
/// reading these fails then.
#[derive(Debug)]
pub struct BearingLoss<'a>(pub &'a dyn Resolver);

impl Resolver for BearingLoss<'_> {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        self.0.resolve(reference, from, access)
    }

    fn others(&self) -> Option<&dyn Resolver> {
        Some(self.0)
    }

    fn bears_loss(&self) -> bool {
        true
    }
}
