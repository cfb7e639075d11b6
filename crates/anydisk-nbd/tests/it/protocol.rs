//! The protocol, byte by byte, and clients that break it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anydisk_core::{Disk, GuestOffset};
use anydisk_nbd::{Durability, Error, Export, Result, Server};
use anydisk_raw::RawImage;
use anydisk_storage::{MemoryStorage, Storage};
use anydisk_testkit::contents as bytes_of;
use anydisk_testkit::double::{Kind, RecordingStorage};

use crate::common::{SIZE, folder, image};

const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const SET_META_CONTEXT: u32 = 10;
const ACK: u32 = 1;

/// A client of bytes.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("an answer");
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().expect("four"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes(8).try_into().expect("eight"))
    }

    fn send(&mut self, parts: &[&[u8]]) {
        self.stream.write_all(&parts.concat()).expect("it is sent");
    }

    fn greet(&mut self, flags: u32) {
        assert_eq!(self.bytes(18), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&[&flags.to_be_bytes()]);
    }

    fn ask(&mut self, option: u32, data: &[u8]) {
        let len = u32::try_from(data.len()).expect("little");
        self.send(&[b"IHAVEOPT", &option.to_be_bytes(), &len.to_be_bytes(), data]);
    }

    /// The kind of an answer and its data.
    fn answer(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x0003_E889_0455_65A9);
        assert_eq!(self.u32(), option);
        let (kind, len) = (self.u32(), self.u32());
        (kind, self.bytes(len as usize))
    }

    /// Goes to an export of this name, whose size and flags come back.
    fn go(&mut self, name: &str) -> (u64, u16) {
        let len = u32::try_from(name.len()).expect("little");
        self.ask(GO, &[&len.to_be_bytes(), name.as_bytes(), &[0, 0]].concat());
        let (kind, data) = self.answer(GO);
        assert_eq!((kind, &data[..2]), (3, &[0, 0][..]), "{data:?}");
        assert_eq!(self.answer(GO), (ACK, Vec::new()));
        let size = u64::from_be_bytes(data[2..10].try_into().expect("eight"));
        (size, u16::from_be_bytes([data[10], data[11]]))
    }

    fn structured(&mut self) {
        self.ask(STRUCTURED_REPLY, &[]);
        assert_eq!(self.answer(STRUCTURED_REPLY), (ACK, Vec::new()));
    }

    fn request(&mut self, flags: u16, command: u16, at: u64, len: u32, data: &[u8]) {
        let magic = 0x2560_9513_u32.to_be_bytes();
        let words = [flags.to_be_bytes(), command.to_be_bytes()].concat();
        let cookie = 77_u64.to_be_bytes();
        self.send(&[&magic, &words, &cookie, &at.to_be_bytes(), &len.to_be_bytes(), data]);
    }

    /// The error of a simple reply.
    fn simple(&mut self) -> u32 {
        assert_eq!(self.u32(), 0x6744_6698);
        let error = self.u32();
        assert_eq!(self.u64(), 77);
        error
    }

    /// Flags, kind and data of a chunk.
    fn chunk(&mut self) -> (u16, u16, Vec<u8>) {
        assert_eq!(self.u32(), 0x668E_33EF);
        let words = self.bytes(4);
        assert_eq!(self.u64(), 77);
        let len = self.u32();
        let word = |at: usize| u16::from_be_bytes([words[at], words[at + 1]]);
        (word(0), word(2), self.bytes(len as usize))
    }

    /// The number and text of an error.
    fn error(&mut self) -> (u32, String) {
        let (flags, kind, data) = self.chunk();
        assert_eq!((flags, kind), (1, 1 << 15 | 1));
        let number = u32::from_be_bytes(data[..4].try_into().expect("four"));
        (number, String::from_utf8(data[6..].to_vec()).expect("text"))
    }
}

/// What comes of a talk between a client and a server of one disk.
fn talk(disk: Arc<Disk>, client: impl FnOnce(Client)) -> Result<()> {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let server = Server::new(vec![Export::new(disk, "disk")]);
    std::thread::scope(|scope| {
        let served = scope.spawn(move || server.serve(&theirs, &theirs));
        client(Client { stream: ours });
        served.join().expect("no panic")
    })
}

