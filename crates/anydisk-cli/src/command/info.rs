//! `anydisk info`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anydisk::node::{Child, Node};
use anydisk::storage::name;
use anydisk::{
    Detail, DetailValue, ImageInfo, Layer, Location, MemberFinding, SnapshotInfo, one_line,
    path_like_qemu,
};
use clap::Args;

use super::snapshot;
use crate::args::{Form, Part, Reading};
use crate::failure::{Failure, Outcome};
use crate::naming;
use crate::output;
use crate::output::json::{self, Object, Value};
use crate::output::{findings, human, snapshots};

const EXAMPLES: &str = "\
Examples:
  anydisk info disk.qcow2
  anydisk info --output=json --backing-chain overlay.qcow2
  anydisk info --untrusted upload.img";

/// Bytes in which qemu counts the length of a file.
const SECTOR: u64 = 512;

/// The formats of which qemu-img tells nothing but the size.
const UNASKED: [&str; 4] = ["bochs", "cloop", "dmg", "parallels"];

/// Shows what an image is.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Info {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value = "human")]
    output: Form,
    /// Also show the images below
    #[arg(short, long)]
    backing_chain: bool,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

impl Info {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading = self.reading.of_locked();
        let facts = self.facts()?;
        let text = match (self.output, self.backing_chain) {
            (Form::Human, _) => facts.iter().map(Facts::text).collect::<Vec<_>>().join("\n"),
            (Form::Json, true) => {
                let list = facts.iter().map(|facts| facts.object().into()).collect();
                json::document(&Value::List(list))
            }
            (Form::Json, false) => {
                facts.iter().map(|facts| json::document(&facts.object().into())).collect()
            }
        };
        output::print(&text)?;
        Ok(0)
    }

    /// Of the top image, or of each in the chain.
    fn facts(&self) -> Result<Vec<Facts>, Failure> {
        let format = self.format.as_deref();
        let (None, [file]) = (&self.part.member, &self.files[..]) else {
            let (disk, findings) =
                self.reading.part_with_findings(&self.part, &self.files, format, false)?;
            let mut facts: Vec<Facts> =
                disk.layers().iter().map(Facts::of).collect::<Result<_, _>>()?;
            facts.iter_mut().take(1).for_each(|top| top.package.clone_from(&findings));
            return Ok(facts);
        };
        let node = self.reading.node(file, format)?;
        if !self.backing_chain {
            let top = self.reading.top(file, format)?;
            return Ok(vec![named(&self.reading, file, &top, node)?]);
        }
        let disk = self.reading.disk(file, format, false);
        let disk = disk.map_err(|failure| self.lost_below(file, &node).unwrap_or(failure))?;
        let layers = disk.layers();
        let top =
            named(&self.reading, file, disk.layers().first().expect("a disk has a top"), node);
        let below = layers.iter().zip(&layers[1..]).map(|(above, layer)| {
            let mut facts = named_by(above, layer)?;
            facts.note_found(&self.reading, layer);
            Ok(facts)
        });
        std::iter::once(top).chain(below).collect()
    }
}

impl Info {
    /// Why the first image below that does not open by itself does not, if one does not.
    fn lost_below(&self, file: &OsStr, node: &Node) -> Option<Failure> {
        let mut top = self.reading.top_of(file, node).ok()?;
        let mut node = node.clone();
        // A chain that comes back to itself was told to be one.
        for _ in 0..self.reading.limits().chain {
            let named = top.backing.as_ref().filter(|named| named.nameless().is_none())?;
            let name = path_like_qemu(named, &top.location);
            node = self.reading.node_below(&node, &top).ok()??;
            top = match self.reading.of_names_inside().top_of(name.as_os_str(), &node) {
                Ok(below) => below,
                Err(failure) => return Some(failure),
            };
        }
        None
    }
}

/// Facts of an image that `above` names.
fn named_by(above: &Layer, layer: &Layer) -> Result<Facts, Failure> {
    let mut facts = Facts::of(layer)?;
    let named = above.backing.as_ref();
    let node = named.map(|reference| Node::in_image(&reference.name, reference.format.as_deref()));
    if let Some(Ok(Some(node))) = node {
        let node = node.read_as(Some(facts.image.format));
        facts.name = naming::shown(&node);
        facts.note_null(&node);
    }
    Ok(facts)
}

