//! The opening policies: which files named inside an image are opened, and where they are sought.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_core::{
    Access, Error, Located, Location, Reference, Resolver, Result, Role, Said, Storage,
};
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions, Scratch};

use crate::node::{NameError, Node};
use crate::{by_id, file};

/// Opens plain file names in the folder of the image that names them; nothing else. Symbolic links
/// are not followed, devices and pipes are not opened. An image that is named by number alone (a
/// VDI's parent) is looked for in that folder.
#[derive(Clone, Debug, Default)]
pub struct SameFolder {
    open: OpenOptions,
}

/// Opens only the files that the caller listed, wherever they are. A name inside an image is looked
/// up by its last component, an image that is named by number alone by that number.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    files: Vec<PathBuf>,
    open: OpenOptions,
}

/// Opens what the image names, as qemu-img does: relative names in the folder of the image,
/// absolute names anywhere. An image that is named by number alone, which qemu does not know, is
/// looked for in the folder, and from VirtualBox's folder `Snapshots` in the one above too.
///
/// Of the names `json:{...}` those of images below are opened that name an image in a file, or in a
/// part of one (a raw `offset` and `size`), with the names of its passphrases and the image below it;
/// as with qemu such a file is sought from the current folder, not from that of the image.
/// **Only for images that are trusted**: such a name may be any file that
/// this process can read.
#[derive(Clone, Debug, Default)]
pub struct LikeQemu {
    open: OpenOptions,
}

/// Opens what another resolver opens, but no data file: an empty store stands for it.
#[derive(Debug)]
pub(crate) struct WithoutData<'a>(pub(crate) &'a dyn Resolver);

/// Opens what another resolver opens, and these host devices where an image names one of them, by
/// the very name, as a part of itself; a file may stand in the place of a device.
#[derive(Debug)]
pub(crate) struct WithDevices<'a> {
    pub(crate) others: &'a dyn Resolver,
    pub(crate) devices: &'a [PathBuf],
    pub(crate) open: OpenOptions,
}

/// Opens for reading what another resolver opens, and keeps in memory what is written: for trying
/// out what a change to an image would come to. A file that is named again is the same, as changed.
#[derive(Debug)]
pub(crate) struct Trying<'a> {
    others: &'a dyn Resolver,
    /// The image itself, and each file that it named.
    files: Mutex<Vec<Arc<Scratch>>>,
}

impl<'a> Trying<'a> {
    pub(crate) fn new(others: &'a dyn Resolver, image: Arc<Scratch>) -> Self {
        Self { others, files: Mutex::new(vec![image]) }
    }

    /// The file, of which no change reaches the medium.
    fn kept(&self, mut file: Located) -> Result<Located> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let id = file.store.identity();
        let same = files.iter().find(|known| id.is_some() && known.identity() == id);
        let store = match (same, files.first()) {
            (Some(same), _) => Arc::clone(same),
            (None, Some(image)) => Arc::new(image.beside(file.store)?),
            (None, None) => return Ok(file),
        };
        if same.is_none() {
            files.push(Arc::clone(&store));
        }
        file.store = store;
        Ok(file)
    }
}

impl Resolver for Trying<'_> {
    fn resolve(&self, reference: &Reference, from: &Location, _: Access) -> Result<Located> {
        self.kept(self.others.resolve(reference, from, Access::Read)?)
    }

    fn others(&self) -> Option<&dyn Resolver> {
        Some(self.others)
    }

    fn header_of(&self, image: &Location) -> Result<Option<Located>> {
        self.others.header_of(image)?.map(|header| self.kept(header)).transpose()
    }
}

/// Opens what another resolver opens, and knows the header of one image that lies apart from it, or
/// what takes the place of its data file.
#[derive(Debug)]
pub(crate) struct WithParts<'a> {
    pub(crate) others: &'a dyn Resolver,
    /// Where the image is, and its header.
    pub(crate) header: Option<&'a (Location, Located)>,
    /// Where the image is, and its data.
    pub(crate) data_file: Option<&'a (Location, Located)>,
}

