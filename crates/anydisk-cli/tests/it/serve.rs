//! Disks offered over NBD.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::common::{Bench, Qemu, said};

/// A running server.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    fn new(bench: &Bench, arguments: &[&str]) -> Self {
        let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        let pipes = command.arg("serve").args(arguments).stdout(Stdio::piped());
        let mut child = pipes.stderr(Stdio::piped()).spawn().expect("it runs");
        let mut uri = String::new();
        let out = child.stdout.as_mut().expect("a pipe");
        BufReader::new(out).read_line(&mut uri).expect("a line");
        Self { child, uri: uri.trim_end().to_owned() }
    }

    /// What it printed, once it ended with `code`.
    fn ended(self, code: i32) -> String {
        let output = self.child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        said(&output)
    }

    fn interrupt(&self) {
        // Whoever runs the tests in the background has SIGINT ignored.
        self.signal("-TERM");
    }

    fn signal(&self, which: &str) {
        let kill = Command::new("kill").args([which, &self.child.id().to_string()]).status();
        assert!(kill.expect("a signal").success());
    }
}

/// A client that has chosen the first export, and the size that it was told.
fn client(bench: &Bench) -> (UnixStream, u64) {
    let mut stream = UnixStream::connect(bench.path("socket")).expect("a connection");
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).expect("a greeting");
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0").expect("it is sent");
    let mut told = [0; 10];
    stream.read_exact(&mut told).expect("an export");
    let (size, _) = told.split_first_chunk().expect("eight");
    (stream, u64::from_be_bytes(*size))
}

fn request(stream: &mut UnixStream, command: u8, at: u64, len: u32, data: &[u8]) {
    let head = [0x25, 0x60, 0x95, 0x13, 0, 0, 0, command, 0, 0, 0, 0, 0, 0, 0, 7];
    let parts = [&head[..], &at.to_be_bytes(), &len.to_be_bytes(), data].concat();
    stream.write_all(&parts).expect("it is sent");
}

/// The error of the answer.
fn answer(stream: &mut UnixStream) -> u8 {
    let mut head = [0; 16];
    stream.read_exact(&mut head).expect("an answer");
    head[7]
}

fn read(stream: &mut UnixStream, at: u64, len: u32) -> Vec<u8> {
    request(stream, 0, at, len, &[]);
    assert_eq!(answer(stream), 0);
    let mut data = vec![0; len as usize];
    stream.read_exact(&mut data).expect("data");
    data
}

#[test]
fn a_disk_is_offered_until_the_last_client_went() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(4096, b"hello")]);
    bench.prints(&["convert", "-f", "raw", "-O", "vmdk", "disk.raw", "disk.vmdk"]);
    let server = Server::new(&bench, &["-r", "-k", "socket", "disk.vmdk"]);
    assert_eq!(server.uri, format!("nbd+unix:///?socket={}", bench.path("socket").display()));
    let (mut stream, size) = client(&bench);
    assert_eq!(size, 1 << 20);
    assert_eq!(read(&mut stream, 4095, 7), b"\0hello\0");
    request(&mut stream, 1, 0, 1, b"x");
    assert_eq!(answer(&mut stream), 1);
    drop(stream);
    assert_eq!(server.ended(0), "");
    assert!(!bench.path("socket").exists());
}

#[test]
fn what_was_written_is_there_after_a_signal_and_the_client_was_answered() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "disk.qcow2", "4M"]);
    let server = Server::new(&bench, &["-t", "-e", "0", "-k", "socket", "disk.qcow2"]);
    // Nobody else writes meanwhile.
    assert!(bench.fails(&["bench", "-w", "disk.qcow2"], 1).contains("Failed to get "));
    for number in 0..3_u8 {
        let (mut stream, _) = client(&bench);
        request(&mut stream, 1, u64::from(number) << 20, 3, &[number + 1; 3]);
        assert_eq!(answer(&mut stream), 0);
    }
    let (mut stream, _) = client(&bench);
    assert_eq!(read(&mut stream, 2 << 20, 4), [3, 3, 3, 0]);
    server.interrupt();
    assert_eq!(server.ended(0), "");
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
    bench.prints(&["check", "disk.qcow2"]);
    bench.prints(&["convert", "-O", "raw", "disk.qcow2", "disk.raw"]);
    let bytes = std::fs::read(bench.path("disk.raw")).expect("a file");
    assert_eq!((bytes[0], bytes[1 << 20], bytes[2 << 20]), (1, 2, 3));
}

