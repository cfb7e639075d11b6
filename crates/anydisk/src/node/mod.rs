//! Names of images that are more than the name of a file, as qemu has them: a format and its
//! options, over a file or another such node.
//!
//! ```text
//!   driver=qcow2,file.filename=disk.qcow2
//!   json:{"driver": "raw", "offset": 65536, "file": {"driver": "file", "filename": "disk"}}
//! ```
//!
//! A [`Node`] opens nothing. What the options of a whole tree of nodes open is up to the program;
//! [`LikeQemu`](crate::LikeQemu) opens the few that an image may [name](Node::in_image) below itself.

mod json;
mod named;
mod null;
mod options;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use anydisk_core::{HostOffset, Located, Location, Storage};
use anydisk_storage::Window;

pub use json::{flat, too_long};
pub use null::{driver_named, is_null, null_name, null_store};

/// Options with their full names: `file.filename`.
pub type Flat = BTreeMap<String, Scalar>;

/// No option has a longer name, in bytes; so nodes are nested so deep at most, and names cost no
/// more.
pub const MAX_NAME: usize = 256;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// JSON's `null`.
    Null,
    /// JSON's `true` or `false`.
    Flag(bool),
    /// A whole number.
    Number(u64),
    /// Text, whatever bytes it has.
    Text(OsString),
}

/// A format and its options, over a file or another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The format, or the kind of file; `None`: the bytes decide.
    pub driver: Option<String>,
    options: Flat,
    /// What it lies in.
    pub child: Child,
    /// What its header lies in, where that lies apart (LUKS).
    pub header: Option<Box<Node>>,
    /// What its data lies in, instead of the data file that it names (qcow2).
    pub data_file: Option<Box<Node>>,
    /// The image below.
    pub backing: Below,
}

/// What a node lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// The file of this name: the node is that file.
    File(OsString),
    /// Another node.
    Node(Box<Node>),
}

/// What is said of the image below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Below {
    /// Nothing: the image itself names it.
    AsNamed,
    /// There is none.
    Nothing,
    /// This one, whatever the image names.
    Node(Box<Node>),
    /// More about the one that the image names.
    Further(Box<Further>),
}

/// What is said of an image beside what it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    driver: Option<String>,
    options: Flat,
    backing: Below,
}

impl Further {
    /// What is said of `node` together.
    ///
    /// # Errors
    /// Options that its format has not.
    pub fn about(self, mut node: Node) -> Result<Node, NameError> {
        node.driver = self.driver.or(node.driver);
        node.options.extend(self.options);
        if self.backing != Below::AsNamed {
            node.backing = self.backing;
        }
        node.check()?;
        Ok(node)
    }
}

/// Why options name nothing, in qemu's words where it has some.
#[derive(Debug)]
pub enum NameError {
    /// Something is missing, not understood, or not taken here.
    Unclear(String),
    /// The store that they name a part of.
    Storage(anydisk_storage::Error),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclear(why) => f.write_str(why),
            Self::Storage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unclear(_) => None,
            Self::Storage(error) => Some(error),
        }
    }
}

impl From<anydisk_storage::Error> for NameError {
    fn from(error: anydisk_storage::Error) -> Self {
        Self::Storage(error)
    }
}

fn unclear(why: impl Into<String>) -> NameError {
    NameError::Unclear(why.into())
}

/// Drivers that are files.
const FILES: &[&str] = &["file", "host_device", "host_cdrom"];

/// Of these, those of devices.
const DEVICES: &[&str] = &["host_device", "host_cdrom"];

impl Node {
    /// The file of this name and what is in it.
    #[must_use]
    pub fn file(name: OsString) -> Self {
        let file = Self::new(Some("file".into()), Child::File(name));
        Self::new(None, Child::Node(Box::new(file)))
    }