impl Resolver for WithDevices<'_> {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        let name = Path::new(OsStr::from_bytes(&reference.name));
        let may_be_device = matches!(reference.role, Role::Device | Role::Extent);
        match self.devices.iter().find(|device| may_be_device && *device == name) {
            Some(path) => {
                let options = file::with_access(&self.open, access).block_devices(true);
                Ok(located(FileStorage::open(path, &options)?, path.clone()))
            }
            None => self.others.resolve(reference, from, access),
        }
    }

    fn others(&self) -> Option<&dyn Resolver> {
        Some(self.others)
    }
}

impl Resolver for WithoutData<'_> {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        if reference.role != Role::DataFile {
            return self.0.resolve(reference, from, access);
        }
        let location = Location::Other(reference.display_name());
        Ok(Located { store: Arc::new(MemoryStorage::default()), location })
    }

    fn others(&self) -> Option<&dyn Resolver> {
        Some(self.0)
    }
}

impl Resolver for WithParts<'_> {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        match self.data_file.filter(|(of, _)| of == from) {
            Some((_, data)) if reference.role == Role::DataFile => Ok(data.clone()),
            _ => self.others.resolve(reference, from, access),
        }
    }

    fn others(&self) -> Option<&dyn Resolver> {
        Some(self.others)
    }

    fn header_of(&self, image: &Location) -> Result<Option<Located>> {
        Ok(self.header.filter(|(of, _)| of == image).map(|(_, header)| header.clone()))
    }
}

impl SameFolder {
    /// With these options for opening files (locks, direct I/O); no block devices, whatever they
    /// say.
    #[must_use]
    pub fn new(open: OpenOptions) -> Self {
        Self { open: open.block_devices(false) }
    }
}

impl Resolver for SameFolder {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        refuse_device(reference)?;
        let folder = folder_of(reference, from)?;
        let options = file::with_access(&self.open, access);
        let path = match reference.nameless() {
            Some(id) => by_id::find_in(&[folder.to_owned()], id, reference, access)?,
            None => folder.join(plain_name(reference)?),
        };
        let name = path.file_name().unwrap_or_default();
        let store = FileStorage::open_beneath(folder, name, &options)?;
        Ok(located(store, path))
    }
}

impl Listed {
    /// These files and no others.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>, open: OpenOptions) -> Self {
        Self { files: files.into_iter().collect(), open }
    }
}

impl Resolver for Listed {
    fn resolve(&self, reference: &Reference, _: &Location, access: Access) -> Result<Located> {
        let name = OsStr::from_bytes(&reference.name);
        let wanted = Path::new(name).file_name();
        let listed = match reference.nameless() {
            Some(id) => by_id::find_listed(&self.files, id, reference, access)?,
            None => self.files.iter().find(|file| file.file_name() == wanted).cloned(),
        };
        let path =
            &listed.ok_or_else(|| reference.denied("it is not in the list of files given"))?;
        let store = FileStorage::open(path, &file::with_access(&self.open, access))?;
        Ok(located(store, path.clone()))
    }
}

impl LikeQemu {
    /// With these options for opening files (locks, direct I/O).
    #[must_use]
    pub fn new(open: OpenOptions) -> Self {
        Self { open }
    }
}

impl Resolver for LikeQemu {
    fn resolve(&self, reference: &Reference, from: &Location, access: Access) -> Result<Located> {
        refuse_device(reference)?;
        if let Some(id) = reference.nameless() {
            let folders = virtualbox_folders(folder_of(reference, from)?);
            let path = by_id::find_in(&folders, id, reference, access)?;
            let store = FileStorage::open(&path, &file::with_access(&self.open, access))?;
            return Ok(located(store, path));
        }
        if let Some(node) = self.node(reference).map_err(|why| reference.denied(why.to_string()))? {
            return self.open_node(&node, reference, access);
        }
        let name = reference.name.strip_prefix(b"file:").unwrap_or(&reference.name);
        if let Some(protocol) = protocol_of(name) {
            return Err(Error::Protocol { protocol, name: reference.display_name() });
        }
        let name = Path::new(OsStr::from_bytes(name));
        if !name.is_absolute() && from.folder().is_none() {
            return Err(reference.denied("the image that names it is in no folder"));
        }
        let path = beside(from, name);
        let options = file::with_access(&self.open, access);
        // A part of an image that lies on a device is as good as a device: it must be listed.
        let options = match reference.role {
            Role::Extent => options.block_devices(false),
            _ => options,
        };
        Ok(located(FileStorage::open(&path, &options)?, path))
    }

