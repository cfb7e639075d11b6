//! Serves disks over NBD, the [network block device protocol], to whoever speaks it: `qemu-img` and
//! `qemu-nbd`, the kernel's `nbd` (so that any image can be mounted), libnbd's tools, backup programs.
//!
//! ```text
//!   client  <-- socket -->  Server::serve  -->  Disk  -->  image over image
//! ```
//!
//! | | |
//! |---|---|
//! | fixed newstyle negotiation; lists, several exports | works |
//! | read, write, flush, FUA, trim, write zeroes | works |
//! | structured replies: zeroes are not sent | works |
//! | block status: `base:allocation`, `qemu:allocation-depth`, `qemu:dirty-bitmap:NAME` | works |
//! | many requests at once, several connections (`CAN_MULTI_CONN`) | works |
//! | TLS, resizing, extended headers (requests over 4 GiB) | missing |
//!
//! A connection is anything to read from and to write to: making sockets, and who may connect, is
//! the caller's matter. Clients are strangers: what they send costs bounded memory
//! (32 MiB and its answer for each thread), and is refused with a reason.
//!
//! ```
//! use std::sync::Arc;
//! use anydisk_core::{Disk, Image};
//! use anydisk_nbd::{Export, Server};
//! # use std::os::unix::net::UnixStream;
//! # fn serve(disk: Disk, stream: &UnixStream) -> anydisk_nbd::Result<()> {
//! let server = Server::new(vec![Export::new(Arc::new(disk), "disk").read_only()]);
//! server.serve(stream, stream)
//! # }
//! ```
//!
//! [network block device protocol]: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

mod error;
mod export;
mod layout;
mod negotiate;
mod session;
mod wire;

use std::io::{BufReader, Read, Write};

pub use error::{Error, Result};
pub use export::Export;

use crate::negotiate::negotiate;
use crate::session::Session;

/// Disks that clients are offered.
#[derive(Clone, Debug)]
#[must_use]
pub struct Server {
    exports: Vec<Export>,
    threads: usize,
}

impl Server {
    /// Offers these. A client that names none gets the first.
    pub fn new(exports: Vec<Export>) -> Self {
        Self { exports, threads: 4 }
    }

    /// The same with so many threads for each connection, which is how many of its requests are
    /// done at once. 4 if it is not said.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// What is offered.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// Serves one client until it goes; blocks. May be called by many threads at once, for a
    /// client each. When the client went, what it wrote is flushed.
    ///
    /// Whoever wants to end it shuts the connection down: what was asked before is done.
    ///
    /// # Errors
    /// [`Error`]; others can be served nevertheless.
    pub fn serve(&self, input: impl Read + Send, mut output: impl Write + Send) -> Result<()> {
        let mut input = BufReader::with_capacity(64 << 10, input);
        let Some(agreed) = negotiate(&self.exports, &mut input, &mut output)? else {
            return Ok(());
        };
        let export = agreed.export;
        let served = Session::new(agreed, input, output).run(self.threads);
        if export.is_writable() {
            export.disk().flush()?;
        }
        served
    }
}