    /// The file of this name, as `driver` (one of those that are files), and what is in it.
    #[must_use]
    pub fn file_of(driver: &str, name: OsString) -> Self {
        let file = Self::new(Some(driver.into()), Child::File(name));
        Self::new(None, Child::Node(Box::new(file)))
    }

    /// The disk without a file that has this name (qemu's `null-co://`), read as raw.
    #[must_use]
    pub fn null(name: &[u8]) -> Option<Self> {
        let node = Self::file_of(driver_named(name)?, OsString::from_vec(name.to_owned()));
        Some(node.read_as(Some("raw")))
    }

    fn new(driver: Option<String>, child: Child) -> Self {
        let (options, backing) = (Flat::new(), Below::AsNamed);
        Self { driver, options, child, header: None, data_file: None, backing }
    }

    /// The same with another format, if one is given.
    #[must_use]
    pub fn read_as(mut self, format: Option<&str>) -> Self {
        self.driver = format.map(str::to_owned).or(self.driver);
        self
    }

    /// Puts options in order.
    ///
    /// # Errors
    /// What is missing, or not understood.
    pub fn parse(mut flat: Flat) -> Result<Self, NameError> {
        let driver = text_of(&mut flat, "driver")?;
        let filename = flat.remove("filename");
        let file = below(&mut flat, "file")?;
        let child = match (filename, file) {
            (Some(Scalar::Text(name)), Below::AsNamed) => Child::File(name),
            (None, Below::Node(node)) => Child::Node(node),
            (None, Below::AsNamed) => Child::File(unnamed(driver.as_deref())?),
            (None, _) => return Err(unclear("A block device must be specified for \"file\"")),
            _ => return Err(unclear("filename and file cannot be given together")),
        };
        let backing = below(&mut flat, "backing")?;
        let header = apart(&mut flat, driver.as_deref(), ("luks", "header"))?;
        let data_file = apart(&mut flat, driver.as_deref(), ("qcow2", "data-file"))?;
        let node = Self { driver, options: flat, child, header, data_file, backing };
        node.check()?;
        Ok(node.over_its_file())
    }

    /// A name alone is a file, and what is in it.
    fn over_its_file(self) -> Self {
        if self.is_file() || matches!(self.child, Child::Node(_)) {
            return self;
        }
        let file = Self::new(Some("file".into()), self.child);
        Self { child: Child::Node(Box::new(file)), ..self }
    }

    fn check(&self) -> Result<(), NameError> {
        let driver = self.driver.as_deref();
        if let Some(driver) = self.null_driver()
            && self.path() != &*null_name(driver)
        {
            let name = null_name(driver);
            return Err(unclear(format!("The only allowed filename for this driver is '{name}'")));
        }
        self.options.iter().try_for_each(|(name, value)| options::check(driver, name, value))?;
        let is_native = self.text("aio").is_some_and(|how| how == "native");
        if is_native && !self.flag("cache.direct") {
            return Err(unclear(
                "aio=native was specified, but it requires cache.direct=on, which was not specified.",
            ));
        }
        Ok(())
    }

