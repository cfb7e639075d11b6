//! Committing an overlay: what it holds goes into an image below it.

use anydisk_core::{
    BackingLink, Companions, Disk, Error, Id, Image, Layer, Limits, NoCompanions, Preallocation,
    Reference,
};

use crate::copy::copy_to_disk;
use crate::frozen::Frozen;
use crate::{Report, Result, Settings, Sources, Watch};

/// Writes what the images `above` hold, the top one first, into `base`, on which they lie. A base
/// that is shorter grows; a longer one keeps its size, and its bytes behind the end.
///
/// When it returns the base is durable and holds what the whole chain shows. The images above are
/// not touched, but for the number by which the lowest of them knows the base's content. So a commit
/// that is cut short can be done again: until it is complete they hide what it did. Where the
/// format keeps such a number (VMDK, VDI, VHDX), its link names none
/// while the base changes, so that no moment finds it refused; in the end it names the new one. Other
/// programs may refuse it until then: doing the commit again, or renewing the link (an unsafe rebase
/// onto the same base), makes it right. The top image may be [emptied](empty) afterwards; images
/// between it and the base are not valid any more, though they open.
///
/// # Errors
/// [`ReadOnly`](Error::ReadOnly) if the lowest of the images keeps such a number and is not open for
/// writing, or if a part of the base cannot be written for which they hold other data than it: nothing
/// was changed then. [`Cancelled`](crate::Error::Cancelled) if the watcher stopped it, else
/// the first error met.
///
/// # Panics
/// If there is nothing above the base.
pub fn commit(
    above: &[Layer],
    base: &Disk,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    commit_with(above, base, &NoCompanions, settings, watch)
}

/// As [`commit`], into a base that may get more files when it grows (a split VMDK), which `companions`
/// makes.
///
/// # Errors
/// As [`commit`].
///
/// # Panics
/// As [`commit`].
pub fn commit_with(
    above: &[Layer],
    base: &Disk,
    companions: &dyn Companions,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    let layers = above.iter().chain(base.layers()).cloned().collect();
    let chain = Disk::from_layers(layers, &Limits::default()).unpadded_but_for_last_unit();
    let link = Link::of(above, base)?;
    let frozen = Frozen::of(base);
    frozen.check(&chain, above.len(), base)?;
    link.set(None)?;
    if base.size() < chain.size()
        && let Err(error) = base.resize_with(chain.size(), Preallocation::Off, companions)
    {
        // It holds what it held, so the image above is still the one that was made for it.
        link.set(base.top().info().content_id)?;
        return Err(error.into());
    }
    let settings = Settings { target_is_zero: false, durable: true, ..settings.clone() };
    let report = match frozen.is_empty() {
        true => copy_to_disk(&Sources::one(&chain).above(above.len()), base, &settings, watch)?,
        false => frozen.write_others(&chain, above.len(), base, watch)?,
    };
    link.set(base.top().info().content_id)?;
    Ok(report)
}

/// What the image on the base says of the content that it was made for (VMDK's parentCID), where it
/// says something and is open for writing.
struct Link<'a>(Option<(&'a dyn BackingLink, &'a Reference)>);

impl<'a> Link<'a> {
    fn of(above: &'a [Layer], base: &Disk) -> Result<Self> {
        let Some(lowest) = above.last().filter(|lowest| keeps_number(&*lowest.image, base.top()))
        else {
            return Ok(Self(None));
        };
        let Some(reference) = &lowest.backing else { return Ok(Self(None)) };
        match lowest.image.backing_link() {
            Some(link) => Ok(Self(Some((link, reference)))),
            None => Err(Error::ReadOnly { why: NOT_RENEWED.into() }.into()),
        }
    }

    /// Names a content, or none; durable.
    fn set(&self, content_id: Option<Id>) -> Result<()> {
        match &self.0 {
            Some((link, reference)) => {
                Ok(link.set_backing(Some(&Reference { content_id, ..(*reference).clone() }))?)
            }
            None => Ok(()),
        }
    }
}

const NOT_RENEWED: &str = "the image on the base knows its content by a number, which is to be renewed \
                           when the base changes, and it was opened for reading";

/// Whether an image knows the content of the one below it by a number, so that who [commit]s into that one
/// must have it open for writing.
#[must_use]
pub fn keeps_number(image: &dyn Image, below: &dyn Image) -> bool {
    image.info().content_id.is_some() && below.info().content_id.is_some()
}

/// Whether this image can be [emptied](empty): asked before a [commit] after which it is to be.
///
/// # Errors
/// [`Unsupported`](anydisk_core::Error::Unsupported) where its format, or the image, cannot.
pub fn check_emptying(image: &dyn Image) -> Result<()> {
    match image.backing_link() {
        Some(link) => Ok(link.check_emptying().map_err(|error| by_name(image, error))?),
        None => Err(cannot_empty(image).into()),
    }
}

/// Empties the top image of `disk`, so that it shows the image below everywhere.
///
/// # Errors
/// What [`check_emptying`] says, and nothing changed; those of its files.
pub fn empty(disk: &Disk) -> Result<()> {
    let image = disk.top();
    match image.backing_link() {
        Some(link) => Ok(link.make_empty().map_err(|error| by_name(image, error))?),
        None => Err(cannot_empty(image).into()),
    }
}

fn cannot_empty(image: &dyn Image) -> Error {
    let format = image.info().format;
    Error::Unsupported { format, feature: "emptying an image".into() }
}

/// What a format that knows nothing of emptying says does not name it.
fn by_name(image: &dyn Image, error: Error) -> Error {
    match error {
        Error::Unsupported { format, .. } if format != image.info().format => cannot_empty(image),
        other => other,
    }
}