fn try_talk(client: impl FnOnce(Client)) -> Result<()> {
    let folder = folder();
    talk(image(&folder), client)
}

#[test]
fn the_oldest_way_to_choose_ends_in_124_zeroes_unless_they_are_not_wanted() {
    for (flags, zeroes) in [(1, 124), (3, 0)] {
        let served = try_talk(|mut client| {
            client.greet(flags);
            client.ask(1, b"disk");
            assert_eq!(client.u64(), SIZE);
            assert_eq!(client.bytes(2), [0x0D, 0x6D]);
            assert_eq!(client.bytes(zeroes), vec![0; zeroes]);
            client.request(0, 0, 1 << 20, 3, &[]);
            assert_eq!(client.simple(), 0);
            assert_eq!(client.bytes(3), [1, 1, 1]);
            client.request(0, 2, 0, 0, &[]);
        });
        served.expect("it was in order");
    }
}

#[test]
fn zeroes_are_not_sent_to_who_takes_structured_replies() {
    let served = try_talk(|mut client| {
        client.greet(3);
        client.structured();
        assert_eq!(client.go("disk"), (SIZE, 0xDED));
        client.request(0, 0, 0, 2 << 20, &[]);
        let hole = [&0_u64.to_be_bytes()[..], &(1_u32 << 20).to_be_bytes()].concat();
        assert_eq!(client.chunk(), (0, 2, hole));
        let (flags, kind, data) = client.chunk();
        assert_eq!((flags, kind, data.len()), (1, 1, 8 + (1 << 20)));
        assert_eq!(data[..9], [0, 0, 0, 0, 0, 0x10, 0, 0, 1]);
        // Unless it wants one part.
        client.request(4, 0, (1 << 20) - 4, 5, &[]);
        let (flags, kind, data) = client.chunk();
        assert_eq!((flags, kind, &data[8..]), (1, 1, &[0, 0, 0, 0, 1][..]));
    });
    served.expect("it was in order");
}

