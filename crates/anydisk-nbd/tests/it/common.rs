//! Disks, and a server of them on a socket.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use anydisk_core::{Access, Disk, GuestOffset};
use anydisk_nbd::Server;
use anydisk_qcow2::QCOW2;
use anydisk_testkit::ImageFolder;

pub(crate) const BYTES: usize = (8 << 20) + 512;
pub(crate) const SIZE: u64 = BYTES as u64;

/// A qcow2 image with data at 1 MiB and zeroes at 3 MiB.
pub(crate) fn image(folder: &ImageFolder) -> Arc<Disk> {
    let disk = folder.create("disk.qcow2", SIZE, &[], None);
    disk.write(GuestOffset(1 << 20), &vec![1; 1 << 20]).expect("a write");
    disk.write(GuestOffset(SIZE - 512), &[9; 512]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    Arc::new(folder.open("disk.qcow2", Access::ReadWrite))
}

pub(crate) fn folder() -> ImageFolder {
    ImageFolder::new(&QCOW2)
}

pub(crate) fn contents() -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    bytes[1 << 20..2 << 20].fill(1);
    bytes[BYTES - 512..].fill(9);
    bytes
}

/// A server on a socket, until it is dropped.
pub(crate) struct Running {
    socket: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn new(server: Server, socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let accept = move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    let stream = stream.expect("a connection");
                    if stop.load(SeqCst) {
                        break;
                    }
                    let server = &server;
                    scope.spawn(move || server.serve(&stream, &stream));
                }
            });
        };
        let thread = Some(std::thread::spawn(accept));
        Self { socket: socket.to_owned(), ended, thread }
    }

    /// As clients name it.
    pub(crate) fn uri(&self, export: &str) -> PathBuf {
        format!("nbd+unix:///{export}?socket={}", self.socket.display()).into()
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = UnixStream::connect(&self.socket);
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        if !std::thread::panicking() {
            joined.expect("the server does not panic");
        }
    }
}
