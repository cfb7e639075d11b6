//! `anydisk bitmap`.

use std::ffi::OsString;

use anydisk::{Bitmaps, Image, ImageWrite, NewBitmap};
use clap::Args;

use crate::args::Reading;
use crate::failure::{Failure, Outcome};
use crate::options;

const EXAMPLES: &str = "\
Examples:
  anydisk bitmap --add disk.qcow2 monday
  anydisk bitmap --add -g 4k --disable disk.qcow2 fine
  anydisk bitmap --merge monday --merge tuesday disk.qcow2 week
  anydisk info disk.qcow2                  (lists them)

What is asked for is done in this order: add, clear, merge, enable, disable, remove.";

/// Adds, removes and changes a dirty bitmap of an image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bitmap {
    /// Begin a bitmap
    #[arg(long)]
    add: bool,
    /// Forget the bitmap
    #[arg(long)]
    remove: bool,
    /// Forget what it has recorded
    #[arg(long)]
    clear: bool,
    /// Record writes from now on
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Record no more
    #[arg(long)]
    disable: bool,
    /// Add what another bitmap has recorded
    #[arg(long, value_name = "SOURCE")]
    merge: Vec<String>,
    /// With --add: bytes that one bit stands for
    #[arg(short, long, requires = "add")]
    granularity: Option<String>,
    /// With --merge: the image that has the other bitmap
    #[arg(short = 'b', long, requires = "merge")]
    source_file: Option<OsString>,
    /// The format of that image
    #[arg(short = 'F', long, requires = "source_file")]
    source_format: Option<String>,
    /// The format of the image, instead of looking at its bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The image
    file: OsString,
    /// The name of the bitmap
    bitmap: String,
    #[command(flatten)]
    reading: Reading,
}

impl Bitmap {
    pub(crate) fn run(self) -> Outcome {
        let asked = [self.add, self.remove, self.clear, self.enable, self.disable];
        if !asked.contains(&true) && self.merge.is_empty() {
            return Err(Failure::new(
                "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
            ));
        }
        self.change().map_err(|failure| failure.about(&self.file))?;
        Ok(0)
    }

    fn change(&self) -> Result<(), Failure> {
        let layer = self.reading.top_to_write(&self.file, self.format.as_deref(), false)?;
        let image = &*layer.image;
        let bitmaps = bitmaps_of(image)?;
        let name = &*self.bitmap;
        if self.add {
            done("add", name, bitmaps.add(&self.new_bitmap()?))?;
        }
        if self.clear {
            done("clear", name, bitmaps.clear(name))?;
        }
        self.merge(bitmaps)?;
        if self.enable {
            done("enable", name, bitmaps.set_enabled(name, true))?;
        }
        if self.disable && !self.add {
            done("disable", name, bitmaps.set_enabled(name, false))?;
        }
        if self.remove {
            done("remove", name, bitmaps.remove(name))?;
        }
        image.writer().map_or(Ok(()), ImageWrite::flush)?;
        Ok(())
    }

    fn new_bitmap(&self) -> Result<NewBitmap, Failure> {
        let granularity = self.granularity.as_deref().map(options::size).transpose()?;
        Ok(NewBitmap { name: self.bitmap.clone(), granularity, enabled: !self.disable })
    }

    /// Adds what the other bitmaps have recorded, of this image or of the other one.
    fn merge(&self, into: &dyn Bitmaps) -> Result<(), Failure> {
        let other = match &self.source_file {
            Some(file) => Some(self.reading.of_files().top(file, self.source_format.as_deref())?),
            None => None,
        };
        let from = match &other {
            Some(layer) => bitmaps_of(&*layer.image)?,
            None => into,
        };
        for source in &self.merge {
            let merged = from
                .changes(source)
                .and_then(|mut changes| into.merge(&self.bitmap, &mut *changes));
            done("merge", &self.bitmap, merged)?;
        }
        Ok(())
    }
}

fn bitmaps_of(image: &dyn Image) -> Result<&dyn Bitmaps, Failure> {
    let format = image.info().format;
    let none = || Failure::new(format!("Format driver '{format}' does not support bitmaps"));
    image.bitmaps().ok_or_else(none)
}

fn done(what: &str, name: &str, result: Result<(), anydisk::Error>) -> Result<(), Failure> {
    result.map_err(|error| {
        let why = Failure::from(error).text;
        Failure::new(format!("Operation {what} on bitmap {name} failed: {why}"))
    })
}
