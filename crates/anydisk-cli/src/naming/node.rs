//! What a name stands for: a format and its options, over a file or another such node.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::output::json::{Object, Value};

/// Options with their full names: `file.filename`.
pub(crate) type Flat = BTreeMap<String, Scalar>;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Flag(bool),
    Number(u64),
    Text(OsString),
}

/// A format and its options, over a file or another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The format, or the kind of file; `None`: the bytes decide.
    pub(crate) driver: Option<String>,
    options: Flat,
    /// What it lies in.
    pub(crate) child: Child,
    /// The image below.
    pub(crate) backing: Below,
}

/// What a node lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    /// The file of this name: the node is that file.
    File(OsString),
    Node(Box<Node>),
}

/// What is said of the image below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Nothing: the image itself names it.
    AsNamed,
    /// There is none.
    Nothing,
    Node(Box<Node>),
}

/// Drivers that are files.
const FILES: &[&str] = &["file", "host_device", "host_cdrom"];

/// Options of qemu that change neither what is read nor whether it is safe: how it caches, which
/// system calls it uses.
const WITHOUT_MEANING: &[&str] = &[
    "aio",
    "aio-max-batch",
    "auto-read-only",
    "cache-clean-interval",
    "cache-size",
    "cache.no-flush",
    "discard",
    "discard-no-unref",
    "drop-cache",
    "l2-cache-entry-size",
    "l2-cache-size",
    "lazy-refcounts",
    "locking",
    "node-name",
    "pass-discard-other",
    "pass-discard-request",
    "pass-discard-snapshot",
    "refcount-cache-size",
];

/// Options that have one.
const WITH_MEANING: &[&str] = &["cache.direct", "force-share", "read-only"];

/// Those of a format.
fn options_of(driver: Option<&str>) -> &'static [&'static str] {
    match driver {
        Some("raw") => &["offset", "size"],
        Some("luks") => &["key-secret"],
        Some("qcow" | "qcow2") => &["encrypt.format", "encrypt.key-secret"],
        _ => &[],
    }
}

impl Node {
    /// The file of this name and what is in it.
    pub(crate) fn file(name: OsString) -> Self {
        let file = Self::new(Some("file".into()), Child::File(name));
        Self::new(None, Child::Node(Box::new(file)))
    }

    fn new(driver: Option<String>, child: Child) -> Self {
        Self { driver, options: Flat::new(), child, backing: Below::AsNamed }
    }

    /// The same with another format, if one is given.
    pub(crate) fn read_as(mut self, format: Option<&str>) -> Self {
        self.driver = format.map(str::to_owned).or(self.driver);
        self
    }

    /// Puts options in order.
    ///
    /// # Errors
    /// What is missing, or not understood.
    pub(crate) fn parse(mut flat: Flat) -> Result<Self, String> {
        let driver = text_of(&mut flat, "driver")?;
        let filename = flat.remove("filename");
        let file = below(&mut flat, "file")?;
        let child = match (filename, file) {
            (Some(Scalar::Text(name)), Below::AsNamed) => Child::File(name),
            (None, Below::Node(node)) => Child::Node(node),
            (None, _) => return Err("A block device must be specified for \"file\"".into()),
            _ => return Err("filename and file cannot be given together".into()),
        };
        let backing = below(&mut flat, "backing")?;
        let node = Self { driver, options: flat, child, backing };
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

    fn check(&self) -> Result<(), String> {
        let driver = self.driver.as_deref();
        let known = |name: &str| {
            WITHOUT_MEANING.contains(&name)
                || WITH_MEANING.contains(&name)
                || name.starts_with("overlap-check")
                || options_of(driver).contains(&name)
        };
        match self.options.keys().find(|name| !known(name)) {
            Some(name) => Err(format!(
                "Block format '{}' does not support the option '{name}'",
                driver.unwrap_or("raw")
            )),
            None => Ok(()),
        }
    }

    /// Whether it is a file, and no format.
    pub(crate) fn is_file(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| FILES.contains(&driver))
    }

    /// The file that it is in the end.
    pub(crate) fn path(&self) -> &OsStr {
        match &self.child {
            Child::File(name) => name,
            Child::Node(node) => node.path(),
        }
    }

