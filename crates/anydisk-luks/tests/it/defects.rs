//! What other programs get wrong with LUKS, one by one; `docs/qemu-defects.md` lists it.

use std::sync::Arc;

use crate::common::{PASSPHRASE, create, location, open, options, secret};
use anydisk_core::{
    Access, CreateRequest, Disk, Format, GuestOffset, HostOffset, Limits, OpenRequest, Storage,
};
use anydisk_luks::LUKS;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::golden::{Case, cases};

fn golden(name: &str) -> (Case, Arc<dyn Storage>) {
    let case = cases("luks").into_iter().find(|case| case.name == name).expect("it is there");
    let bytes = std::fs::read(&case.unpack().path).expect("the file is there");
    (case, Arc::new(MemoryStorage::new(bytes)))
}

/// The material of such a key ends inside a sector; qemu-img aborts on an assertion, so that a
/// header alone can end it.
#[test]
fn keys_of_24_bytes_are_made_and_opened() {
    let (case, store) = golden("luks1-aes192-cbc");
    let image = open(store, Access::Read, case.secret.as_deref().expect("one")).expect("it opens");
    Disk::new(image).read(GuestOffset(0), &mut [0; 4096]).expect("it reads");
    for mode in ["cbc", "xts"] {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let given = options(&[("cipher-alg", "aes-192"), ("cipher-mode", mode)]);
        let made = create(Arc::clone(&store), 4096, &given);
        let image = made.unwrap_or_else(|error| panic!("{mode}: {error}"));
        Disk::new(image).write(GuestOffset(0), b"hello").expect("a write to memory");
        let image = open(store, Access::Read, PASSPHRASE).expect("it opens");
        let mut bytes = [0; 5];
        Disk::new(image).read(GuestOffset(0), &mut bytes).expect("it reads");
        assert_eq!(&bytes, b"hello", "{mode}");
    }
}

/// The start of the material and its length, added in 32 bits, wrap and pass qemu's check.
#[test]
fn key_material_behind_the_end_of_all_sectors_is_refused_and_does_not_wrap() {
    let (_, store) = golden("luks1-slot-offset-max");
    let (location, limits) = (location(), Limits::default());
    let error = LUKS.open(OpenRequest::new(store, &location, &limits)).expect_err("it is refused");
    assert!(error.to_string().contains("0xffffffff") || error.to_string().contains("4294967295"));
}

/// qemu takes a passphrase up to its first zero byte only.
#[test]
fn a_passphrase_is_all_of_its_bytes() {
    let (location, limits, whole) = (location(), Limits::default(), "front\0back");
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let given = options(&[]);
    let request = CreateRequest::new(Arc::clone(&store), &location, 4096, &given, &limits);
    LUKS.create(CreateRequest { secrets: &secret(whole), ..request }).expect("it is made");
    for (passphrase, opens) in [(whole, true), ("front", false), ("front\0", false)] {
        let opened = open(Arc::clone(&store), Access::Read, passphrase);
        assert_eq!(opened.is_ok(), opens, "{passphrase:?}");
    }
}

/// cryptsetup mends a damaged copy of a header also when it is only asked what is there.
#[test]
fn a_damaged_copy_of_a_header_is_left_alone_by_whoever_only_reads() {
    for name in ["luks2-primary-bad-csum", "luks2-primary-wiped", "luks2-secondary-wiped"] {
        let (case, store) = golden(name);
        let bytes = || {
            let len = usize::try_from(store.len().expect("a length")).expect("small");
            let mut bytes = vec![0; len];
            store.read_at(HostOffset::ZERO, &mut bytes).expect("a read of memory");
            bytes
        };
        let before = bytes();
        let passphrase = case.secret.as_deref().expect("one");
        let image = open(Arc::clone(&store), Access::Read, passphrase).expect("it opens");
        Disk::new(image).read(GuestOffset(0), &mut [0; 512]).expect("it reads");
        assert!(bytes() == before, "{name}");
    }
}
