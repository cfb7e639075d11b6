//! Who is served, and until when.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use anydisk_nbd::{Error, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::listener::{Listener, Stream};
use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::output;

/// How long a client may take to say which disk it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long clients may take, at the end, to take the answers to what they asked before.
const GRACE: Duration = Duration::from_secs(3);

/// How long to wait where the system has no room for one more client.
const PAUSE: Duration = Duration::from_millis(500);

/// What ends the server: a signal. It rings a bell, as does a client that goes.
pub(super) struct End {
    interrupt: Interrupt,
    /// The terminal was closed.
    hung_up: Arc<AtomicBool>,
    heard: UnixStream,
    bell: UnixStream,
}

impl End {
    /// From now on signals no longer end the process at once.
    pub(super) fn watch() -> io::Result<Self> {
        let interrupt = Interrupt::watch()?;
        let (heard, bell) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let hung_up = Arc::new(AtomicBool::new(false));
        // Who started it with nohup wants it to go on.
        let mut signals = vec![SIGINT, SIGTERM];
        if !is_ignored(SIGHUP) {
            signal_hook::flag::register(SIGHUP, Arc::clone(&hung_up))?;
            signals.push(SIGHUP);
        }
        for signal in signals {
            pipe::register(signal, bell.try_clone()?)?;
        }
        Ok(Self { interrupt, hung_up, heard, bell })
    }

    fn is_asked(&self) -> bool {
        self.interrupt.is_asked() || self.hung_up.load(SeqCst)
    }

    /// Waits for the bell, for something at `listener`, which is told, or for a time to pass.
    fn wait(&self, listener: Option<&Listener>, most: Option<Duration>) -> io::Result<bool> {
        let bell = self.heard.as_fd();
        let mut all = vec![PollFd::new(&bell, PollFlags::IN)];
        all.extend(listener.map(|it| PollFd::from_borrowed_fd(it.fd(), PollFlags::IN)));
        let most = most.map(|most| Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        });
        match poll(&mut all, most.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // That it rang is all there is to know.
        while (&self.heard).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        Ok(all.get(1).is_some_and(|came| !came.revents().is_empty()))
    }
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 != 0
}

/// A client that is there.
struct Guest {
    stream: Stream,
    came: Instant,
    /// It said which disk it wants.
    has_chosen: AtomicBool,
}

/// The clients that are there.
struct Guests<'a> {
    server: &'a Server,
    all: Mutex<Vec<Arc<Guest>>>,
    /// One of them, once, chose a disk.
    had_one: AtomicBool,
    /// Something that was written may not be durable.
    lost: AtomicBool,
    bell: &'a UnixStream,
}

impl Guests<'_> {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Guest>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, guest: &Arc<Guest>) {
        let chosen = || {
            guest.has_chosen.store(true, SeqCst);
            self.had_one.store(true, SeqCst);
        };
        if let Err(error) = guest.stream.serve(self.server, chosen)
            && !is_leave(&error)
        {
            output::error(&error.to_string());
            self.lost.fetch_or(matches!(error, Error::Disk(_)), SeqCst);
        }
        self.remove(guest);
    }

    fn remove(&self, guest: &Arc<Guest>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, guest));
        // A bell that cannot be rung rings already.
        let _ = (&mut &*self.bell).write(&[0]);
    }

    fn close_all(&self, how: Shutdown) {
        self.lock().iter().for_each(|guest| guest.stream.close(how));
    }

    /// Closes the door to those who do not say what they want; returns when to look again.
    fn hurry(&self) -> Option<Duration> {
        let waiting = |guest: &Guest| {
            let is_waiting = !guest.has_chosen.load(SeqCst);
            is_waiting.then(|| PATIENCE.saturating_sub(guest.came.elapsed()))
        };
        let all = self.lock();
        for guest in all.iter().filter(|guest| waiting(guest) == Some(Duration::ZERO)) {
            guest.stream.close(Shutdown::Both);
        }
        all.iter().filter_map(|guest| waiting(guest)).filter(|left| !left.is_zero()).min()
    }
}

impl Guests<'_> {
    /// Serves each client that comes by a thread of `scope`, until it is over.
    fn let_in<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        listener: &Listener,
        end: &End,
        most: usize,
        persistent: bool,
    ) -> io::Result<()> {
        let is_over = || self.had_one.load(SeqCst) && self.lock().is_empty();
        while !end.is_asked() && (persistent || !is_over()) {
            let door = (self.lock().len() < most).then_some(listener);
            if !end.wait(door, self.hurry())? {
                continue;
            }
            let Some(stream) = accept(listener) else { continue };
            let has_chosen = AtomicBool::new(false);
            let guest = Arc::new(Guest { stream, came: Instant::now(), has_chosen });
            self.lock().push(Arc::clone(&guest));
            let it = Arc::clone(&guest);
            if std::thread::Builder::new().spawn_scoped(scope, move || self.serve(&it)).is_err() {
                output::error("there is no thread for one more client");
                self.remove(&guest);
            }
        }
        Ok(())
    }

    /// Lets nothing more in, and waits for who is there to take the answers; not for ever.
    fn see_off(&self, end: &End) {
        self.close_all(Shutdown::Read);
        let last = Instant::now() + GRACE;
        while !self.lock().is_empty() && Instant::now() < last {
            let left = last.saturating_duration_since(Instant::now());
            if end.wait(None, Some(left)).is_err() {
                break;
            }
        }
        self.close_all(Shutdown::Both);
    }
}

/// Whether a client merely went, with a word or without.
fn is_leave(error: &Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let Error::Connection(cause) = error else { return false };
    matches!(cause.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Serves clients, `most` at once, until a signal comes or, unless it is `persistent`, the last one that
/// chose a disk went.
pub(super) fn serve_clients(
    server: &Server,
    listener: &Listener,
    end: End,
    most: usize,
    persistent: bool,
) -> Outcome {
    let guests = Guests {
        server,
        all: Mutex::default(),
        had_one: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        bell: &end.bell,
    };
    std::thread::scope(|scope| {
        let result = guests.let_in(scope, listener, &end, most, persistent);
        guests.see_off(&end);
        result
    })?;
    Ok(u8::from(guests.lost.into_inner()))
}

/// The next client. Where the system has no room for it, that is said, and waited for.
fn accept(listener: &Listener) -> Option<Stream> {
    listener.accept().unwrap_or_else(|error| {
        output::error(&format!("there is no room for one more client: {error}"));
        std::thread::sleep(PAUSE);
        None
    })
}