    fn said(&self, reference: &Reference) -> Said {
        match self.node(reference) {
            Ok(Some(node)) => node.said(),
            _ => Said::format(reference.format.clone()),
        }
    }

    fn trusts_bytes(&self) -> bool {
        true
    }
}

impl LikeQemu {
    /// What a name of the form `json:{...}` stands for. The file that holds an image's data has
    /// none, and neither have extents: qemu once took them for such names, and a stranger's image
    /// could open anything.
    fn node(&self, reference: &Reference) -> Result<Option<Node>, NameError> {
        match reference.role {
            Role::Backing => Node::in_image(&reference.name, reference.format.as_deref()),
            _ => Ok(None),
        }
    }

    fn open_node(&self, node: &Node, reference: &Reference, access: Access) -> Result<Located> {
        let told = |error| match error {
            NameError::Storage(error) => error.into(),
            NameError::Unclear(why) => reference.denied(why),
        };
        let file = match node.null_below().map_err(told)? {
            Some(null) => null,
            None => {
                let path = Path::new(node.path());
                let store = FileStorage::open(path, &file::with_access(&self.open, access))?;
                located(store, path.to_owned())
            }
        };
        node.part_of(file).map_err(told)
    }
}

/// A host device is opened only where it was listed, whatever it is called.
fn refuse_device(reference: &Reference) -> Result<()> {
    if reference.role == Role::Device {
        return Err(reference.denied("a host device is opened only where it is listed"));
    }
    Ok(())
}

/// Where qemu-img would look for the file that `reference` names. Opens nothing; of an image that is
/// named by number alone, this is its [name for people](Reference::display_name).
#[must_use]
pub fn path_like_qemu(reference: &Reference, from: &Location) -> PathBuf {
    if reference.nameless().is_some() {
        return PathBuf::from(reference.display_name());
    }
    let name = reference.name.strip_prefix(b"file:").unwrap_or(&reference.name);
    let path = Path::new(OsStr::from_bytes(name));
    if protocol_of(name).is_some() { path.to_owned() } else { beside(from, path) }
}

/// `name` in the folder of the file at `from`, written as the path of that file is: a bare name
/// stays one.
fn beside(from: &Location, name: &Path) -> PathBuf {
    match from {
        Location::Path(path) => path.parent().unwrap_or(Path::new("")).join(name),
        _ => name.to_owned(),
    }
}

fn located(store: FileStorage, path: PathBuf) -> Located {
    Located { store: Arc::new(store) as Arc<dyn Storage>, location: Location::Path(path) }
}

/// Where VirtualBox keeps the parents of an image in `folder`: snapshots lie in a folder of their own
/// below that of the machine.
fn virtualbox_folders(folder: &Path) -> Vec<PathBuf> {
    const SNAPSHOTS: &str = "Snapshots";
    let above = match folder.parent().filter(|_| folder.ends_with(SNAPSHOTS)) {
        Some(above) if above.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(above) => Some(above.to_owned()),
        // It may be reached by another name, as the current folder.
        None => std::fs::canonicalize(folder)
            .is_ok_and(|folder| folder.ends_with(SNAPSHOTS))
            .then(|| folder.join("..")),
    };
    std::iter::once(folder.to_owned()).chain(above).collect()
}

fn folder_of<'a>(reference: &Reference, from: &'a Location) -> Result<&'a Path> {
    from.folder().ok_or_else(|| reference.denied("the image that names it is in no folder"))
}