    /// Whether it is a file, or stands for one, and no format.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| FILES.contains(&driver) || is_null(driver))
    }

    /// Whether it is a device, or else nothing.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| DEVICES.contains(&driver))
    }

    /// Its driver, if it is a disk without a file.
    #[must_use]
    pub fn null_driver(&self) -> Option<&str> {
        self.driver.as_deref().filter(|driver| is_null(driver))
    }

    /// The disk without a file that it is, if it is one: it reads as zeroes and keeps nothing.
    ///
    /// # Errors
    /// A size that is none.
    pub fn as_null(&self) -> Result<Option<Located>, NameError> {
        let Some(driver) = self.null_driver() else { return Ok(None) };
        let store = null_store(self.size("size")?.unwrap_or(null::SIZE));
        Ok(Some(Located { store, location: Location::Other(null_name(driver)) }))
    }

    /// The file that it is in the end.
    #[must_use]
    pub fn path(&self) -> &OsStr {
        match &self.child {
            Child::File(name) => name,
            Child::Node(node) => node.path(),
        }
    }

    /// A number of bytes among the options.
    fn size(&self, name: &str) -> Result<Option<u64>, NameError> {
        let value = self.options.get(name);
        value.map(|value| options::size(name, value)).transpose()
    }

    /// The text of an option.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&OsStr> {
        match self.options.get(name) {
            Some(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether an option is on.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        match self.options.get(name) {
            Some(Scalar::Flag(flag)) => *flag,
            Some(Scalar::Text(text)) => ["on", "yes", "true", "y"].iter().any(|yes| text == yes),
            _ => false,
        }
    }

    /// The options that name secrets, and what they name.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.options.iter().filter_map(|(name, value)| match value {
            Scalar::Text(id) if name.ends_with("key-secret") => Some((&**name, &**id)),
            _ => None,
        })
    }

    /// Options that change what is read.
    pub fn strong_options(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        let driver = self.driver.as_deref();
        let options = self.options.iter().map(|(name, value)| (&**name, value));
        options.filter(move |(name, _)| options::is_strong(driver, name))
    }

    /// The part of `located` that the options of a raw image name.
    ///
    /// # Errors
    /// A part that is not there.
    pub fn window(&self, located: Located) -> Result<Located, NameError> {
        if self.is_file() {
            return Ok(located);
        }
        let (start, len) = (self.size("offset")?, self.size("size")?);
        if start.is_none() && len.is_none() {
            return Ok(located);
        }
        let (start, Located { store, location }) = (start.unwrap_or(0), located);
        let end = store.len()?;
        let Some(rest) = end.checked_sub(start) else {
            return Err(unclear(format!(
                "Offset ({start}) cannot be greater than size of the containing file ({end})"
            )));
        };
        let Some(len) = len else {
            let store: Arc<dyn Storage> = Arc::new(Window::growing(store, HostOffset(start)));
            return Ok(Located { store, location });
        };
        if len > rest {
            return Err(unclear(format!(
                "The sum of offset ({start}) and size ({len}) has to be smaller or equal to the  \
                 actual size of the containing file ({end})"
            )));
        }
        if len % 512 != 0 {
            return Err(unclear("Specified size is not multiple of 512"));
        }
        let window = Window::new(store, HostOffset(start), len)?;
        Ok(Located { store: Arc::new(window), location })
    }
}

/// The name of what has neither a name nor a node that it lies in.
fn unnamed(driver: Option<&str>) -> Result<OsString, NameError> {
    match driver {
        Some(driver) if is_null(driver) => Ok(null_name(driver).into()),
        Some(driver) if FILES.contains(&driver) => {
            Err(unclear(format!("The '{driver}' block driver requires a file name")))
        }
        Some(driver) if crate::formats().by_name(driver).is_err() => {
            Err(unclear(format!("Unknown driver '{driver}'")))
        }
        Some(_) => Err(unclear("A block device must be specified for \"file\"")),
        None => Err(unclear("Must specify either driver or file")),
    }
}

fn text_of(flat: &mut Flat, name: &str) -> Result<Option<String>, NameError> {
    match flat.remove(name) {
        None => Ok(None),
        Some(Scalar::Text(text)) => {
            text.into_string().map(Some).map_err(|_| unclear(format!("{name} is not UTF-8")))
        }
        Some(_) => Err(unclear(format!("Invalid parameter type for '{name}', expected: string"))),
    }
}