/// What `info --output=json` says of an image.
pub(crate) fn json(
    reading: &Reading,
    name: &OsStr,
    format: Option<&str>,
) -> Result<String, Failure> {
    let reading = &reading.of_locked();
    let node = reading.node(name, format)?;
    let facts = named(reading, name, &reading.top(name, format)?, node)?;
    Ok(json::document(&facts.object().into()))
}

/// Facts of an image that was named as `name` on the command line, which `node` is.
fn named(reading: &Reading, name: &OsStr, layer: &Layer, node: Node) -> Result<Facts, Failure> {
    let mut facts = Facts::of(layer)?;
    facts.note_found(reading, layer);
    let driver = node.null_driver().map(str::to_owned);
    if node.is_file() {
        (facts.image.format, facts.is_file) = ("file", true);
    }
    let node = node.read_as(driver.as_deref().or(Some(facts.image.format)));
    facts.name = naming::shown(&node);
    facts.note_null(&node);
    if let Child::Node(inner) = node.child
        && !inner.is_file()
    {
        let layer = reading.top_of(name, &inner)?;
        let inner = named(reading, name, &layer, *inner)?;
        // To qemu a raw disk has the units of what it lies in.
        facts.image.cluster_size = facts.image.cluster_size.or(inner.image.cluster_size);
        facts.inner = Some(Box::new(inner));
    }
    Ok(facts)
}

/// What is shown of an image.
struct Facts {
    name: String,
    image: ImageInfo,
    size: u64,
    /// Those it is made of, the last one opened first.
    files: Vec<File>,
    /// The image that it lies in, instead of a file.
    inner: Option<Box<Facts>>,
    /// It is a file, and no image in one.
    is_file: bool,
    /// There is no file at all: the driver of the disk that reads as zeroes.
    null: Option<String>,
    backing: Option<Backing>,
    snapshots: Vec<SnapshotInfo>,
    /// What should be known of the package that it lies in.
    package: Vec<MemberFinding>,
}

/// The file on the host.
struct File {
    /// What the image calls it.
    node: String,
    /// Where it is.
    name: String,
    /// Whole sectors, in bytes.
    length: u64,
    /// Bytes on the medium, where the file system tells.
    used: Option<u64>,
    protocol: String,
    /// There is none.
    is_null: bool,
}

struct Backing {
    name: String,
    path: String,
    format: Option<String>,
}

impl Facts {
    fn of(layer: &Layer) -> Result<Self, Failure> {
        let backing = layer.backing.as_ref().map(|reference| Backing {
            name: reference.display_name(),
            path: name::of(&path_like_qemu(reference, &layer.location)).into_owned(),
            format: reference.format.clone(),
        });
        let image = layer.image.info();
        // What lies in other files has none of its own.
        let files = match &layer.location {
            Location::Path(path) => files(path, &image)?,
            _ => Vec::new(),
        };
        Ok(Self {
            name: layer.location.to_string(),
            size: layer.image.size(),
            image,
            files,
            inner: None,
            is_file: false,
            null: None,
            backing,
            snapshots: snapshot::listed(&*layer.image)?,
            package: Vec::new(),
        })
    }

    /// Notes which file is the one that `layer` names by a number alone.
    fn note_found(&mut self, reading: &Reading, layer: &Layer) {
        if let (Some(backing), Some(path)) = (&mut self.backing, reading.found_below(layer)) {
            backing.path = name::of(&path).into_owned();
        }
    }

    /// Notes that there is no file, if `node` is of none.
    fn note_null(&mut self, node: &Node) {
        let file = match &node.child {
            Child::Node(file) => file,
            Child::File(_) => node,
        };
        let Some(driver) = file.null_driver() else { return };
        self.null = Some(driver.to_owned());
        if !self.is_file {
            self.files = vec![File::null(naming::shown(file), driver, self.size)];
        }
    }