/// The name, if it is one component and nothing a path parser could take for more.
pub(crate) fn plain_name(reference: &Reference) -> Result<&Path> {
    let bytes = &reference.name;
    let path = Path::new(OsStr::from_bytes(bytes));
    let mut components = path.components();
    let one = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if one
        && !bytes.iter().any(|byte| matches!(byte, 0 | b'/' | b'\\'))
        && protocol_of(bytes).is_none()
    {
        return Ok(path);
    }
    Err(reference.denied("only plain file names in the image's own folder are opened"))
}

/// The protocol before the first colon, as qemu reads it: a name without a slash before the colon.
fn protocol_of(name: &[u8]) -> Option<String> {
    let colon = name.iter().position(|byte| *byte == b':')?;
    let before = &name[..colon];
    let is_word = !before.is_empty()
        && before.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-_.".contains(byte));
    is_word.then(|| String::from_utf8_lossy(before).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anydisk_core::{HostOffset, NoReferences};

    fn refused(name: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let from = Location::Path(folder.path().join("top.qcow2"));
        let reference = Reference::new(Role::Backing, name);
        SameFolder::default().resolve(&reference, &from, Access::Read).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_is_a_path_or_a_protocol_is_not_opened_in_the_same_folder() {
        for name in
            ["/etc/passwd", "../x", "a/b", "..", ".", "", "nbd:localhost", "json:{}", "a\\b", "a\0"]
        {
            let error = refused(name);
            assert!(error.contains("only plain file names"), "{name:?}: {error}");
        }
    }

    #[test]
    fn a_host_device_is_opened_only_where_it_is_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sdx");
        std::fs::write(&path, b"x").expect("a file");
        let from = Location::Path(folder.path().join("disk.vmdk"));
        let device = Reference::new(Role::Device, "sdx");
        for resolver in [&SameFolder::default() as &dyn Resolver, &LikeQemu::default()] {
            let error = resolver.resolve(&device, &from, Access::Read).unwrap_err().to_string();
            assert!(error.starts_with("host device \"sdx\" is named by the image"), "{error}");
        }
        let listed = Listed::new([path], OpenOptions::default());
        assert!(listed.resolve(&device, &from, Access::Read).is_ok());
    }

    #[test]
    fn a_symbolic_link_in_the_same_folder_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("base")).expect("a link");
        let from = Location::Path(folder.path().join("top.qcow2"));
        let reference = Reference::new(Role::Backing, "base");
        assert!(SameFolder::default().resolve(&reference, &from, Access::Read).is_err());
    }

    #[test]
    fn block_devices_are_not_opened_in_the_same_folder_even_if_the_top_image_may_be_one() {
        let resolver = SameFolder::new(OpenOptions::new().block_devices(true));
        // A device cannot be made here without rights, so the options themselves are looked at.
        let expected = SameFolder::default();
        assert_eq!(format!("{resolver:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_file_that_is_not_listed_is_not_opened() {
        let from = Location::Path("top.qcow2".into());
        let listed = Listed::new(["/tmp/base.raw".into()], OpenOptions::default());
        let error = listed
            .resolve(&Reference::new(Role::Backing, "/etc/passwd"), &from, Access::Read)
            .unwrap_err();
        assert!(error.to_string().contains("not in the list"), "{error}");
    }

    #[test]
    fn what_is_tried_reaches_no_header_that_lies_apart() {
        let store = |byte| Arc::new(MemoryStorage::new(vec![byte; 512]));
        let (header, here) = (store(1), Location::Other("image".into()));
        let apart = (here.clone(), Located { store: header.clone(), location: here.clone() });
        let others = WithParts { others: &NoReferences, header: Some(&apart), data_file: None };
        let image = Scratch::over(store(2), 1 << 20).expect("memory");
        let trying = Trying::new(&others, Arc::new(image));
        let found = || trying.header_of(&here).expect("known").expect("apart").store;
        found().write_at(HostOffset::ZERO, &[9]).expect("kept");
        let mut byte = [0];
        found().read_at(HostOffset::ZERO, &mut byte).expect("memory");
        assert_eq!((byte[0], header.to_vec()[0]), (9, 1));
    }
}
