//! Where clients connect, and how long they are served.

use std::fmt::Write;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anydisk_nbd::{Error, Server};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::output;

/// A place where clients connect.
pub(super) enum Listener {
    /// A socket of the file system, which goes with this.
    Socket(UnixListener, PathBuf),
    /// A port of the host.
    Port(TcpListener),
}

/// A connection with a client.
enum Stream {
    Socket(UnixStream),
    Port(TcpStream),
}

impl Listener {
    pub(super) fn at_socket(path: &Path) -> Result<Self, Failure> {
        let bound = UnixListener::bind(path).or_else(|error| match error.kind() {
            ErrorKind::AddrInUse if is_left_over(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        });
        let listener = bound.map_err(|error| cannot_listen(&path.display().to_string(), &error))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Socket(listener, path.to_owned()))
    }

    pub(super) fn at_port(address: &str, port: u16) -> Result<Self, Failure> {
        let listener = TcpListener::bind((address, port))
            .map_err(|error| cannot_listen(&format!("{address}:{port}"), &error))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Port(listener))
    }

    /// As clients name it.
    pub(super) fn uri(&self, export: &str) -> String {
        let export = escaped(export.as_bytes());
        match self {
            Self::Socket(_, path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!(
                    "nbd+unix:///{export}?socket={}",
                    escaped(path.as_os_str().as_encoded_bytes())
                )
            }
            Self::Port(listener) => match listener.local_addr() {
                Ok(address) => format!("nbd://{address}/{export}"),
                Err(_) => format!("nbd://localhost/{export}"),
            },
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(listener, _) => listener.as_fd(),
            Self::Port(listener) => listener.as_fd(),
        }
    }

    /// The next client; `None` if it went again.
    fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Self::Socket(listener, _) => {
                listener.accept().map(|(stream, _)| Stream::Socket(stream))
            }
            Self::Port(listener) => listener.accept().map(|(stream, _)| Stream::Port(stream)),
        };
        match accepted {
            Ok(stream) => stream.ready().map(|()| Some(stream)),
            Err(error) if is_passing(error.kind()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Socket(_, path) = self {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}

/// Whether a server that is gone left its socket.
fn is_left_over(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let answer = UnixStream::connect(path).map_err(|error| error.kind());
    is_socket && matches!(answer, Err(ErrorKind::ConnectionRefused))
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
                stream.set_nodelay(true)
            }
        }
    }

    /// Lets nothing more in. What was asked is still answered.
    fn close(&self) {
        // A client that went has closed it already.
        let _ = match self {
            Self::Socket(stream) => stream.shutdown(Shutdown::Read),
            Self::Port(stream) => stream.shutdown(Shutdown::Read),
        };
    }

    fn serve(&self, server: &Server) -> anydisk_nbd::Result<()> {
        match self {
            Self::Socket(stream) => server.serve(stream, stream),
            Self::Port(stream) => server.serve(stream, stream),
        }
    }
}

/// The clients that are there.
struct Clients {
    streams: Mutex<Vec<Arc<Stream>>>,
    /// Something that was written may not be durable.
    lost: AtomicBool,
    /// Is written to when one goes.
    bell: UnixStream,
}

impl Clients {
    fn count(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(&self, stream: &Arc<Stream>) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(stream));
    }

    fn close_all(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().for_each(|stream| stream.close());
    }

    fn serve(&self, server: &Server, stream: &Arc<Stream>) {
        if let Err(error) = stream.serve(server) {
            output::error(&error.to_string());
            self.lost.fetch_or(matches!(error, Error::Disk(_)), Relaxed);
        }
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|other| !Arc::ptr_eq(other, stream));
        // Whoever waits looks anyway if it is full.
        let _ = io::Write::write(&mut &self.bell, &[0]);
    }
}

/// Serves clients, `most` at once, until a signal comes or, unless it is `persistent`, the last went.
pub(super) fn serve_clients(
    server: &Server,
    listener: &Listener,
    most: usize,
    persistent: bool,
) -> Outcome {
    let interrupt = Interrupt::watch()?;
    let (mut heard, bell) = UnixStream::pair()?;
    heard.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, bell.try_clone()?)?;
    }
    let clients = Clients { streams: Mutex::default(), lost: AtomicBool::new(false), bell };
    std::thread::scope(|scope| {
        let mut had_one = false;
        while !interrupt.is_asked() && (persistent || !had_one || clients.count() > 0) {
            let has_room = clients.count() < most;
            if let Some(stream) = wait(listener, &mut heard, has_room)? {
                had_one = true;
                let stream = Arc::new(stream);
                clients.add(&stream);
                let clients = &clients;
                scope.spawn(move || clients.serve(server, &stream));
            }
        }
        clients.close_all();
        Ok::<_, Failure>(())
    })?;
    Ok(u8::from(clients.lost.into_inner()))
}

/// Waits for a client, if there is room for one, or for the bell.
fn wait(
    listener: &Listener,
    heard: &mut UnixStream,
    has_room: bool,
) -> Result<Option<Stream>, Failure> {
    let wanted = if has_room { PollFlags::IN } else { PollFlags::empty() };
    let bell = heard.as_fd();
    let mut both =
        [PollFd::new(&bell, PollFlags::IN), PollFd::from_borrowed_fd(listener.fd(), wanted)];
    match poll(&mut both, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let [rang, came] = both.map(|fd| !fd.revents().is_empty());
    if rang {
        // That it rang is all there is to know.
        let _ = heard.read(&mut [0; 64]);
    }
    Ok(if came && has_room { listener.accept()? } else { None })
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