#[test]
fn a_snapshot_and_what_lies_in_a_disk_are_offered_to_be_read() {
    let bench = Bench::new();
    bench.raw("disk.raw", 1 << 20, &[(0, b"before")]);
    bench.prints(&["convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]);
    bench.prints(&["snapshot", "-c", "one", "disk.qcow2"]);
    bench.prints(&["bench", "-w", "-q", "-c1", "-s", "512", "--pattern", "65", "disk.qcow2"]);
    for (arguments, expected) in [(&["-l", "one"][..], b"before"), (&["-r"], b"AAAAAA")] {
        let line = [arguments, &["-k", "socket", "disk.qcow2"]].concat();
        let server = Server::new(&bench, &line);
        let (mut stream, _) = client(&bench);
        assert_eq!(read(&mut stream, 0, 6), expected);
        request(&mut stream, 1, 0, 1, b"x");
        assert_eq!(answer(&mut stream), 1);
        drop(stream);
        server.ended(0);
    }
}

#[test]
fn a_socket_that_was_left_over_is_taken_and_one_in_use_is_not() {
    let bench = Bench::new();
    bench.raw("disk.raw", 4096, &[]);
    drop(std::os::unix::net::UnixListener::bind(bench.path("socket")).expect("a socket"));
    let server = Server::new(&bench, &["-t", "-r", "-f", "raw", "-k", "socket", "disk.raw"]);
    let line = ["serve", "-r", "-f", "raw", "-k", "socket", "disk.raw"];
    assert!(bench.fails(&line, 1).starts_with("anydisk: Cannot listen at socket: "));
    assert!(
        bench
            .fails(&["serve", "-r", "-f", "raw", "-k", "disk.raw", "disk.raw"], 1)
            .starts_with("anydisk: Cannot listen at disk.raw: ")
    );
    server.interrupt();
    server.ended(0);
    assert!(bench.path("disk.raw").exists());
}

#[test]
fn what_cannot_be_offered_is_refused_before_anybody_can_connect() {
    let bench = Bench::new();
    bench.raw("disk.raw", 4096, &[]);
    bench.prints(&["create", "-q", "-f", "qcow2", "disk.qcow2", "4M"]);
    for (line, why) in [
        (&["disk.qcow2", "disk.raw"][..], "anydisk: One disk is offered\n"),
        (&["-B", "monday", "disk.qcow2"], "anydisk: there is no bitmap \"monday\"\n"),
        (&["-l", "one", "disk.qcow2"], "anydisk: "),
        (&["--untrusted", "disk.raw"], "anydisk: "),
        (&["gone.qcow2"], "anydisk: Could not open 'gone.qcow2'"),
    ] {
        let line = [&["serve", "-k", "socket"], line].concat();
        let told = bench.fails(&line, 1);
        assert!(told.starts_with(why), "{line:?}: {told}");
        assert!(!bench.path("socket").exists());
    }
}

#[test]
fn qemu_converts_from_a_port_of_the_host() {
    if Qemu::find().is_none() {
        return;
    }
    let bench = Bench::new();
    bench.raw("disk.raw", 3 << 20, &[(1 << 20, b"hello")]);
    bench.prints(&["convert", "-f", "raw", "-O", "vdi", "disk.raw", "disk.vdi"]);
    let server = Server::new(&bench, &["-r", "-p", "0", "-x", "a b", "disk.vdi"]);
    assert!(server.uri.starts_with("nbd://127.0.0.1:"), "{}", server.uri);
    assert!(server.uri.ends_with("/a%20b"), "{}", server.uri);
    bench.qemu(&format!("convert -f raw -O raw {} copy.raw", server.uri));
    server.ended(0);
    let [disk, copy] = ["disk.raw", "copy.raw"].map(|name| std::fs::read(bench.path(name)));
    assert!(disk.expect("a disk") == copy.expect("a copy"));
}

/// A client that has asked for the list and is gone.
fn ask(bench: &Bench) {
    let mut stream = UnixStream::connect(bench.path("socket")).expect("a connection");
    stream
        .write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x03\0\0\0\0IHAVEOPT\0\0\0\x02\0\0\0\0")
        .expect("sent");
    let mut told = Vec::new();
    stream.read_to_end(&mut told).expect("the end");
    assert_eq!(told.len(), 18 + (20 + 4) + 20 + 20);
}

#[test]
fn who_only_asks_and_a_second_server_do_not_end_the_first() {
    let bench = Bench::new();
    bench.raw("disk.raw", 4096, &[(0, b"hello")]);
    let line = ["-r", "-f", "raw", "-k", "socket", "disk.raw"];
    let server = Server::new(&bench, &line);
    ask(&bench);
    bench.fails(&[&["serve"][..], &line].concat(), 1);
    drop(UnixStream::connect(bench.path("socket")).expect("a connection"));
    let (mut stream, _) = client(&bench);
    assert_eq!(read(&mut stream, 0, 5), b"hello");
    drop(stream);
    assert_eq!(server.ended(0), "");
}

#[test]
fn a_client_that_takes_no_answers_does_not_keep_the_others_writes_from_the_disk() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "disk.qcow2", "64M"]);
    for signal in ["-TERM", "-HUP"] {
        let server = Server::new(&bench, &["-t", "-e", "0", "-k", "socket", "disk.qcow2"]);
        let (mut stuck, _) = client(&bench);
        for _ in 0..8 {
            request(&mut stuck, 0, 0, 32 << 20, &[]);
        }
        let (mut stream, _) = client(&bench);
        request(&mut stream, 1, 0, 5, signal.as_bytes().repeat(2).get(..5).expect("five"));
        assert_eq!(answer(&mut stream), 0);
        server.signal(signal);
        server.ended(0);
        assert!(!bench.path("socket").exists());
        bench.prints(&["convert", "-O", "raw", "disk.qcow2", "disk.raw"]);
        let bytes = std::fs::read(bench.path("disk.raw")).expect("a file");
        assert!(bytes.starts_with(signal.as_bytes()), "{signal}");
    }
}