    fn object(&self) -> Object {
        let backing = self.backing.as_ref();
        let image = &self.image;
        Object::default()
            .with("filename", self.name.as_str())
            .with("format", self.format())
            .with("virtual-size", self.size)
            .with_any("actual-size", self.used())
            .with_any("cluster-size", self.cluster_size())
            .with_any("encrypted", image.encrypted.then_some(true))
            .with_any("dirty-flag", self.dirty_flag())
            .with_any("backing-filename", backing.map(|backing| backing.name.as_str()))
            .with_any("full-backing-filename", backing.map(|backing| backing.path.as_str()))
            .with_any("backing-filename-format", backing.and_then(|b| b.format.as_deref()))
            .with_any("snapshots", snapshots::value(&self.snapshots))
            .with_any("format-specific", self.specific())
            .with("children", self.children())
            .with_any(
                "package-findings",
                (!self.package.is_empty()).then(|| findings::of_package(&self.package)),
            )
    }

    fn children(&self) -> Vec<Value> {
        match &self.inner {
            _ if self.is_file => Vec::new(),
            Some(inner) => {
                let child = Object::default().with("name", "file").with("info", inner.object());
                vec![child.into()]
            }
            None => self.files.iter().map(File::value).collect(),
        }
    }

    fn format(&self) -> &str {
        match &self.null {
            Some(driver) if self.is_file => driver,
            _ => self.image.format,
        }
    }

    fn specific(&self) -> Option<Object> {
        if self.is_file && self.null.is_some() {
            return None;
        }
        if self.is_file {
            return Some(File::specific());
        }
        let data = self.data();
        let object = Object::default().with("type", self.image.format);
        (!data.is_empty()).then(|| object.with("data", data))
    }

    /// What only the format has.
    fn data(&self) -> Object {
        match output::is_qemu_img() {
            true => details(&self.image.details),
            false => everything(&self.image),
        }
    }

    /// Whether qemu-img asks the format for more than the size.
    fn is_asked(&self) -> bool {
        !UNASKED.contains(&self.image.format)
    }

    fn cluster_size(&self) -> Option<u64> {
        self.image.cluster_size.filter(|_| self.is_asked() || !output::is_qemu_img())
    }

    fn dirty_flag(&self) -> Option<bool> {
        let is_told = self.null.is_none() && (self.is_asked() || self.image.dirty);
        is_told.then_some(self.image.dirty)
    }

    /// Bytes on the medium of all files, as far as the file systems tell.
    fn used(&self) -> Option<u64> {
        if self.null.is_some() {
            return Some(0);
        }
        let used = self.files.iter().map(|file| file.used).sum();
        if self.files.is_empty() { None } else { used }
    }

    fn text(&self) -> String {
        self.text_below("")
    }

    /// The text, where the node is reached by `path` from the top.
    fn text_below(&self, path: &str) -> String {
        let image = &self.image;
        let mut lines = vec![
            format!("image: {}", self.name),
            format!("file format: {}", self.format()),
            format!("virtual size: {} ({} bytes)", human::size(self.size), self.size),
        ];
        lines.extend(self.used().map(|used| format!("disk size: {}", human::size(used))));
        lines.extend(image.encrypted.then(|| "encrypted: yes".into()));
        lines.extend(self.cluster_size().map(|size| format!("cluster_size: {size}")));
        lines.extend(image.dirty.then(|| "cleanly shut down: no".into()));
        lines.extend(self.backing.iter().flat_map(Backing::lines));
        let mut text = lines.join("\n") + "\n" + &snapshots::table(&self.snapshots);
        let data = self.data();
        if !data.is_empty() {
            text.push_str("Format specific information:\n");
            human::write_object(&mut text, &data, 1);
        }
        text += &self.children_text(path);
        for MemberFinding { path, kind, text: told, .. } in &self.package {
            text += &format!("note: {}: {} [{kind}]\n", one_line(path), one_line(told));
        }
        text
    }