#[test]
fn status_is_told_of_the_contexts_that_were_agreed_on() {
    let served = try_talk(|mut client| {
        client.greet(3);
        client.structured();
        let text = |text: &str| {
            let len = u32::try_from(text.len()).expect("little");
            [&len.to_be_bytes(), text.as_bytes()].concat()
        };
        let queries = [text("disk"), 2_u32.to_be_bytes().to_vec(), text("base:allocation")];
        client.ask(SET_META_CONTEXT, &[queries.concat(), text("none:such")].concat());
        let (kind, data) = client.answer(SET_META_CONTEXT);
        assert_eq!((kind, &data[..]), (4, &b"\0\0\0\0base:allocation"[..]));
        assert_eq!(client.answer(SET_META_CONTEXT), (ACK, Vec::new()));
        client.go("disk");
        let size = u32::try_from(SIZE).expect("little");
        client.request(0, 7, 0, size, &[]);
        let words: Vec<u32> = vec![0, 1 << 20, 3, 1 << 20, 0, 6 << 20, 3, 512, 0];
        let expected: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        assert_eq!(client.chunk(), (1, 5, expected));
        // One run only.
        client.request(8, 7, 1 << 19, size / 2, &[]);
        assert_eq!(client.chunk().2, [0_u32, 1 << 19, 3].map(u32::to_be_bytes).concat());
    });
    served.expect("it was in order");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_the_client_goes_on() {
    let served = try_talk(|mut client| {
        client.greet(3);
        client.structured();
        client.ask(99, b"?");
        assert_eq!(client.answer(99), (1 << 31 | 1, Vec::new()));
        client.ask(GO, b"\0\0\0\x04disq\0\0");
        assert_eq!(client.answer(GO).0, 1 << 31 | 6);
        client.ask(GO, b"\0\0\0\x09disk\0\0");
        assert_eq!(client.answer(GO).0, 1 << 31 | 3);
        client.go("disk");
        for (flags, command, at, len, number, why) in [
            (0, 0, SIZE, 1, 22, "1 bytes at 0x800200 of 0x800200, expected a range of the disk"),
            (
                0,
                0,
                u64::MAX,
                2,
                22,
                "2 bytes at 0xffffffffffffffff of 0x800200, expected a range of the disk",
            ),
            (0, 0, 0, (32 << 20) + 1, 22, "33554433 bytes, expected 33554432 at most"),
            (
                0,
                6,
                SIZE - 1,
                2,
                28,
                "2 bytes at 0x8001ff of 0x800200, expected a range of the disk",
            ),
            (16, 0, 0, 1, 22, "flags 0x10, expected 0x5 at most"),
            (
                0,
                4,
                SIZE - 1,
                2,
                22,
                "2 bytes at 0x8001ff of 0x800200, expected a range of the disk",
            ),
            (0x8000, 3, 0, 0, 22, "flags 0x8000, expected 0x1 at most"),
            (0, 9, 0, 1, 22, "there is no command 9"),
            (0, 5, SIZE, 1, 22, "1 bytes at 0x800200 of 0x800200, expected a range of the disk"),
            (16, 1, 0, 0, 22, "flags 0x10, expected 0x1 at most"),
            (0, 7, 0, 1, 22, "no metadata context was agreed on"),
        ] {
            client.request(flags, command, at, len, &[]);
            assert_eq!(client.error(), (number, why.to_owned()));
        }
        // The data of a write that is too long are passed over.
        let long = vec![5; (32 << 20) + 1];
        client.request(0, 1, 0, 33_554_433, &long);
        assert_eq!(client.error().0, 22);
        client.request(0, 1, SIZE - 1, 2, &[5, 5]);
        assert_eq!(client.error().0, 28);
        client.request(1, 1, SIZE - 1, 1, &[5]);
        assert_eq!(client.simple(), 0);
    });
    served.expect("it was in order");
}

#[test]
fn a_disk_that_is_offered_for_reading_is_not_written() {
    let folder = folder();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let server = Server::new(vec![Export::new(image(&folder), "").read_only()]);
    std::thread::scope(|scope| {
        let served = scope.spawn(move || server.serve(&theirs, &theirs));
        let mut client = Client { stream: ours };
        client.greet(3);
        assert_eq!(client.go("").1 & 2, 2);
        for command in [1, 4, 6] {
            let data: &[u8] = if command == 1 { &[1] } else { &[] };
            client.request(0, command, 0, 1, data);
            assert_eq!(client.simple(), 1);
        }
        drop(client);
        served.join().expect("no panic").expect("it was in order");
    });
}

#[test]
fn a_client_that_breaks_the_protocol_is_left_with_the_reason() {
    let asks = |bytes: &'static [u8]| {
        move |mut client: Client| {
            client.greet(3);
            client.send(&[bytes]);
        }
    };
    let goes = |bytes: &'static [u8]| {
        move |mut client: Client| {
            client.greet(3);
            client.go("disk");
            client.send(&[bytes]);
        }
    };
    type Talk = Box<dyn FnOnce(Client)>;
    let talks: [(Talk, &str); 5] = [
        (Box::new(|mut client: Client| client.greet(7)), "flags 0x7, expected 0x3 at most"),
        (
            Box::new(asks(b"IHAVEOPS\0\0\0\x07\0\0\0\0")),
            "magic 0x49484156454f5053 of an option, expected 0x49484156454f5054",
        ),
        (
            Box::new(asks(b"IHAVEOPT\0\0\0\x07\xFF\0\0\0")),
            "sent 4278190080 bytes, expected 65536 at most",
        ),
        (
            Box::new(asks(b"IHAVEOPT\0\0\0\x01\0\0\0\x01x")),
            "asked for the export \"x\", which is not here",
        ),
        (Box::new(goes(&[b'x'; 28])), "magic 0x78787878 of a request, expected 0x25609513"),
    ];
    for (client, why) in talks {
        let error = try_talk(client).expect_err(why);
        assert_eq!(error.to_string(), format!("the client: {why}"));
    }
}

