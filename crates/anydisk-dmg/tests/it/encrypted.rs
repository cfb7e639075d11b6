//! Encrypted images: two that Python and openssl made, and hdiutil's of the bigger corpus.

use std::sync::Arc;

use anydisk_core::{
    CheckRequest, Disk, Format, GuestOffset, Limits, Location, OneSecret, OpenRequest, Result,
    Secret,
};
use anydisk_dmg::DMG;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::corpus;

/// An image with a trailer, by AES-256 in blocks of 512 bytes.
const WITH_TRAILER: &[u8] = include_bytes!("../data/encrypted-aes256.dmg");

/// A disk as it is, by AES-128 in blocks of 4096 bytes.
const PLAIN: &[u8] = include_bytes!("../data/encrypted-aes128-raw.dmg");

/// Does something with a request for the image, and this passphrase.
fn with<R>(
    bytes: &[u8],
    passphrase: Option<&str>,
    limits: &Limits,
    act: impl FnOnce(OpenRequest<'_>) -> R,
) -> R {
    let location = Location::Other("disk.dmg".into());
    let secret = passphrase.map(|text| OneSecret(Secret::new(text.into())));
    let store = Arc::new(MemoryStorage::new(bytes.to_vec()));
    let mut request = OpenRequest::new(store, &location, limits);
    if let Some(secret) = &secret {
        request.secrets = secret;
    }
    act(request)
}

fn open(bytes: &[u8], passphrase: Option<&str>) -> Result<Disk> {
    with(bytes, passphrase, &Limits::strict(), |request| Ok(Disk::new(DMG.open(request)?.image)))
}

fn contents(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(disk.size()).expect("small")];
    disk.read(GuestOffset(0), &mut all).expect("it reads");
    all
}

fn refusal(bytes: &[u8], passphrase: Option<&str>) -> String {
    open(bytes, passphrase).unwrap_err().to_string()
}

#[test]
fn an_image_with_a_trailer_is_read_by_its_passphrase() {
    let case = anydisk_testkit::golden::cases("dmg");
    let case = case.into_iter().find(|case| case.name == "ulfo-lzfse").expect("is there");
    let plain = std::fs::read(case.unpack().path).expect("a file");
    let disk = open(WITH_TRAILER, Some("swordfish")).expect("it opens");
    assert!(disk.top().info().encrypted);
    assert!(contents(&disk) == contents(&open(&plain, None).expect("it opens")));
}

#[test]
fn a_disk_as_it_is_is_read_by_its_passphrase_at_any_place() {
    let disk = open(PLAIN, Some("swordfish")).expect("it opens");
    let all = contents(&disk);
    assert_eq!(all.len(), 8 * 512);
    for (number, sector) in all.chunks(512).enumerate() {
        let tag = format!("sector {number} of a disk without a trailer ");
        assert!(sector.starts_with(tag.as_bytes()), "{number}");
    }
    for (at, len) in [(1, 1), (500, 30), (511, 513), (3000, 1096), (4095, 1)] {
        let mut piece = vec![0; len];
        disk.read(GuestOffset(at), &mut piece).expect("it reads");
        let at = usize::try_from(at).expect("small");
        assert!(piece == all[at..at + len], "{len} bytes at {at}");
    }
}

#[test]
fn without_its_passphrase_an_image_is_refused_by_name() {
    let missing = "key-secret: the passphrase of the image is needed";
    assert_eq!(refusal(WITH_TRAILER, None), missing);
    let wrong = "key-secret: it opens none of the keys";
    assert_eq!(refusal(WITH_TRAILER, Some("sardine")), wrong);
    assert_eq!(refusal(PLAIN, Some("")), wrong);
}

#[test]
fn a_passphrase_that_costs_too_much_is_refused_before_any_work() {
    let mut limits = Limits::default();
    limits.kdf_iterations = 3999;
    let opened = with(PLAIN, Some("swordfish"), &limits, |request| DMG.open(request).map(drop));
    let expected = "dmg: iterations of PBKDF2 is 4000, more than the limit of 3999";
    assert_eq!(opened.unwrap_err().to_string(), expected);
}

#[test]
fn a_broken_header_is_refused_with_the_place_and_value_of_its_field() {
    // Places of the fields: header, key of a certificate, key of a passphrase at 0x74.
    for (at, value, expected) in [
        (11, 3, "dmg: encryption of version 3 is not supported"),
        (23, 2, "dmg: encryption by 0x80000002 with 256 bits is not supported"),
        (26, 2, "dmg: encryption by 0x80000001 with 512 bits is not supported"),
        (54, 3, "dmg: block_size at 0x34 is 768, expected a power of two, 512 to 4096"),
        (61, 1, "dmg: data_size at 0x38 is 67368, expected whole blocks in the file of 6144 bytes"),
        (99, 3, "dmg: encryption that no passphrase opens is not supported"),
        (0x77, 104, "dmg: keys that are wrapped by [104, 0, 192, 17, 7, 6] is not supported"),
        (0x83, 33, "dmg: salt_len at 0x80 is 33, expected up to 32"),
        (0xA7, 16, "dmg: iv_len at 0xa4 is 16, expected 8"),
        (0xDB, 63, "dmg: blob_len at 0xd8 is 63, expected a multiple of 8, up to 512"),
    ] {
        let mut bytes = WITH_TRAILER.to_vec();
        bytes[at] = value;
        assert_eq!(refusal(&bytes, Some("swordfish")), expected, "byte {at}");
    }
}

#[test]
fn what_hdiutil_encrypted_holds_by_its_checksums() {
    let rows = corpus::rows("dmg");
    let Some(row) = rows.iter().find(|row| row.name == "dmgwiz-aes256") else { return };
    let bytes = std::fs::read(row.unpack().path).expect("a file");
    let passphrase = row.open.strip_prefix("password=");
    with(&bytes, passphrase, &Limits::default(), |request| {
        let report =
            DMG.check(&CheckRequest::new(request.clone()), &mut |found| panic!("{found:?}"));
        assert!(report.expect("it is checked").is_clean());
        let disk = Disk::new(DMG.open(request).expect("it opens").image);
        assert_eq!(&contents(&disk)[512..520], b"EFI PART");
    });
}
