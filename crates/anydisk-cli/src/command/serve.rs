//! `anydisk serve`: qemu-nbd's options.

mod clients;
mod listener;
mod process;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anydisk::{Chosen, Disk};
use anydisk_nbd::{Durability, Export, Server};
use clap::Args;

use self::clients::{End, serve_clients};
use self::listener::Listener;
use self::process::PidFile;
use super::snapshot;
use crate::args::{Cache, Part, Reading};
use crate::failure::{Failure, Outcome};

const EXAMPLES: &str = "\
Examples:
  anydisk serve -r -k /run/disk.sock disk.vmdk
  anydisk serve -t -e 0 -p 10809 -x disk disk.qcow2
  anydisk serve -k /run/root.sock --member vg0/root a.vmdk b.vmdk
  anydisk serve --fork --pid-file /run/disk.pid -t -k /run/disk.sock disk.qcow2
  qemu-img convert -f raw -O raw nbd+unix:///?socket=/run/disk.sock copy.raw
  nbd-client -unix /run/disk.sock /dev/nbd0; mount -o ro /dev/nbd0p1 /mnt";

/// Offers a disk over NBD until the last client went, or for ever with -t.
///
/// Prints the address when clients can connect. Ends with Ctrl-C: what was asked before is done, and
/// all that was written is durable.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// Only read
    #[arg(short, long)]
    read_only: bool,
    /// Listen at this socket of the file system
    #[arg(short = 'k', long, value_name = "PATH", conflicts_with_all = ["bind", "port"])]
    socket: Option<PathBuf>,
    /// Listen at this address of the host
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: String,
    /// Listen at this port
    #[arg(short, long, default_value = "10809")]
    port: u16,
    /// The name that clients ask for
    #[arg(short = 'x', long, value_name = "NAME", default_value = "")]
    export_name: String,
    /// A text for people who list what there is
    #[arg(short = 'D', long, value_name = "TEXT", default_value = "")]
    description: String,
    /// So many clients at once; 0 is any number
    #[arg(short = 'e', long, value_name = "NUMBER", default_value = "1")]
    shared: usize,
    /// Go on when the last client went
    #[arg(short = 't', long)]
    persistent: bool,
    /// Offer this snapshot: its ID or name, or snapshot.id=ID,snapshot.name=NAME
    #[arg(short = 'l', long = "load-snapshot", value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Tell clients which image of the chain a part comes from
    #[arg(short = 'A', long)]
    allocation_depth: bool,
    /// Tell clients what this dirty bitmap has recorded; may be repeated
    #[arg(short = 'B', long, value_name = "NAME")]
    bitmap: Vec<String>,
    /// Go on in the background once clients can connect
    #[arg(long)]
    fork: bool,
    /// Write the number of the process that serves into this file
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// How the host caches the file
    #[arg(long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

/// The most bytes of a text on the wire.
const LONGEST_TEXT: usize = 4096;

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        self.check()?;
        if self.fork && !process::is_in_background() {
            return process::start_in_background();
        }
        // Before anybody is told that there is a server.
        let end = End::watch()?;
        let disk = Arc::new(self.disk()?);
        let server = Server::new(vec![self.export(Arc::clone(&disk))?]);
        let listener = self.listener()?;
        let _pid_file = self.pid_file.as_deref().map(PidFile::new).transpose()?;
        if !listener.is_given() {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", listener.uri(&self.export_name))?;
            out.flush()?;
        }
        if self.fork {
            process::leave_terminal()?;
        }
        let most = if self.shared == 0 { usize::MAX } else { self.shared };
        let served = serve_clients(&server, &listener, end, most, self.persistent);
        if disk.is_writable() {
            disk.flush()?;
        }
        served
    }

    fn check(&self) -> Result<(), Failure> {
        if self.snapshot.is_some() && !self.bitmap.is_empty() {
            return Err(Failure::new("A snapshot has no bitmaps"));
        }
        for (option, text) in [("-x", &self.export_name), ("-D", &self.description)] {
            if text.len() > LONGEST_TEXT {
                return Err(Failure::new(format!("{option} takes {LONGEST_TEXT} bytes at most")));
            }
        }
        Ok(())
    }

    fn listener(&self) -> Result<Listener, Failure> {
        if let Some(listener) = Listener::given()? {
            return Ok(listener);
        }
        match &self.socket {
            Some(path) => Listener::at_socket(path),
            None => Listener::at_port(&self.bind, self.port),
        }
    }

    /// What is offered, open for writing unless it is only to be read.
    fn disk(&self) -> Result<Disk, Failure> {
        let (format, direct) = (self.format.as_deref(), self.cache.is_direct());
        let reads = self.read_only || self.snapshot.is_some() || self.part.member.is_some();
        match &self.files[..] {
            [file] if !reads => {
                let disk = self.reading.disk_to_write(file, format, direct)?;
                refuse_if_guessed(&disk)?;
                Ok(disk)
            }
            files if reads => {
                let disk = self.reading.part(&self.part, files, format, direct)?;
                snapshot::disk_at(disk, self.snapshot.as_deref())
            }
            _ => Err(Failure::new("One disk is offered").with_advice(
                "Several files are the disks of one machine only with --member NAME.",
            )),
        }
    }

    fn export(&self, disk: Arc<Disk>) -> Result<Export, Failure> {
        let durability = match self.cache {
            Cache::None | Cache::Writeback => Durability::OnFlush,
            Cache::Writethrough | Cache::Directsync => Durability::Always,
            Cache::Unsafe => Durability::Never,
        };
        let export = Export::new(disk, &*self.export_name)
            .described(&*self.description)
            .with_durability(durability);
        let export = if self.shared == 1 { export.for_one_client() } else { export };
        let export = if self.allocation_depth { export.with_depth() } else { export };
        let with_bitmap = |export: Export, name: &String| export.with_bitmap(name);
        Ok(self.bitmap.iter().try_fold(export, with_bitmap)?)
    }
}

/// Whoever writes into a disk of no format could make it one, with a file of his choice below.
fn refuse_if_guessed(disk: &Disk) -> Result<(), Failure> {
    let is_guessed = disk.layers().iter().take(1).any(|top| top.chosen == Chosen::Guessed);
    if !is_guessed {
        return Ok(());
    }
    let why = "A disk whose format is not known is not offered to be written";
    Err(Failure::new(why).with_advice("Name the format: -f raw; or let it be read: -r"))
}