#[test]
fn what_was_written_before_a_connection_broke_is_in_the_disk() {
    let folder = folder();
    let disk = image(&folder);
    let served = talk(Arc::clone(&disk), |mut client| {
        client.greet(3);
        client.go("disk");
        client.request(0, 1, 4096, 512, &[4; 512]);
        assert_eq!(client.simple(), 0);
        // The data of the second never come.
        client.request(0, 1, 8192, 512, &[4; 100]);
    });
    assert!(matches!(served, Err(Error::Connection(_))), "{served:?}");
    let bytes = bytes_of(&disk);
    assert!(bytes[4096..4608] == [4; 512] && bytes[8192..8704] == [0; 512]);
}

#[test]
fn requests_of_several_connections_are_done_side_by_side() {
    let folder = folder();
    let disk = image(&folder);
    let server = Server::new(vec![Export::new(Arc::clone(&disk), "disk")]).with_threads(3);
    std::thread::scope(|scope| {
        for number in 0..4_u64 {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let server = &server;
            scope.spawn(move || server.serve(&theirs, &theirs).expect("it was in order"));
            scope.spawn(move || {
                let mut client = Client { stream: ours };
                client.greet(3);
                client.go("disk");
                let part = |index: u64| (number * 32 + index) * 65536;
                let byte = u8::try_from(number + 10).expect("little");
                // All are asked before the first answer is read.
                for index in 0..32 {
                    client.request(0, 1, part(index), 512, &[byte; 512]);
                }
                for _ in 0..32 {
                    assert_eq!(client.simple(), 0);
                }
            });
        }
    });
    for number in 0..4_u64 {
        for index in 0..32 {
            let mut bytes = [0; 512];
            disk.read(GuestOffset((number * 32 + index) * 65536), &mut bytes).expect("a read");
            assert_eq!(bytes, [u8::try_from(number + 10).expect("little"); 512]);
        }
    }
}

#[test]
fn nothing_is_read_and_written_without_complaint_and_fua_may_stand_anywhere() {
    let served = try_talk(|mut client| {
        client.greet(3);
        client.structured();
        client.go("disk");
        client.request(1, 0, 5, 0, &[]);
        assert_eq!(client.chunk(), (1, 0, Vec::new()));
        for command in [1, 3, 4, 6] {
            client.request(1, command, 0, 0, &[]);
            assert_eq!(client.simple(), 0, "{command}");
        }
        client.request(1, 0, SIZE - 1, 1, &[]);
        assert_eq!(client.chunk().2[8..], [9]);
    });
    served.expect("it was in order");
}

#[test]
fn a_disk_for_one_client_is_not_offered_to_several_connections() {
    const CAN_MULTI_CONN: u16 = 1 << 8;
    let folder = folder();
    let disk = image(&folder);
    for (export, several) in [
        (Export::new(Arc::clone(&disk), ""), CAN_MULTI_CONN),
        (Export::new(Arc::clone(&disk), "").for_one_client(), 0),
    ] {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let server = Server::new(vec![export]);
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve(&theirs, &theirs).expect("it was in order"));
            let mut client = Client { stream: ours };
            client.greet(3);
            assert_eq!(client.go("").1 & CAN_MULTI_CONN, several);
        });
    }
}

#[test]
fn writes_are_durable_when_it_was_said_that_they_are() {
    let flushes = |durability, flags: u16| {
        let recording =
            Arc::new(RecordingStorage::new(Arc::new(MemoryStorage::new(vec![0; 4096]))));
        let store: Arc<dyn Storage> = recording.clone();
        let disk = Disk::new(Arc::new(RawImage::open(store, true).expect("it opens")));
        let export = Export::new(Arc::new(disk), "").with_durability(durability);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let server = Server::new(vec![export]);
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve(&theirs, &theirs).expect("it was in order"));
            let mut client = Client { stream: ours };
            client.greet(3);
            client.go("");
            client.request(flags, 1, 0, 2, b"hi");
            assert_eq!(client.simple(), 0);
            recording.take_kind(Kind::Flush).len()
        })
    };
    assert_eq!(flushes(Durability::OnFlush, 0), 0);
    assert_eq!(flushes(Durability::OnFlush, 1), 1);
    assert_eq!(flushes(Durability::Always, 0), 1);
    assert_eq!(flushes(Durability::Never, 1), 0);
}