#[test]
fn where_the_system_has_no_room_for_a_client_the_others_are_served_on() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "disk.qcow2", "4M"]);
    let tool = env!("CARGO_BIN_EXE_anydisk");
    let line = format!("ulimit -n 40; exec {tool} serve -t -e 0 -k socket disk.qcow2");
    let mut command = bench.command("sh");
    let pipes = command.args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("it runs");
    let mut uri = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut uri).expect("a line");
    let mut server = Server { child, uri };
    let (mut stream, _) = client(&bench);
    let crowd: Vec<_> = (0..60).map(|_| UnixStream::connect(bench.path("socket"))).collect();
    request(&mut stream, 1, 0, 5, b"hello");
    assert_eq!(answer(&mut stream), 0);
    let mut told = String::new();
    let errors = server.child.stderr.as_mut().expect("a pipe");
    BufReader::new(errors).read_line(&mut told).expect("a line");
    assert!(told.starts_with("anydisk: there is no room for one more client: "), "{told}");
    drop(crowd);
    let (mut later, _) = client(&bench);
    assert_eq!(read(&mut later, 0, 5), b"hello");
    server.interrupt();
    server.ended(0);
}

#[test]
fn a_disk_of_no_known_format_is_offered_to_be_read_only() {
    let bench = Bench::new();
    bench.raw("disk.raw", 4096, &[]);
    let told = bench.fails(&["serve", "-k", "socket", "disk.raw"], 1);
    assert!(
        told.contains("A disk whose format is not known is not offered to be written"),
        "{told}"
    );
    let server = Server::new(&bench, &["-r", "-k", "socket", "disk.raw"]);
    drop(client(&bench));
    server.ended(0);
}

#[test]
fn a_socket_that_was_opened_by_who_started_it_is_served() {
    use anydisk_testkit::oracle::is_installed;
    if !is_installed("nbdinfo") {
        return;
    }
    let bench = Bench::new();
    bench.raw("disk.raw", 4096, &[]);
    let tool = env!("CARGO_BIN_EXE_anydisk");
    let line = ["--size", "--", "[", tool, "serve", "-r", "-f", "raw", "disk.raw", "]"];
    let output = bench.command("nbdinfo").args(line).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4096\n", "{}", said(&output));
}

#[test]
fn a_server_in_the_background_is_ready_when_the_command_ends_and_tells_its_number() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "disk.qcow2", "4M"]);
    let line =
        ["serve", "--fork", "--pid-file", "pid", "-t", "-k", "socket", "-x", "one", "disk.qcow2"];
    let told = bench.prints(&line);
    assert_eq!(told, format!("nbd+unix:///one?socket={}\n", bench.path("socket").display()));
    let number = std::fs::read_to_string(bench.path("pid")).expect("a file");
    let (mut stream, size) = client(&bench);
    assert_eq!(size, 4 << 20);
    request(&mut stream, 1, 0, 1, b"x");
    assert_eq!(answer(&mut stream), 0);
    let kill = Command::new("kill").arg(number.trim()).status();
    assert!(kill.expect("a signal").success());
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0);
    let gone = || !bench.path("pid").exists() && !bench.path("socket").exists();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !gone() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(gone());
    bench.prints(&["convert", "-O", "raw", "disk.qcow2", "disk.raw"]);
    assert_eq!(std::fs::read(bench.path("disk.raw")).expect("a file")[0], b'x');
}

#[test]
fn a_server_that_cannot_serve_in_the_background_says_why_and_fails() {
    let bench = Bench::new();
    let output = bench.anydisk(&["serve", "--fork", "--pid-file", "pid", "-k", "socket", "gone"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("Could not open 'gone'"), "{}", said(&output));
    assert!(!bench.path("pid").exists());
}
