//! Where clients connect.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anydisk_nbd::Server;
use listenfd::ListenFd;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use crate::failure::Failure;

/// A place where clients connect.
pub(super) struct Listener {
    door: Door,
    /// The name of a socket that was made here, which goes with this.
    own: Option<Place>,
    is_given: bool,
}

/// Where it is.
enum Door {
    /// In the file system.
    Socket(UnixListener),
    /// A port of the host.
    Port(TcpListener),
}

/// A name in the file system, and what had it when it was taken.
#[derive(PartialEq, Eq)]
pub(super) struct Place {
    path: PathBuf,
    node: Option<(u64, u64)>,
}

impl Place {
    fn of(path: &Path) -> Self {
        let node = path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()));
        Self { path: path.to_owned(), node }
    }
}

/// A connection with a client.
pub(super) enum Stream {
    Socket(UnixStream),
    Port(TcpStream),
}

impl Listener {
    /// What systemd, or libnbd's tools, opened for this process: `LISTEN_PID`, `LISTEN_FDS`.
    pub(super) fn given() -> Result<Option<Self>, Failure> {
        let mut given = ListenFd::from_env();
        let door = match given.len() {
            0 => return Ok(None),
            1 => match given.take_unix_listener(0) {
                Ok(listener) => listener.map(Door::Socket),
                Err(_) => given.take_tcp_listener(0)?.map(Door::Port),
            },
            count => {
                return Err(Failure::new(format!("LISTEN_FDS is {count}: one socket is served")));
            }
        };
        Ok(door.map(|door| Self::new(door, None, true)).transpose()?)
    }

    pub(super) fn at_socket(path: &Path) -> Result<Self, Failure> {
        let bound = UnixListener::bind(path).or_else(|error| match error.kind() {
            ErrorKind::AddrInUse if is_left_over(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        });
        let listener = bound.map_err(|error| cannot_listen(&path.display().to_string(), &error))?;
        Ok(Self::new(Door::Socket(listener), Some(Place::of(path)), false)?)
    }

    pub(super) fn at_port(address: &str, port: u16) -> Result<Self, Failure> {
        let listener = TcpListener::bind((address, port))
            .map_err(|error| cannot_listen(&format!("{address}:{port}"), &error))?;
        Ok(Self::new(Door::Port(listener), None, false)?)
    }

    fn new(door: Door, own: Option<Place>, is_given: bool) -> io::Result<Self> {
        match &door {
            Door::Socket(listener) => listener.set_nonblocking(true)?,
            Door::Port(listener) => listener.set_nonblocking(true)?,
        }
        Ok(Self { door, own, is_given })
    }

    /// Whether somebody else opened it, who knows where it is.
    pub(super) fn is_given(&self) -> bool {
        self.is_given
    }

    /// As clients name it.
    pub(super) fn uri(&self, export: &str) -> String {
        let export = escaped(export.as_bytes());
        match &self.door {
            Door::Socket(listener) => {
                let address = listener.local_addr().ok();
                let path =
                    address.as_ref().and_then(|at| at.as_pathname()).unwrap_or(Path::new(""));
                let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                let path = escaped(path.as_os_str().as_encoded_bytes());
                format!("nbd+unix:///{export}?socket={path}")
            }
            Door::Port(listener) => match listener.local_addr() {
                Ok(address) => format!("nbd://{address}/{export}"),
                Err(_) => format!("nbd://localhost/{export}"),
            },
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.door {
            Door::Socket(listener) => listener.as_fd(),
            Door::Port(listener) => listener.as_fd(),
        }
    }

    /// The next client; `None` if it went again.
    ///
    /// # Errors
    /// That the system has no room for one more.
    pub(super) fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match &self.door {
            Door::Socket(listener) => listener.accept().map(|(stream, _)| Stream::Socket(stream)),
            Door::Port(listener) => listener.accept().map(|(stream, _)| Stream::Port(stream)),
        };
        match accepted {
            Ok(stream) => Ok(stream.ready().is_ok().then_some(stream)),
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The name may be somebody else's by now, who goes on.
        if let Some(place) = &self.own
            && Place::of(&place.path) == *place
        {
            let _ = std::fs::remove_file(&place.path);
        }
    }
}

/// Whether an error is not of one connection.
fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let full = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    full.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether a server that is gone left its socket. One that is there is not waited for.
fn is_left_over(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let knock = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)
    };
    is_socket && knock() == Err(rustix::io::Errno::CONNREFUSED)
}

fn cannot_listen(place: &str, error: &io::Error) -> Failure {
    Failure::new(format!("Cannot listen at {place}: {error}"))
}

/// A name as a part of a URI.
fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            _ => write!(text, "%{byte:02X}").expect("a string takes all"),
        }
    }
    text
}

impl Stream {
    fn ready(&self) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.set_nonblocking(false),
            Self::Port(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                // A client whose host is gone does not hold its place for ever.
                Ok(sockopt::set_socket_keepalive(stream, true)?)
            }
        }
    }

    /// Ends the connection: for what comes in, or both ways.
    pub(super) fn close(&self, how: Shutdown) {
        // A client that went has closed it already.
        let _ = match self {
            Self::Socket(stream) => stream.shutdown(how),
            Self::Port(stream) => stream.shutdown(how),
        };
    }

    /// Serves the client, and says when it has chosen a disk.
    pub(super) fn serve(&self, server: &Server, chosen: impl FnOnce()) -> anydisk_nbd::Result<()> {
        match self {
            Self::Socket(stream) => serve(server, stream, stream, chosen),
            Self::Port(stream) => serve(server, stream, stream, chosen),
        }
    }
}

fn serve(
    server: &Server,
    input: impl Read + Send,
    output: impl Write + Send,
    chosen: impl FnOnce(),
) -> anydisk_nbd::Result<()> {
    let Some(client) = server.greet(input, output)? else { return Ok(()) };
    chosen();
    client.serve()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_a_uri_as_they_may() {
        assert_eq!(escaped(b"/run/a b?&%.sock"), "/run/a%20b%3F%26%25.sock");
        assert_eq!(escaped("\u{e9}".as_bytes()), "%C3%A9");
    }
}
