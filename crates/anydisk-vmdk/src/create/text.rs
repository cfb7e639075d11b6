//! The text of a new descriptor.

use anydisk_core::{Id, Location, Reference, Result};

use super::DESCRIPTOR_SECTORS;
use super::options::Subformat;
use super::plan::Plan;
use crate::NAME;
use crate::content_id::random;
use crate::descriptor::NO_PARENT;
use crate::header::{limit, unsupported};
use crate::layout::SECTOR;

impl Plan<'_> {
    /// The text of the descriptor of a disk of these extents, by name; padded to the room it has
    /// where it is embedded.
    ///
    /// # Errors
    /// `Unsupported` for a parent without a content ID or with a name that the text cannot
    /// hold, `Limit` for one that is too long.
    pub(crate) fn descriptor(
        &self,
        names: &[Vec<u8>],
        parent: Option<&Reference>,
    ) -> Result<Vec<u8>> {
        let (parent_id, hint) = match parent.map(parent_of).transpose()? {
            Some((None, _)) => {
                return Err(unsupported("a backing file whose content ID is not known"));
            }
            Some((Some(id), name)) => (id, [b"parentFileNameHint=\"", name, b"\"\n"].concat()),
            None => (NO_PARENT, Vec::new()),
        };
        // Deltas may have been made for an older file of this name.
        let id = self.content_id.unwrap_or_else(random);
        // Others take names for what their own machine has, if nothing is said.
        let is_utf_8 = |name: &[u8]| !name.is_ascii() && std::str::from_utf8(name).is_ok();
        let says_so = is_utf_8(&hint) || names.iter().any(|name| is_utf_8(name));
        let encoding = if says_so { "encoding=\"UTF-8\"\n" } else { "" };
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\n{encoding}CID={id:08x}\nparentCID={parent_id:08x}\n\
             createType=\"{}\"\n",
            self.subformat.word()
        )
        .into_bytes();
        text.extend(hint);
        text.extend(b"\n# Extent description\n");
        let (kind, end) = match self.subformat {
            Subformat::Vmfs => ("VMFS", "\"\n"),
            Subformat::VmfsSparse => ("VMFSSPARSE", "\"\n"),
            subformat if subformat.is_flat() => ("FLAT", "\" 0\n"),
            _ => ("SPARSE", "\"\n"),
        };
        for (sectors, name) in self.extents().zip(names) {
            text.extend(format!("RW {sectors} {kind} \"").bytes());
            text.extend(name);
            text.extend(end.bytes());
        }
        text.extend(self.disk_database().bytes());
        if !self.subformat.is_embedded() {
            return Ok(text);
        }
        let room = DESCRIPTOR_SECTORS * SECTOR;
        limit("size of the descriptor in bytes", text.len() as u64, room)?;
        text.resize(usize::try_from(room).expect("a small constant"), 0);
        Ok(text)
    }

    /// Heads, and sectors of a track.
    pub(super) fn geometry(&self) -> (u64, u64) {
        if self.adapter == "ide" { (16, 63) } else { (255, 63) }
    }

    fn disk_database(&self) -> String {
        let (heads, sectors) = self.geometry();
        format!(
            "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"{}\"\n\
             ddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"{sectors}\"\nddb.adapterType = \"{}\"\n\
             ddb.toolsVersion = \"{}\"\n",
            self.hardware,
            self.sectors / (heads * sectors),
            self.adapter,
            self.tools
        )
    }
}

/// The content ID of a parent, if it is known, and its name.
///
/// # Errors
/// `Unsupported` for one with a name that the text cannot hold, or of another format.
pub(crate) fn parent_of(parent: &Reference) -> Result<(Option<u32>, &[u8])> {
    if parent.format.as_deref().is_some_and(|format| format != NAME) {
        return Err(unsupported("a backing file of another format"));
    }
    let id = parent.content_id.and_then(Id::number).filter(|id| *id != NO_PARENT);
    if !fits_in_quotes(&parent.name) {
        let name = parent.display_name();
        return Err(unsupported(format!("the name {name:?} for a backing file")));
    }
    Ok((id, &parent.name))
}

/// The text has no way to write these in a name.
fn fits_in_quotes(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r' | 0))
}

/// The names of the extents of an image at `location`, as qemu forms them. That of an extent which
/// holds the descriptor is not looked for by readers.
///
/// # Errors
/// `Unsupported` for names that the text cannot hold.
pub(crate) fn extent_names(plan: &Plan<'_>, location: &Location) -> Result<Vec<Vec<u8>>> {
    let own = match location {
        Location::Path(path) => path.file_name().map(|name| name.as_encoded_bytes().to_vec()),
        _ => None,
    };
    let own = own.unwrap_or_else(|| b"disk.vmdk".to_vec());
    if plan.subformat.is_embedded() {
        let own = Some(own).filter(|name| fits_in_quotes(name));
        return Ok(vec![own.unwrap_or_else(|| b"disk.vmdk".to_vec())]);
    }
    if !fits_in_quotes(&own) {
        let name = String::from_utf8_lossy(&own).into_owned();
        return Err(unsupported(format!("the name {name:?} for an image of several files")));
    }
    let dot = own.iter().rposition(|byte| *byte == b'.').unwrap_or(own.len());
    let (stem, extension) = own.split_at(dot);
    let letter = if plan.subformat.is_flat() { 'f' } else { 's' };
    let name = |number: u64| {
        let middle = match plan.subformat {
            Subformat::MonolithicFlat | Subformat::Vmfs => "-flat".to_owned(),
            Subformat::VmfsSparse => "-delta".to_owned(),
            _ => format!("-{letter}{number:03}"),
        };
        [stem, middle.as_bytes(), extension].concat()
    };
    Ok((1..=plan.extent_count()).map(name).collect())
}
