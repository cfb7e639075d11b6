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
//! | read, write, flush, FUA, trim, write zeroes (also only if that is fast), cache | works |
//! | structured replies: zeroes are not sent | works |
//! | block status: `base:allocation`, `qemu:allocation-depth`, `qemu:dirty-bitmap:NAME` | works |
//! | many requests at once, several connections (`CAN_MULTI_CONN`) | works |
//! | TLS, resizing, extended headers (requests over 4 GiB) | missing |
//!
//! A connection is anything to read from and to write to: making sockets, and who may connect, is
//! the caller's matter. Clients are strangers: what they ask for costs bounded memory (2 MiB for each
//! thread while all of them together have less than 256 MiB, then 64 KiB), and is refused with a reason.
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

mod budget;
mod error;
mod export;
mod layout;
mod negotiate;
mod session;
mod wire;

use std::io::{BufReader, Read, Write};
use std::sync::Arc;

pub use error::{Error, Result};
pub use export::{Durability, Export};

use crate::budget::Budget;
use crate::negotiate::{Agreed, negotiate};
use crate::session::Session;

/// Disks that clients are offered.
#[derive(Clone, Debug)]
#[must_use]
pub struct Server {
    exports: Vec<Export>,
    threads: usize,
    budget: Arc<Budget>,
}

/// Bytes of the data of requests, of all clients, if nothing else is said.
const MEMORY: usize = 256 << 20;

impl Server {
    /// Offers these. A client that names none gets the first.
    pub fn new(exports: Vec<Export>) -> Self {
        Self { exports, threads: 4, budget: Arc::new(Budget::new(MEMORY)) }
    }

    /// The same with so many threads for each connection, which is how many of its requests are
    /// done at once. 4 if it is not said.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// The same with so many bytes for the data of what all clients ask for at once; 256 MiB if it is
    /// not said. When they are used up it goes on, in pieces of 64 KiB for each thread beside them.
    pub fn with_memory(self, bytes: usize) -> Self {
        Self { budget: Arc::new(Budget::new(bytes)), ..self }
    }

    /// What is offered.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// Serves one client until it goes; blocks. May be called by many threads at once, for a
    /// client each. When the client went, what it wrote is flushed.
    ///
    /// Whoever wants to end it shuts the connection down for reading: what was asked before is
    /// done. A client that does not take its answers holds it until the connection is shut down
    /// both ways.
    ///
    /// # Errors
    /// [`Error`]; others can be served nevertheless.
    pub fn serve(&self, input: impl Read + Send, output: impl Write + Send) -> Result<()> {
        self.greet(input, output)?.map_or(Ok(()), Client::serve)
    }

    /// The first half of [`serve`](Self::serve): what the client wants; `None` if it only asked
    /// what there is. A stranger may let wait for it: a connection belongs shut down after a while.
    ///
    /// # Errors
    /// [`Error`].
    pub fn greet<R: Read, W: Write>(
        &self,
        input: R,
        mut output: W,
    ) -> Result<Option<Client<'_, R, W>>> {
        let mut input = BufReader::with_capacity(64 << 10, input);
        let agreed = negotiate(&self.exports, &mut input, &mut output)?;
        let (threads, budget) = (self.threads, &*self.budget);
        Ok(agreed.map(|agreed| Client { agreed, input, output, threads, budget }))
    }
}

/// A client that has chosen a disk.
#[must_use]
pub struct Client<'a, R, W> {
    agreed: Agreed<'a>,
    input: BufReader<R>,
    output: W,
    threads: usize,
    budget: &'a Budget,
}

impl<'a, R: Read + Send, W: Write + Send> Client<'a, R, W> {
    /// What it chose.
    pub fn export(&self) -> &'a Export {
        self.agreed.export
    }

    /// Serves it until it goes; see [`Server::serve`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn serve(self) -> Result<()> {
        let export = self.agreed.export;
        let served = Session::new(self.agreed, self.budget, self.input, self.output);
        let served = served.run(self.threads);
        if export.is_writable() && export.durability() != Durability::Never {
            export.disk().flush()?;
        }
        served
    }
}

impl<R, W> std::fmt::Debug for Client<'_, R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}
