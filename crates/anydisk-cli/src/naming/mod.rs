//! How images are named on the command line, and unlocked.
//!
//! ```text
//!   disk.qcow2                                      a file
//!   file:disk.qcow2                                 the same
//!   null-co://                                      no file: zeroes
//!   driver=qcow2,file.filename=disk.qcow2           with --image-opts
//!   json:{"driver": "qcow2", "file": {...}}
//! ```
//!
//! All of them become a [`Node`]: a format and its options, over a file or another node.

mod secret;
mod shown;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anydisk::node::{
    self, Child, Flat, MAX_NAME, NameError, Node, Scalar, driver_named, is_null, null_name,
};
use anydisk::storage::{Storage, name};
use anydisk::{Location, Reference, Secret, path_like_qemu};
use clap::Args;

pub(crate) use secret::{Key, Keys, Objects};
pub(crate) use shown::shown;

use crate::failure::Failure;
use crate::{options, output, stream};

/// How images are named and unlocked, for every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Naming {
    /// A passphrase: secret,id=NAME,file=FILE or ,data=TEXT; options that end in `key-secret` name
    /// it
    #[arg(long, value_name = "OBJECT")]
    object: Vec<ObjectText>,
    /// Names of images are lists of options: driver=qcow2,file.filename=FILE,...
    #[arg(long, alias = "source-image-opts")]
    pub(crate) image_opts: bool,
    /// Names are those that an image may give.
    #[arg(skip)]
    pub(crate) plain: bool,
    /// The secrets, once they were read: a pipe gives them only once.
    #[arg(skip)]
    read: Arc<OnceLock<Objects>>,
    /// What is said of the names was said: they are looked at more than once.
    #[arg(skip)]
    told: Arc<OnceLock<()>>,
    /// Standard input, once it was read: who names it twice means the same bytes.
    #[arg(skip)]
    input: Arc<OnceLock<Arc<dyn Storage>>>,
}

/// What `--object` says. It may hold a passphrase, so it does not show itself.
#[derive(Clone)]
struct ObjectText(OsString);

impl From<OsString> for ObjectText {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl Drop for ObjectText {
    fn drop(&mut self) {
        drop(Secret::new(std::mem::take(&mut self.0).into_encoded_bytes())); // Wipes it.
    }
}

impl fmt::Debug for ObjectText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectText(..)")
    }
}

impl Naming {
    /// The secrets that were given.
    pub(crate) fn objects(&self) -> Result<&Objects, Failure> {
        if let Some(objects) = self.read.get() {
            return Ok(objects);
        }
        let mut objects = Objects::default();
        self.object.iter().try_for_each(|text| objects.add(&text.0))?;
        Ok(self.read.get_or_init(|| objects))
    }

    /// What stands on standard input.
    pub(crate) fn input(&self) -> Result<Arc<dyn Storage>, Failure> {
        if let Some(store) = self.input.get() {
            return Ok(Arc::clone(store));
        }
        let store = stream::spooled_input()?;
        Ok(Arc::clone(self.input.get_or_init(|| store)))
    }

    /// What a name stands for; `format`: instead of the driver that it names.
    pub(crate) fn node(&self, name: &OsStr, format: Option<&str>) -> Result<Node, Failure> {
        let told = |error: NameError| cannot_open(name, &error.to_string());
        if self.plain {
            let node = Node::in_image(name.as_bytes(), format).map_err(told)?;
            return Ok(node.unwrap_or_else(|| Node::file(name.to_owned()).read_as(format)));
        }
        if self.image_opts {
            let node = options_node(name, format);
            if self.told.set(()).is_ok() {
                options::split(name).iter().skip(1).for_each(|item| warn_if_old(item));
            }
            return node;
        }
        if let Some(text) = json_text(name) {
            return Ok(Node::from_json(text).map_err(told)?.read_as(format));
        }
        if let Some(node) = null_node(name, format) {
            return node;
        }
        let (driver, path) = driver_and_path(name);
        Ok(Node::file_of(driver, path).read_as(format))
    }
}

/// The disk without a file that is meant by its name or its format, if one is.
fn null_node(name: &OsStr, format: Option<&str>) -> Option<Result<Node, Failure>> {
    let node = Node::null(name.as_bytes()).filter(|_| !Path::new(name).exists());
    let by_name = protocol(name).filter(|protocol| is_null(protocol));
    let is_free = by_name.is_some() && !Path::new(name).exists();
    match (node, format.filter(|format| is_null(format))) {
        (Some(node), None) => Some(Ok(node.read_as(format))),
        (Some(node), Some(driver)) if driver_named(name.as_bytes()) == Some(driver) => {
            match node.child {
                Child::Node(null) => Some(Ok(*null)),
                Child::File(_) => None,
            }
        }
        (None, None) if !is_free => None,
        (_, driver) => {
            let allowed = null_name(driver.or(by_name).unwrap_or_default());
            let why = format!("The only allowed filename for this driver is '{allowed}'");
            Some(Err(cannot_open(name, &why)))
        }
    }
}

/// What `--image-opts` names.
fn options_node(name: &OsStr, format: Option<&str>) -> Result<Node, Failure> {
    if format.is_some() {
        return Err(Failure::new("--image-opts and --format are mutually exclusive"));
    }
    let mut pairs = options::named_values(name);
    // A word alone at the beginning names the node that is meant.
    let first = name.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    if let Some(pair) = pairs.first_mut().filter(|_| !first.contains(&b'=')) {
        *pair = ("file".into(), OsStr::from_bytes(first).to_owned());
    }
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name.len() > MAX_NAME) {
        return Err(Failure::new(node::too_long(name)));
    }
    let pairs = pairs.into_iter();
    let flat: Flat = pairs.map(|(name, value)| (name, Scalar::Text(value))).collect();
    Node::parse(flat).map_err(|error| cannot_open(name, &error.to_string()))
}