#[test]
fn the_cache_is_filled_with_any_part_of_the_disk() {
    let served = try_talk(|mut client| {
        client.greet(3);
        client.go("disk");
        client.request(0, 5, 0, u32::try_from(SIZE).expect("little"), &[]);
        assert_eq!(client.simple(), 0);
        client.request(1, 5, 1, 0, &[]);
        assert_eq!(client.simple(), 0);
    });
    served.expect("it was in order");
}

#[test]
fn zeroes_that_are_to_be_fast_are_refused_where_they_would_have_to_be_written() {
    const FAST: u16 = 1 << 4;
    let served = try_talk(|mut client| {
        client.greet(3);
        client.structured();
        client.go("disk");
        // Clusters, and pieces of two at the ends.
        client.request(FAST, 6, (1 << 20) + 7, 1 << 19, &[]);
        assert_eq!(client.simple(), 0);
        client.request(0, 0, (1 << 20) + 6, 3, &[]);
        assert_eq!(client.chunk().2[8..], [1, 0, 0]);
        // A part of a cluster.
        client.request(FAST, 6, (7 << 18) + 5, 4096, &[]);
        assert_eq!(client.error(), (95, "zeroes are to be written".into()));
        client.request(0, 6, (7 << 18) + 5, 4096, &[]);
        assert_eq!(client.simple(), 0);
    });
    served.expect("it was in order");
}

/// A client of a disk whose server has so many bytes for all.
fn with_memory(disk: &Arc<Disk>, bytes: usize, client: impl FnOnce(Client)) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let export = Export::new(Arc::clone(disk), "disk");
    let server = Server::new(vec![export]).with_memory(bytes);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| server.serve(&theirs, &theirs));
        client(Client { stream: ours });
        served.join().expect("no panic").expect("it was in order");
    });
}

#[test]
fn long_requests_are_done_in_pieces_whatever_memory_there_is() {
    let data: Vec<u8> = (0..5_u32 << 20).map(|at| (at >> 12).to_le_bytes()[0]).collect();
    let len = u32::try_from(data.len()).expect("little");
    for memory in [0, 3 << 20, 256 << 20] {
        let folder = folder();
        let disk = image(&folder);
        with_memory(&disk, memory, |mut client| {
            client.greet(3);
            client.go("disk");
            client.request(0, 1, 12_345, len, &data);
            assert_eq!(client.simple(), 0);
            // What is too long is passed over, and the client goes on.
            client.request(0, 1, SIZE - 1, len, &data);
            assert_eq!(client.simple(), 28);
            client.request(0, 0, 12_345, len, &[]);
            assert_eq!(client.simple(), 0);
            assert!(client.bytes(data.len()) == data);
        });
        with_memory(&disk, memory, |mut client| {
            client.greet(3);
            client.structured();
            client.go("disk");
            client.request(4, 0, 12_345, len, &[]);
            let (flags, kind, whole) = client.chunk();
            assert!((flags, kind) == (1, 1) && whole[8..] == data);
            client.request(0, 0, 12_345, len, &[]);
            let mut read = vec![0; data.len()];
            loop {
                let (flags, kind, part) = client.chunk();
                let (at, part) = part.split_first_chunk().expect("a place");
                let at = usize::try_from(u64::from_be_bytes(*at)).expect("little") - 12_345;
                // What the tables tell to be zero is not sent.
                if kind == 1 {
                    read[at..at + part.len()].copy_from_slice(part);
                }
                if flags == 1 {
                    break;
                }
            }
            assert!(read == data, "{memory}");
        });
    }
}

#[test]
fn who_only_asks_has_chosen_nothing() {
    let folder = folder();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let server = Server::new(vec![Export::new(image(&folder), "disk")]);
    std::thread::scope(|scope| {
        let greeted = scope.spawn(|| server.greet(&theirs, &theirs).map(|client| client.is_some()));
        let mut client = Client { stream: ours };
        client.greet(3);
        client.ask(3, &[]);
        assert_eq!(client.answer(3), (2, b"\0\0\0\x04disk".to_vec()));
        assert_eq!(client.answer(3), (ACK, Vec::new()));
        client.ask(2, &[]);
        assert_eq!(client.answer(2), (ACK, Vec::new()));
        assert!(!greeted.join().expect("no panic").expect("it was in order"));
    });
}