/// What is said of a node below: its options, none, or nothing.
fn below(flat: &mut Flat, name: &str) -> Result<Below, NameError> {
    match flat.remove(name) {
        Some(Scalar::Null) => return Ok(Below::Nothing),
        Some(Scalar::Text(text)) if text.is_empty() => return Ok(Below::Nothing),
        Some(Scalar::Text(text)) => {
            let text = text.display();
            return Err(unclear(format!("Cannot find device='{text}' nor node-name='{text}'")));
        }
        Some(_) => return Err(unclear(format!("Invalid parameter type for '{name}'"))),
        None => {}
    }
    let prefix = format!("{name}.");
    let mut own = Flat::new();
    flat.retain(|key, value| match key.strip_prefix(&prefix) {
        Some(rest) => {
            own.insert(rest.to_owned(), value.clone());
            false
        }
        None => true,
    });
    if own.is_empty() {
        return Ok(Below::AsNamed);
    }
    let is_in = |key: &String| key == "filename" || key == "file" || key.starts_with("file.");
    if name == "backing" && !own.keys().any(is_in) {
        let (driver, backing) = (text_of(&mut own, "driver")?, below(&mut own, "backing")?);
        return Ok(Below::Further(Box::new(Further { driver, options: own, backing })));
    }
    // A file needs no driver to be one.
    if name != "backing" && !own.contains_key("driver") && own.contains_key("filename") {
        own.insert("driver".into(), Scalar::Text("file".into()));
    }
    Ok(Below::Node(Box::new(Node::parse(own)?)))
}

/// What a part lies in that may lie apart in images of one format.
fn apart(
    flat: &mut Flat,
    driver: Option<&str>,
    (format, name): (&str, &str),
) -> Result<Option<Box<Node>>, NameError> {
    if driver != Some(format) {
        return Ok(None); // Whatever is said of it is told as unknown.
    }
    Ok(match below(flat, name)? {
        Below::Node(node) => Some(node),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(list: &str) -> Result<Node, String> {
        let pairs = list.split(',').map(|item| item.split_once('=').unwrap());
        let flat = pairs.map(|(name, value)| (name.to_owned(), Scalar::Text(value.into())));
        Node::parse(flat.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_options_of_a_file_say_what_its_name_says() {
        let named = Node::file("a".into());
        assert_eq!(node("file.filename=a").unwrap(), named);
        assert_eq!(node("file.driver=file,file.filename=a").unwrap(), named);
        assert_eq!(node("filename=a").unwrap(), named);
        assert_eq!(node("driver=qcow2,file.filename=a").unwrap(), named.read_as(Some("qcow2")));
    }

    #[test]
    fn what_a_node_lies_in_may_be_a_node() {
        let node =
            node("driver=qcow2,file.driver=raw,file.offset=1k,file.file.filename=a").unwrap();
        let Child::Node(raw) = &node.child else { panic!("{node:?}") };
        assert_eq!(raw.size("offset").unwrap(), Some(1024));
        assert_eq!(node.path(), "a");
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        let error = |list| node(list).unwrap_err();
        assert_eq!(error("driver=qcow2"), "A block device must be specified for \"file\"");
        assert_eq!(error("driver=qcow2,file=a"), "Cannot find device='a' nor node-name='a'");
        assert_eq!(
            error("driver=qcow2,file.filename=a,foo=1"),
            "Block format 'qcow2' does not support the option 'foo'"
        );
        assert!(error("driver=raw,filename=a,file.filename=b").contains("together"));
    }

    #[test]
    fn the_image_below_may_be_named_or_denied() {
        let backing = |list| node(list).unwrap().backing;
        assert_eq!(backing("file.filename=a"), Below::AsNamed);
        assert_eq!(backing("file.filename=a,backing="), Below::Nothing);
        let below = Node::file("b".into()).read_as(Some("raw"));
        assert_eq!(
            backing("file.filename=a,backing.driver=raw,backing.file.filename=b"),
            Below::Node(Box::new(below))
        );
    }

    #[test]
    fn secrets_are_named_by_options() {
        let node = node("driver=luks,key-secret=s,file.filename=a").unwrap();
        assert_eq!(node.secrets().collect::<Vec<_>>(), [("key-secret", OsStr::new("s"))]);
    }
}