    /// A number of bytes among the options.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, String> {
        let number = match self.options.get(name) {
            None => return Ok(None),
            Some(Scalar::Number(number)) => Some(*number),
            Some(Scalar::Text(text)) => text.to_str().and_then(anydisk::parse_size),
            Some(_) => None,
        };
        number
            .map(Some)
            .ok_or_else(|| format!("Parameter '{name}' expects a non-negative number below 2^64"))
    }

    /// Whether an option is on.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.options.get(name) {
            Some(Scalar::Flag(flag)) => *flag,
            Some(Scalar::Text(text)) => text == "on" || text == "yes" || text == "true",
            _ => false,
        }
    }

    /// The options that name secrets, and what they name.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.options.iter().filter_map(|(name, value)| match value {
            Scalar::Text(id) if name.ends_with("key-secret") => Some((&**name, &**id)),
            _ => None,
        })
    }

    /// The name as qemu-img shows it: that of the file where it says all, else `json:{...}`.
    pub(crate) fn shown(&self) -> String {
        match self.is_plain() {
            true => {
                let path = self.path();
                let before = if super::protocol(path).is_some() { "./" } else { "" };
                format!("{before}{}", path.to_string_lossy())
            }
            false => format!("json:{}", Value::Object(self.object()).in_one_line()),
        }
    }

    /// Whether the name of the file says all but the format.
    fn is_plain(&self) -> bool {
        let over_file = match &self.child {
            Child::File(_) => true,
            Child::Node(node) => node.is_file(),
        };
        over_file && self.strong().next().is_none()
    }

    /// Options that change what is read.
    fn strong(&self) -> impl Iterator<Item = (&String, &Scalar)> {
        let own = options_of(self.driver.as_deref());
        self.options.iter().filter(|(name, _)| own.contains(&&***name))
    }

    fn object(&self) -> Object {
        let mut object = Object::default();
        for (name, value) in self.strong() {
            object = object.with(name.clone(), value.shown());
        }
        object = object.with_any("driver", self.driver.as_deref());
        match &self.child {
            Child::File(name) => object.with("filename", name.to_string_lossy().into_owned()),
            Child::Node(node) => object.with("file", node.object()),
        }
    }
}

impl Scalar {
    fn shown(&self) -> Value {
        match self {
            Self::Null => Value::from("null"),
            Self::Flag(flag) => Value::Flag(*flag),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text.to_string_lossy().into_owned()),
        }
    }
}

fn text_of(flat: &mut Flat, name: &str) -> Result<Option<String>, String> {
    match flat.remove(name) {
        None => Ok(None),
        Some(Scalar::Text(text)) => {
            text.into_string().map(Some).map_err(|_| format!("{name} is not UTF-8"))
        }
        Some(_) => Err(format!("Invalid parameter type for '{name}', expected: string")),
    }
}

/// What is said of a node below: its options, none, or nothing.
fn below(flat: &mut Flat, name: &str) -> Result<Below, String> {
    match flat.remove(name) {
        Some(Scalar::Null) => return Ok(Below::Nothing),
        Some(Scalar::Text(text)) if text.is_empty() => return Ok(Below::Nothing),
        Some(Scalar::Text(text)) => {
            let text = text.display();
            return Err(format!("Cannot find device='{text}' nor node-name='{text}'"));
        }
        Some(_) => return Err(format!("Invalid parameter type for '{name}'")),
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
    // A file needs no driver to be one.
    if name == "file" && !own.contains_key("driver") && own.contains_key("filename") {
        own.insert("driver".into(), Scalar::Text("file".into()));
    }
    Ok(Below::Node(Box::new(Node::parse(own)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(list: &str) -> Result<Node, String> {
        let pairs = list.split(',').map(|item| item.split_once('=').unwrap());
        let flat = pairs.map(|(name, value)| (name.to_owned(), Scalar::Text(value.into())));
        Node::parse(flat.collect())
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
        assert_eq!(raw.size("offset"), Ok(Some(1024)));
        assert_eq!(node.path(), "a");
        assert_eq!(
            node.shown(),
            "json:{\"driver\": \"qcow2\", \"file\": {\"offset\": \"1k\", \"driver\": \"raw\", \
             \"file\": {\"driver\": \"file\", \"filename\": \"a\"}}}"
        );
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
