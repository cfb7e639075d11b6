//! The image below: another name for it, or nothing kept above it.

use anydisk_core::{BackingLink, Error, Reference, Result};

use crate::extensions::Extension;
use crate::layout::extension;
use crate::write::WritableImage;
use crate::{Header, NAME, limits};

impl BackingLink for WritableImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        let _turn = self.turns.take();
        // What was copied so that the link can change is on the medium before it does.
        self.write_back()?;
        self.live.rewrite(|header| name_below(header, backing))
    }

    fn check_emptying(&self) -> Result<()> {
        Ok(())
    }

    fn forget_everything(&self) -> Result<()> {
        let _turn = self.turns.take();
        self.drop_behind(0, self.shared.size())?;
        self.write_back()
    }
}

/// Makes the header name `backing` (qcow2, "Backing file name", "Header extensions").
fn name_below(header: &mut Header, backing: Option<&Reference>) -> Result<()> {
    let name = backing.map(|backing| backing.name.clone()).filter(|name| !name.is_empty());
    let format = backing.and_then(|backing| backing.format.clone());
    check("backing file name, in bytes", name.as_ref().map_or(0, Vec::len), limits::BACKING_NAME)?;
    let length = format.as_ref().map_or(0, String::len);
    check("backing format name, in bytes", length, limits::BACKING_FORMAT as u64)?;
    if name.as_ref().is_some_and(|name| name.contains(&0)) {
        let feature = "a backing file name with a zero byte".into();
        return Err(Error::Unsupported { format: NAME, feature });
    }
    let place = header.extensions.iter().position(|one| one.kind == extension::BACKING_FORMAT);
    header.extensions.retain(|one| one.kind != extension::BACKING_FORMAT);
    if let Some(format) = format.filter(|_| name.is_some()) {
        let new = Extension { kind: extension::BACKING_FORMAT, data: format.into_bytes() };
        header.extensions.insert(place.unwrap_or(0), new);
    }
    header.backing_file = name;
    Ok(())
}

fn check(what: &'static str, found: usize, limit: u64) -> Result<()> {
    if found as u64 <= limit {
        return Ok(());
    }
    Err(Error::Limit { format: NAME, what: what.into(), found: found as u64, limit })
}
