//! Passphrases, detached headers, sizes, and what is told of a container.

use std::sync::Arc;

use crate::common::{Named, PASSPHRASE};
use anydisk_core::{
    Access, DetailValue, Disk, Error, Format, GuestOffset, Limits, MeasureRequest, OpenRequest,
    Options, Preallocation, Storage,
};
use anydisk_crypto::luks::{Luks, NewLuks, NewSlot, Payload};
use anydisk_luks::{LUKS, open_detached};
use anydisk_storage::{FileStorage, MemoryStorage, OpenOptions};
use anydisk_testkit::digest::{Reading, content_sha256};
use anydisk_testkit::golden::cases;

const SIZE: u64 = 64 << 10;

fn new_store(given: &[(&str, &str)]) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let image =
        crate::common::create(Arc::clone(&store), SIZE, &crate::common::options(given)).unwrap();
    assert_eq!(image.size(), SIZE);
    store
}

fn opens_with(store: &Arc<dyn Storage>, passphrase: &str) -> bool {
    match crate::common::open(Arc::clone(store), Access::Read, passphrase) {
        Ok(_) => true,
        Err(Error::Secret { option: "key-secret", .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_space_of_a_new_container_is_taken_only_where_that_is_asked_for() {
    for (how, taken) in [("off", false), ("metadata", false), ("falloc", true), ("full", true)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let store = FileStorage::open(file.path(), &OpenOptions::new().write(true)).unwrap();
        let store: Arc<dyn Storage> = Arc::new(store);
        let options = crate::common::options(&[("preallocation", how)]);
        crate::common::create(Arc::clone(&store), 8 << 20, &options).unwrap();
        let allocated = store.holes().expect("a file").allocated().unwrap();
        assert_eq!(allocated >= 8 << 20, taken, "{how}: {allocated}");
    }
}

#[test]
fn a_wrong_passphrase_is_refused_in_clear_words() {
    let store = new_store(&[]);
    let error = crate::common::open(store, Access::Read, "battery staple").unwrap_err();
    assert_eq!(error.to_string(), "key-secret: invalid password, cannot unlock any key slot");
}

#[test]
fn without_a_passphrase_the_header_is_told_and_nothing_else() {
    let store = new_store(&[]);
    let (location, limits) = (crate::common::location(), Limits::default());
    let image = LUKS.open(OpenRequest::new(store, &location, &limits)).unwrap().image;
    assert_eq!(image.size(), SIZE);
    assert!(image.info().encrypted && image.writer().is_none() && image.resizer().is_none());
    let error = Disk::new(image).read(GuestOffset(0), &mut [0]).unwrap_err();
    assert_eq!(error.to_string(), "key-secret: the passphrase of the image is needed");
}

#[test]
fn creating_without_a_passphrase_is_refused() {
    let (location, limits) = (crate::common::location(), Limits::default());
    let (store, options) = (Arc::new(MemoryStorage::default()), crate::common::options(&[]));
    let request = anydisk_core::CreateRequest::new(store, &location, SIZE, &options, &limits);
    let error = LUKS.create(request).unwrap_err();
    assert!(matches!(error, Error::Secret { option: "key-secret", .. }), "{error}");
}

#[test]
fn every_encryption_that_can_be_asked_for_is_made_and_opened_or_refused_by_name() {
    let mut made = 0;
    for cipher in ["aes-128", "aes-192", "aes-256", "serpent-256", "twofish-128", "cast5-128"] {
        for mode in ["cbc", "ctr", "ecb", "xts"] {
            for iv in ["plain", "plain64", "essiv"] {
                let given = [("cipher-alg", cipher), ("cipher-mode", mode), ("ivgen-alg", iv)];
                // Twofish is too slow for all of them.
                if cipher == "twofish-128" && (mode, iv) != ("cbc", "plain64") {
                    continue;
                }
                let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
                match crate::common::create(
                    Arc::clone(&store),
                    4096,
                    &crate::common::options(&given),
                ) {
                    Ok(image) => {
                        Disk::new(image).write(GuestOffset(3), b"hello").unwrap();
                        let image = crate::common::open(store, Access::Read, PASSPHRASE).unwrap();
                        let mut bytes = [0; 5];
                        Disk::new(image).read(GuestOffset(3), &mut bytes).unwrap();
                        assert_eq!(&bytes, b"hello", "{given:?}");
                        made += 1;
                    }
                    // CAST5 has no XTS, and takes no key as long as the digest that ESSIV wants.
                    Err(error) => assert_eq!(cipher, "cast5-128", "{error}"),
                }
            }
        }
    }
    assert_eq!(made, 4 * 12 + 1 + 6);
}

#[test]
fn passphrases_are_added_and_removed_by_amending() {
    for version in ["1", "2"] {
        let store = new_store(&[("luks-version", version)]);
        let secrets =
            Named(&[("key-secret", PASSPHRASE), ("new-secret", "two"), ("old-secret", "two")]);
        let quick = ("iter-time", "0");
        crate::common::amend(&store, &secrets, &[("state", "active"), quick], false).unwrap();
        crate::common::amend(
            &store,
            &secrets,
            &[("state", "active"), ("keyslot", "5"), quick],
            false,
        )
        .unwrap();
        assert!(opens_with(&store, PASSPHRASE) && opens_with(&store, "two"));
        // By its number, then all that the passphrase opens.
        crate::common::amend(&store, &secrets, &[("state", "inactive"), ("keyslot", "1")], false)
            .unwrap();
        assert!(opens_with(&store, "two"));
        // A number and a passphrase must agree.
        let both = [("state", "inactive"), ("keyslot", "0"), ("old-secret", "x")];
        let error = crate::common::amend(&store, &secrets, &both, false).unwrap_err();
        assert!(matches!(error, Error::Secret { option: "old-secret", .. }), "{error}");
        crate::common::amend(&store, &secrets, &[("state", "inactive")], false).unwrap();
        assert!(opens_with(&store, PASSPHRASE) && !opens_with(&store, "two"));
        let error =
            crate::common::amend(&store, &secrets, &[("state", "inactive")], false).unwrap_err();
        assert!(matches!(error, Error::Secret { option: "old-secret", .. }), "{error}");
    }
}

#[test]
fn the_last_passphrase_is_removed_only_by_force() {
    for given in [&[("state", "inactive"), ("keyslot", "0")][..], &[("state", "inactive")]] {
        let store = new_store(&[]);
        let secrets = Named(&[("old-secret", PASSPHRASE)]);
        let error = crate::common::amend(&store, &secrets, given, false).unwrap_err();
        assert!(matches!(error, Error::Unusable { .. }), "{error}");
        assert!(opens_with(&store, PASSPHRASE));
        crate::common::amend(&store, &secrets, given, true).unwrap();
        assert!(!opens_with(&store, PASSPHRASE));
    }
}

#[test]
fn amending_says_what_it_misses() {
    let store = new_store(&[]);
    let refusal = |given: &[(&str, &str)], secrets: &Named| {
        crate::common::amend(&store, secrets, given, false).unwrap_err().to_string()
    };
    let some = Named(&[("key-secret", "wrong"), ("new-secret", "two")]);
    assert_eq!(refusal(&[], &some), "luks: option state=: expected active or inactive");
    let add = [("state", "active"), ("iter-time", "0")];
    assert_eq!(refusal(&add, &Named(&[])), "key-secret: a passphrase is needed");
    assert_eq!(refusal(&add, &some), "key-secret: invalid password, cannot unlock any key slot");
    let remove = [("state", "inactive")];
    assert_eq!(
        refusal(&remove, &Named(&[])),
        "luks: option keyslot=: expected a key slot or old-secret"
    );
    let expected = "luks: option iter-time=10: expected nothing where a passphrase is removed";
    assert_eq!(refusal(&[remove[0], ("iter-time", "10")], &some), expected);
    let expected = "luks: option old-secret=x: expected nothing where a passphrase is added";
    assert_eq!(refusal(&[add[0], ("old-secret", "x")], &some), expected);
}

#[test]
fn the_golden_detached_header_opens_with_its_data() {
    let case = cases("luks").into_iter().find(|case| case.name == "luks1-detached").unwrap();
    let unpacked = case.unpack();
    let bytes = |name: &str| std::fs::read(unpacked.file(name)).unwrap();
    let header = Arc::new(MemoryStorage::new(bytes("luks1-detached.hdr")));
    let data = Arc::new(MemoryStorage::new(bytes("luks1-detached.data")));
    let (location, limits) = (crate::common::location(), Limits::default());
    let request = OpenRequest::new(data, &location, &limits);
    let secrets = crate::common::secret(case.secret.as_deref().unwrap());
    let opened = open_detached(&OpenRequest { secrets: &secrets, ..request }, header).unwrap();
    let found = content_sha256(&Disk::new(opened.image), Reading::Odd).unwrap();
    assert_eq!(Some(found), case.expect.content_sha256);
}

#[test]
fn a_disk_grows_with_zeroes_and_shrinks() {
    let store = new_store(&[("cipher-mode", "cbc")]);
    let image = crate::common::open(Arc::clone(&store), Access::ReadWrite, PASSPHRASE).unwrap();
    let disk = Disk::new(crate::common::zero(image));
    disk.write(GuestOffset(SIZE - 512), &[7; 512]).unwrap();
    disk.resize(SIZE - 512, Preallocation::Off).unwrap();
    disk.resize(1 << 20, Preallocation::Off).unwrap();
    disk.flush().unwrap();
    let image = crate::common::open(store, Access::Read, PASSPHRASE).unwrap();
    let mut bytes = vec![1; 1 << 20];
    Disk::new(image).read(GuestOffset(0), &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert!(disk.resize((1 << 20) + 1, Preallocation::Off).is_err());
}

#[test]
fn a_file_has_the_length_that_was_measured() {
    for given in [&[][..], &[("cipher-alg", "aes-128")], &[("luks-version", "2")]] {
        let options = crate::common::options(given);
        let request = MeasureRequest { size: SIZE, options: &options, data: &[] };
        let measured = LUKS.measure(&request).unwrap();
        assert_eq!(measured.required, new_store(given).len().unwrap());
        assert_eq!(measured.fully_allocated, measured.required);
    }
}

#[test]
fn a_size_is_rounded_up_to_whole_sectors() {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let image = crate::common::create(store, 1000, &crate::common::options(&[])).unwrap();
    assert_eq!(image.size(), 1024);
}

#[test]
fn a_damaged_copy_of_the_header_is_a_warning() {
    let store = new_store(&[("luks-version", "2")]);
    store.write_at(anydisk_core::HostOffset(5000), b"x").unwrap();
    let (location, limits) = (crate::common::location(), Limits::default());
    let opened = LUKS.open(OpenRequest::new(store, &location, &limits)).unwrap();
    assert_eq!(opened.warnings.len(), 1);
    assert!(
        opened.warnings[0].starts_with("the first copy of the header is damaged: csum at 0x1c0")
    );
}

#[test]
fn a_costly_key_slot_is_refused_by_the_limits_of_the_caller() {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let (new, slot) = (NewLuks::luks2(), NewSlot::argon2id(b"x", 1, 2048, 1));
    Luks::create(Arc::clone(&store), Payload::Behind, &new, &slot).unwrap();
    let location = crate::common::location();
    let open = |memory| {
        let mut limits = Limits::strict();
        limits.kdf_memory = memory;
        let request = OpenRequest::new(Arc::clone(&store), &location, &limits);
        LUKS.open(OpenRequest { secrets: &crate::common::secret("x"), ..request }).map(drop)
    };
    let error = open(1 << 20).unwrap_err().to_string();
    assert_eq!(error, "luks: KiB of memory for argon2 is 2048, more than the limit of 1024");
    open(2 << 20).unwrap();
}

#[test]
fn info_has_the_names_and_the_order_of_qemu_img() {
    let store =
        new_store(&[("cipher-mode", "cbc"), ("ivgen-alg", "essiv"), ("cipher-alg", "serpent-128")]);
    let image = crate::common::open(store, Access::Read, PASSPHRASE).unwrap();
    let details = image.info().details;
    let names: Vec<_> = details.iter().map(|detail| detail.name).collect();
    assert_eq!(
        names,
        [
            "ivgen-alg",
            "detached-header",
            "hash-alg",
            "cipher-alg",
            "uuid",
            "ivgen-hash-alg",
            "cipher-mode",
            "slots",
            "payload-offset",
            "master-key-iters"
        ]
    );
    assert_eq!(details[3].value, DetailValue::Text("serpent-128".into()));
    let DetailValue::List(slots) = &details[7].value else { panic!("slots are a list") };
    assert_eq!(slots.len(), 8);
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let refusal = |given: &[(&str, &str)]| {
        let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        crate::common::create(store, SIZE, &crate::common::options(given)).unwrap_err().to_string()
    };
    let large = [("sector-size", "4096")];
    assert_eq!(refusal(&large), "luks: LUKS1 with sectors of 4096 bytes is not supported");
    let xts = [("cipher-alg", "cast5-128")];
    assert_eq!(refusal(&xts), "luks: cast5-xts-plain64 is not supported");
    assert!(Options::of(&LUKS).set("cipher-alg", "des").is_err());
}