    fn children_text(&self, path: &str) -> String {
        match &self.inner {
            _ if self.is_file => String::new(),
            Some(inner) => {
                let path = format!("{path}/file");
                format!("Child node '{path}':\n{}", indented(&inner.text_below(&path)))
            }
            None => self.files.iter().map(|file| file.text(path)).collect(),
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

impl Backing {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("backing file: {}", self.name)];
        if self.path != self.name {
            lines[0].push_str(&format!(" (actual path: {})", self.path));
        }
        lines.extend(self.format.iter().map(|format| format!("backing file format: {format}")));
        lines
    }
}

/// The files that an image is made of: its own, and its extents that are files of their own.
fn files(path: &Path, image: &ImageInfo) -> Result<Vec<File>, Failure> {
    let own = name::of(path);
    let mut files = vec![File::of(path, "file".into())?];
    for (index, name) in extents(&image.details).into_iter().enumerate() {
        if name != own {
            let path = OsString::from_vec(name::bytes(name).into_owned());
            files.push(File::of(Path::new(&path), format!("extents.{index}"))?);
        }
    }
    files.reverse();
    Ok(files)
}

/// The names of the files in the details of a format that has extents.
fn extents(details: &[Detail]) -> Vec<&str> {
    let list = details.iter().find(|detail| detail.name == "extents").map(|detail| &detail.value);
    let Some(DetailValue::List(extents)) = list else { return Vec::new() };
    extents.iter().filter_map(extent_file).collect()
}

fn extent_file(extent: &DetailValue) -> Option<&str> {
    let DetailValue::Map(members) = extent else { return None };
    members.iter().find_map(file_name)
}

fn file_name(detail: &Detail) -> Option<&str> {
    match &detail.value {
        DetailValue::Text(name) if detail.name == "filename" => Some(name),
        _ => None,
    }
}

impl File {
    fn of(path: &Path, node: String) -> Result<Self, Failure> {
        let name = name::of(path).into_owned();
        let meta =
            fs::metadata(path).map_err(|error| Failure::from(error).about(path.as_os_str()))?;
        let kind = meta.file_type();
        if kind.is_block_device() || kind.is_char_device() {
            let length = if kind.is_block_device() { device_length(path)? } else { 0 };
            return Ok(Self::new(node, name, length, 0, "host_device"));
        }
        let length = meta.len().next_multiple_of(SECTOR);
        Ok(Self::new(node, name, length, meta.blocks() * SECTOR, "file"))
    }

    fn new(node: String, name: String, length: u64, used: u64, protocol: &str) -> Self {
        let protocol = protocol.to_owned();
        Self { node, name, length, used: Some(used), protocol, is_null: false }
    }

    /// In the place of a file.
    fn null(name: String, driver: &str, length: u64) -> Self {
        Self { is_null: true, ..Self::new("file".into(), name, length, 0, driver) }
    }

    fn specific() -> Object {
        Object::default().with("type", "file").with("data", Object::default())
    }

    fn value(&self) -> Value {
        let info = Object::default()
            .with("filename", self.name.as_str())
            .with("format", self.protocol.as_str())
            .with("virtual-size", self.length)
            .with_any("actual-size", self.used)
            .with_any("dirty-flag", (!self.is_null).then_some(false))
            .with_any("format-specific", (!self.is_null).then(Self::specific))
            .with("children", Vec::new());
        Object::default().with("name", self.node.as_str()).with("info", info).into()
    }

    fn text(&self, path: &str) -> String {
        let mut lines = vec![
            format!("Child node '{path}/{}':", self.node),
            format!("    filename: {}", self.name),
            format!("    protocol type: {}", self.protocol),
            format!("    file length: {} ({} bytes)", human::size(self.length), self.length),
        ];
        lines.extend(self.used.map(|used| format!("    disk size: {}", human::size(used))));
        lines.join("\n") + "\n"
    }
}

fn device_length(path: &Path) -> Result<u64, Failure> {
    use std::io::{Seek, SeekFrom};
    Ok(fs::File::open(path)?.seek(SeekFrom::End(0))?)
}

/// What only a format has, also that of which qemu-img shows nothing.
pub(crate) fn everything(image: &ImageInfo) -> Object {
    image.more.iter().fold(details(&image.details), with)
}

/// What only a format has.
fn details(details: &[Detail]) -> Object {
    details.iter().fold(Object::default(), with)
}

fn with(object: Object, detail: &Detail) -> Object {
    object.with(detail.name, value(&detail.value))
}

fn value(detail: &DetailValue) -> Value {
    match detail {
        DetailValue::Flag(flag) => Value::Flag(*flag),
        DetailValue::Number(number) => Value::Number(*number),
        DetailValue::Text(text) => Value::Text(text.clone()),
        DetailValue::List(items) => Value::List(items.iter().map(value).collect()),
        DetailValue::Map(members) => Value::Object(details(members)),
        other => Value::Text(format!("{other:?}")),
    }
}
