//! `anydisk info`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anydisk::{Detail, DetailValue, Layer, Location, path_like_qemu};
use clap::Args;

use crate::args::{Form, NotDone, Reading};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output::human;
use crate::output::json::{self, Object, Value};

const EXAMPLES: &str = "\
Examples:
  anydisk info disk.qcow2
  anydisk info --output=json --backing-chain overlay.qcow2
  anydisk info --untrusted upload.img";

/// Bytes in which qemu counts the length of a file.
const SECTOR: u64 = 512;

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
    #[arg(long)]
    backing_chain: bool,
    /// The image
    file: OsString,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    not_done: NotDone,
}

impl Info {
    pub(crate) fn run(self) -> Outcome {
        self.not_done.refuse()?;
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
        if !self.backing_chain {
            return Ok(vec![Facts::of(&self.reading.top(&self.file, format)?, None)?]);
        }
        let disk = self.reading.disk(&self.file, format, false)?;
        let mut all: Vec<Facts> = Vec::new();
        for layer in disk.layers() {
            let name = all.last().and_then(|above| above.backing.as_ref());
            let name = name.map(|backing| backing.path.clone());
            all.push(Facts::of(layer, name)?);
        }
        Ok(all)
    }
}

/// What is shown of an image.
struct Facts {
    name: String,
    image: anydisk::ImageInfo,
    size: u64,
    file: File,
    backing: Option<Backing>,
}

/// The file on the host.
struct File {
    /// Whole sectors, in bytes.
    length: u64,
    /// Bytes on the medium, where the file system tells.
    used: Option<u64>,
    protocol: &'static str,
}

struct Backing {
    name: String,
    path: String,
    format: Option<String>,
}

impl Facts {
    /// `name`: as the image above leads to it; else as it was typed.
    fn of(layer: &Layer, name: Option<String>) -> Result<Self, Failure> {
        let name = name.unwrap_or_else(|| layer.location.to_string());
        let backing = layer.backing.as_ref().map(|reference| Backing {
            name: reference.display_name(),
            path: path_like_qemu(reference, &Location::Path((&name).into())).display().to_string(),
            format: reference.format.clone(),
        });
        Ok(Self {
            image: layer.image.info(),
            size: layer.image.size(),
            file: File::of(&layer.location)?,
            name,
            backing,
        })
    }

    fn object(&self) -> Object {
        let backing = self.backing.as_ref();
        let image = &self.image;
        let dirty = image.dirty;
        Object::default()
            .with("filename", self.name.as_str())
            .with("format", image.format)
            .with("virtual-size", self.size)
            .with_any("actual-size", self.file.used)
            .with_any("cluster-size", image.cluster_size)
            .with_any("encrypted", image.encrypted.then_some(true))
            .with_any("compressed", image.compressed.then_some(true))
            .with("dirty-flag", dirty)
            .with_any("backing-filename", backing.map(|backing| backing.name.as_str()))
            .with_any("full-backing-filename", backing.map(|backing| backing.path.as_str()))
            .with_any("backing-filename-format", backing.and_then(|b| b.format.as_deref()))
            .with_any("format-specific", self.specific())
            .with("children", vec![self.child()])
    }

    fn specific(&self) -> Option<Object> {
        let data = details(&self.image.details);
        let object = Object::default().with("type", self.image.format);
        (!data.is_empty()).then(|| object.with("data", data))
    }

    fn child(&self) -> Value {
        let specific = Object::default().with("type", "file").with("data", Object::default());
        let info = Object::default()
            .with("filename", self.name.as_str())
            .with("format", self.file.protocol)
            .with("virtual-size", self.file.length)
            .with_any("actual-size", self.file.used)
            .with("dirty-flag", false)
            .with("format-specific", specific)
            .with("children", Vec::new());
        Object::default().with("name", "file").with("info", info).into()
    }

    fn text(&self) -> String {
        let used = || self.file.used.map(|used| format!("disk size: {}", human::size(used)));
        let image = &self.image;
        let mut lines = vec![
            format!("image: {}", self.name),
            format!("file format: {}", image.format),
            format!("virtual size: {} ({} bytes)", human::size(self.size), self.size),
        ];
        lines.extend(used());
        lines.extend(image.encrypted.then(|| "encrypted: yes".into()));
        lines.extend(image.cluster_size.map(|size| format!("cluster_size: {size}")));
        lines.extend(image.dirty.then(|| "cleanly shut down: no".into()));
        lines.extend(self.backing.iter().flat_map(Backing::lines));
        let mut text = lines.join("\n") + "\n";
        let data = details(&image.details);
        if !data.is_empty() {
            text.push_str("Format specific information:\n");
            human::write_object(&mut text, &data, 1);
        }
        let length = self.file.length;
        let mut child = vec![
            "Child node '/file':".to_owned(),
            format!("    filename: {}", self.name),
            format!("    protocol type: {}", self.file.protocol),
            format!("    file length: {} ({length} bytes)", human::size(length)),
        ];
        child.extend(used().map(|line| format!("    {line}")));
        text + &child.join("\n") + "\n"
    }
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

impl File {
    fn of(location: &Location) -> Result<Self, Failure> {
        let Location::Path(path) = location else {
            return Err(Failure::new(format!("{location}: not a file")));
        };
        let meta = fs::metadata(path)?;
        if meta.file_type().is_block_device() {
            return Ok(Self {
                length: device_length(path)?,
                used: Some(0),
                protocol: "host_device",
            });
        }
        let length = meta.len().next_multiple_of(SECTOR);
        Ok(Self { length, used: Some(meta.blocks() * 512), protocol: "file" })
    }
}

fn device_length(path: &Path) -> Result<u64, Failure> {
    use std::io::{Seek, SeekFrom};
    Ok(fs::File::open(path)?.seek(SeekFrom::End(0))?)
}

fn details(details: &[Detail]) -> Object {
    let add = |object: Object, detail: &Detail| object.with(detail.name, value(&detail.value));
    details.iter().fold(Object::default(), add)
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