/// qemu-img's words about a flag without a value, and about a name that is none.
fn warn_if_old(item: &OsStr) {
    let words = item.as_bytes();
    if words == b"backing=" || words.ends_with(b".backing=") {
        output::warn("Use of \"backing\": \"\" is deprecated; use \"backing\": null instead");
    }
    if !item.as_bytes().contains(&b'=') {
        let (name, value) = options::named_value(item.as_bytes());
        output::warn(&format!(
            "short-form boolean option '{}' deprecated\nPlease use {name}={} instead",
            name::of(item),
            name::of(&value)
        ));
    }
}

/// The text behind `json:`, unless a file is called so.
fn json_text(name: &OsStr) -> Option<&[u8]> {
    let text = name.as_bytes().strip_prefix(b"json:")?;
    (!Path::new(name).exists()).then_some(text)
}

/// What qemu allows before the name of a file.
const FILES: &[&str] = &["file", "host_device", "host_cdrom"];

/// The name of a file without `file:`, which qemu allows before it, unless a file is called so.
pub(crate) fn without_protocol(name: &OsStr) -> OsString {
    driver_and_path(name).1
}

/// The kind of file, and its name without it.
fn driver_and_path(name: &OsStr) -> (&'static str, OsString) {
    let named = |driver: &&'static str| {
        let rest = name.as_bytes().strip_prefix(driver.as_bytes())?.strip_prefix(b":")?;
        Some((*driver, OsStr::from_bytes(rest).to_owned()))
    };
    match FILES.iter().find_map(named).filter(|_| !Path::new(name).exists()) {
        Some(found) => found,
        None => ("file", name.to_owned()),
    }
}

/// The path of a file that is to be made. What qemu would send elsewhere is not written into a file
/// of that name.
pub(crate) fn new_file(name: &OsStr) -> Result<OsString, Failure> {
    let path = without_protocol(name);
    let protocol = protocol(&path).filter(|_| !Path::new(&path).exists());
    match protocol {
        Some(null) if is_null(null) => {
            Err(Failure::new(format!("Protocol driver '{null}' does not support image creation")))
        }
        Some(protocol) if QEMUS.contains(&protocol) => {
            let name = name::of(&path);
            Err(Failure::new(format!("Unknown protocol '{protocol}'"))
                .with_advice(&hint_for(protocol))
                .with_advice(&format!("A file of this name is ./{name}")))
        }
        _ => Ok(path),
    }
}

/// Protocols of qemu that are none here.
const QEMUS: &[&str] = &[
    "blkdebug",
    "blkverify",
    "fat",
    "ftp",
    "ftps",
    "gluster",
    "gluster+rdma",
    "gluster+tcp",
    "gluster+unix",
    "http",
    "https",
    "iscsi",
    "iser",
    "json",
    "nbd",
    "nbd+unix",
    "nbds",
    "nbds+unix",
    "nfs",
    "nvme",
    "rbd",
    "ssh",
];

/// How to come by an image that a protocol would bring.
fn hint_for(protocol: &str) -> String {
    match protocol {
        "http" | "https" | "ftp" | "ftps" => {
            "Let another program bring it: curl URL | anydisk ... -".into()
        }
        _ if protocol.starts_with("nbd") => {
            "Make it a block device first (nbd-client, qemu-nbd -c), or copy it with nbdcopy."
                .into()
        }
        _ => "Only files and block devices are opened, by their names.".into(),
    }
}

/// What qemu would take for a protocol: a word before the first colon.
pub(crate) fn protocol(path: &OsStr) -> Option<&str> {
    let before = path.as_bytes().split(|byte| *byte == b':').next()?;
    let word = str::from_utf8(before).ok()?;
    let is_word = !word.is_empty()
        && word.len() < path.len()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_word.then_some(word)
}

/// How the image that `reference` names is called, as seen from the one at `from`: the path of a file,
/// or `json:{...}`. No file is looked for under the name of a protocol, even if one is called so: the
/// image would name another thing to qemu.
pub(crate) fn name_below(reference: &Reference, from: &Location) -> Result<OsString, Failure> {
    let name = OsStr::from_bytes(&reference.name);
    match protocol(name) {
        Some(protocol) if !["file", "json"].contains(&protocol) && !is_null(protocol) => {
            Err(unknown_protocol(name, protocol))
        }
        _ => Ok(path_like_qemu(reference, from).into()),
    }
}

/// qemu-img's words.
pub(crate) fn cannot_open(name: &OsStr, why: &str) -> Failure {
    Failure::new(format!("Could not open '{}': {why}", name::of(name)))
}

/// Only files are opened.
pub(crate) fn unknown_protocol(name: &OsStr, protocol: &str) -> Failure {
    cannot_open(name, &format!("Unknown protocol '{protocol}'")).with_advice(&hint_for(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_a_word_before_a_colon() {
        let of = |path: &'static str| protocol(OsStr::new(path));
        assert_eq!(of("nbd://host/x"), Some("nbd"));
        assert_eq!(of("json:{}"), Some("json"));
        assert_eq!(of("./a:b"), None);
        assert_eq!(of("plain"), None);
        assert_eq!(of(":x"), None);
    }

    #[test]
    fn an_object_does_not_show_its_passphrase() {
        let naming =
            Naming { object: vec![ObjectText("secret,data=x".into())], ..Naming::default() };
        assert!(!format!("{naming:?}").contains("data"), "{naming:?}");
    }
}
