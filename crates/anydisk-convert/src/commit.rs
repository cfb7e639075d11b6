//! Committing an overlay: what it holds goes into an image below it.

use anydisk_core::{Disk, Error, Layer, Limits, Preallocation, Reference};

use crate::copy::copy_to_disk;
use crate::{Report, Result, Settings, Sources, Watch};

/// Writes what the images `above` hold, the top one first, into `base`, on which they lie. A base
/// that is shorter grows; a longer one keeps its size, and its bytes behind the end.
///
/// When it returns the base is durable and holds what the whole chain shows. The images above are
/// not touched, but for the number by which the lowest of them knows the base's content. So a commit
/// that is cut short can be done again: until it is complete they hide what it did. Where the
/// format keeps such a number (VMDK, VDI), a power failure can leave the base with a new one that
/// the image above does not know yet: it is refused until its link is renewed (an unsafe rebase
/// onto the same base), and then the commit is done again. The top image may be [emptied](empty)
/// afterwards; images between it and the base are not valid any more.
///
/// # Errors
/// [`Cancelled`](crate::Error::Cancelled) if the watcher stopped it, else the first error met.
///
/// # Panics
/// If there is nothing above the base.
pub fn commit(
    above: &[Layer],
    base: &Disk,
    settings: &Settings,
    watch: &dyn Watch,
) -> Result<Report> {
    let layers = above.iter().chain(base.layers()).cloned().collect();
    let chain = Disk::from_layers(layers, &Limits::default());
    if base.size() < chain.size() {
        base.resize(chain.size(), Preallocation::Off)?;
    }
    let settings = Settings { target_is_zero: false, durable: true, ..settings.clone() };
    let report = copy_to_disk(&Sources::one(&chain).above(above.len()), base, &settings, watch)?;
    relink(above, base)?;
    Ok(report)
}

/// Where the image on the base says which content it was made for (VMDK's parentCID), what was
/// written made that another one: it is told the new one, if it is open for writing.
fn relink(above: &[Layer], base: &Disk) -> Result<()> {
    let Some(lowest) = above.last() else { return Ok(()) };
    let content_id = base.top().info().content_id;
    let backing = lowest.backing.as_ref().filter(|reference| reference.content_id.is_some());
    match (backing, lowest.image.backing_link()) {
        (Some(reference), Some(link)) if reference.content_id != content_id => {
            Ok(link.set_backing(Some(&Reference { content_id, ..reference.clone() }))?)
        }
        _ => Ok(()),
    }
}

/// Empties the top image of `disk`, so that it shows the image below everywhere.
///
/// # Errors
/// [`Unsupported`](anydisk_core::Error::Unsupported) where its format cannot; what it says.
pub fn empty(disk: &Disk) -> Result<()> {
    let format = disk.top().info().format;
    let unsupported = || Error::Unsupported { format, feature: "emptying an image".into() };
    let emptied = match disk.top().backing_link() {
        Some(link) => link.make_empty(),
        None => Err(unsupported()),
    };
    Ok(emptied.map_err(|error| match error {
        Error::Unsupported { .. } => unsupported(),
        other => other,
    })?)
}
