//! Volumes made, opened, changed and damaged.

use anydisk_storage::MemoryStorage;

use super::*;
use crate::KdfLimits;

const PAYLOAD: u64 = 1 << 16;

type Made = (Arc<dyn Storage>, Luks, Key);

fn made(new: &NewLuks, slot: &NewSlot<'_>) -> Made {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    store.set_len(new.header_len() + PAYLOAD).unwrap();
    let (luks, key) = Luks::create(Arc::clone(&store), Payload::Behind, new, slot).unwrap();
    (store, luks, key)
}

fn simple(version: u32) -> Made {
    let new = if version == 1 { NewLuks::luks1() } else { NewLuks::luks2() };
    made(&new, &NewSlot::pbkdf2(b"one", 1000))
}

fn reread(store: &Arc<dyn Storage>) -> Result<Luks> {
    Luks::read(Arc::clone(store), Payload::Behind)
}

fn slot_of(luks: &Luks, passphrase: &[u8]) -> Option<u32> {
    match luks.unlock(passphrase, None, KdfLimits::default()) {
        Ok(unlocked) => Some(unlocked.slot),
        Err(Error::WrongPassphrase) => None,
        Err(error) => panic!("{error}"),
    }
}

fn flip(store: &Arc<dyn Storage>, at: u64) {
    let mut byte = [0];
    store.read_at(HostOffset(at), &mut byte).unwrap();
    store.write_at(HostOffset(at), &[byte[0] ^ 1]).unwrap();
}

#[test]
fn a_new_volume_is_opened_by_its_passphrase_and_holds_what_was_written() {
    for version in [1, 2] {
        let (store, _, key) = simple(version);
        let luks = reread(&store).unwrap();
        assert_eq!(luks.version(), version);
        let unlocked = luks.unlock(b"one", None, KdfLimits::default()).unwrap();
        assert_eq!((&*unlocked.key, unlocked.slot), (&*key, 0));
        let parts = luks.parts(&unlocked.key, &store).unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].store.len().unwrap(), PAYLOAD);
        parts[0].store.write_at(HostOffset(PAYLOAD - 5), b"hello").unwrap();
        let again = reread(&store).unwrap().parts(&unlocked.key, &store).unwrap();
        let mut bytes = [0; 5];
        again[0].store.read_exact_at(HostOffset(PAYLOAD - 5), &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}

#[test]
fn argon2_and_large_sectors_and_other_ciphers_are_made_and_opened() {
    let slot = NewSlot::argon2id(b"x", 1, 64, 1);
    for text in ["aes-xts-plain64", "serpent-cbc-essiv:sha256", "aes-cbc-plain64"] {
        let spec = CipherSpec::parse(text).unwrap();
        let mut new = NewLuks::luks2().encryption(spec, 256).unwrap();
        new.sector_size = 4096;
        let (store, ..) = made(&new, &slot);
        let luks = reread(&store).unwrap();
        let unlocked = luks.unlock(b"x", None, KdfLimits::default()).unwrap();
        assert_eq!(luks.parts(&unlocked.key, &store).unwrap()[0].store.alignment(), 4096);
        assert_eq!(luks.info().encryption, text);
    }
    assert!(NewLuks::luks1().encryption(CipherSpec::aes_xts(), 100).is_err());
}

#[test]
fn passphrases_are_added_and_removed() {
    for version in [1, 2] {
        let (store, _, key) = simple(version);
        let mut luks = reread(&store).unwrap();
        let limits = KdfLimits::default();
        assert_eq!(luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), limits).unwrap(), 1);
        assert_eq!(luks.add_slot(&key, &NewSlot::pbkdf2(b"six", 1000).at(6), limits).unwrap(), 6);
        let luks = reread(&store).unwrap();
        assert_eq!(luks.active_slots(), [0, 1, 6]);
        let slots =
            [&b"one"[..], b"two", b"six", b"ten"].map(|passphrase| slot_of(&luks, passphrase));
        assert_eq!(slots, [Some(0), Some(1), Some(6), None]);
        let mut luks = luks;
        luks.remove_slot(0, false).unwrap();
        luks.remove_slot(6, false).unwrap();
        let mut luks = reread(&store).unwrap();
        assert_eq!(luks.active_slots(), [1]);
        assert_eq!((slot_of(&luks, b"one"), slot_of(&luks, b"two")), (None, Some(1)));
        assert!(matches!(luks.remove_slot(1, false), Err(Error::Refused(_))));
        assert!(matches!(luks.remove_slot(3, true), Err(Error::Refused(_))));
        luks.remove_slot(1, true).unwrap();
        assert_eq!(slot_of(&reread(&store).unwrap(), b"two"), None);
    }
}

#[test]
fn a_slot_is_added_only_with_the_volume_key_and_where_there_is_room() {
    for (version, count) in [(1, 8), (2, 32)] {
        let (_, mut luks, key) = simple(version);
        let limits = KdfLimits::default();
        let wrong = Key::zeroed(key.len());
        let new = NewSlot::pbkdf2(b"more", 1000);
        assert!(matches!(luks.add_slot(&wrong, &new, limits), Err(Error::WrongPassphrase)));
        assert!(matches!(luks.add_slot(&key, &new.at(0), limits), Err(Error::Refused(_))));
        assert!(matches!(luks.add_slot(&key, &new.at(count), limits), Err(Error::Refused(_))));
        for number in 1..count {
            assert_eq!(luks.add_slot(&key, &new, limits).unwrap(), number);
        }
        assert!(matches!(luks.add_slot(&key, &new, limits), Err(Error::Refused(_))));
    }
}

#[test]
fn the_key_material_of_a_removed_slot_is_overwritten() {
    for version in [1, 2] {
        let (store, mut luks, key) = simple(version);
        luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), KdfLimits::default()).unwrap();
        let at = luks.info().slots[0].at;
        let material = |store: &Arc<dyn Storage>| {
            let mut bytes = vec![0; 64 * 4000];
            store.read_exact_at(at, &mut bytes).unwrap();
            bytes
        };
        let before = material(&store);
        luks.remove_slot(0, false).unwrap();
        let after = material(&store);
        let same = before.iter().zip(&after).filter(|(a, b)| a == b).count();
        assert!(same < before.len() / 100, "{same} bytes are the same");
    }
}

#[test]
fn one_damaged_copy_of_a_luks2_header_is_told_and_the_other_is_used() {
    for (at, which) in [(0, "first"), (300, "first"), (5000, "first"), (16384 + 5000, "second")] {
        let (store, ..) = simple(2);
        flip(&store, at);
        let luks = reread(&store).unwrap();
        let damaged = luks.info().damaged.unwrap();
        assert!(damaged.contains(which), "{damaged}");
        assert_eq!(slot_of(&luks, b"one"), Some(0));
    }
    let (store, ..) = simple(2);
    flip(&store, 5000);
    flip(&store, 16384 + 5000);
    let error = reread(&store).unwrap_err().to_string();
    assert!(error.starts_with("csum at 0x1c0 is"), "{error}");
}

#[test]
fn adding_a_slot_mends_a_damaged_copy() {
    let (store, _, key) = simple(2);
    flip(&store, 5000);
    let mut luks = reread(&store).unwrap();
    luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), KdfLimits::default()).unwrap();
    assert_eq!(reread(&store).unwrap().info().damaged, None);
}

#[test]
fn a_detached_header_has_its_payload_at_the_start_of_another_store() {
    for version in [1, 2] {
        let new = if version == 1 { NewLuks::luks1() } else { NewLuks::luks2() };
        let new = NewLuks { detached: true, ..new };
        let header: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let slot = NewSlot::pbkdf2(b"one", 1000);
        let (_, key) = Luks::create(Arc::clone(&header), Payload::Elsewhere, &new, &slot).unwrap();
        assert!(Luks::read(Arc::clone(&header), Payload::Behind).is_err());
        let luks = Luks::read(header, Payload::Elsewhere).unwrap();
        let data: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![0; 4096]));
        assert_eq!(luks.payload_len(4096).unwrap(), 4096);
        let parts = luks.parts(&key, &data).unwrap();
        assert_eq!((parts[0].at, parts[0].store.len().unwrap()), (HostOffset::ZERO, 4096));
    }
}

#[test]
fn a_header_inside_another_image_gives_its_cipher() {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![0; 3 << 20]));
    let window: Arc<dyn Storage> =
        Arc::new(Window::new(store, HostOffset(65536), 2 << 20).unwrap());
    let new = NewLuks { key_bytes: 32, ..NewLuks::luks1() };
    assert!(new.header_len() < 2 << 20);
    let slot = NewSlot::pbkdf2(b"one", 1000);
    let (_, key) = Luks::create(Arc::clone(&window), Payload::Elsewhere, &new, &slot).unwrap();
    let luks = Luks::read(window, Payload::Elsewhere).unwrap();
    assert_eq!(luks.payload_offset(), new.header_len());
    assert_eq!(luks.cipher(&key).unwrap().sector_size(), 512);
}

#[test]
fn costs_beyond_the_limits_are_refused_and_cheap_slots_are_tried_all_the_same() {
    let (store, mut luks, key) = made(&NewLuks::luks2(), &NewSlot::argon2id(b"one", 1, 1024, 1));
    let limits = KdfLimits::new(1 << 20, 512, 1 << 20);
    let error = luks.unlock(b"one", None, limits).unwrap_err();
    assert!(matches!(error, Error::Limit { found: 1024, limit: 512, .. }), "{error}");
    luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), limits).unwrap();
    let luks = reread(&store).unwrap();
    assert_eq!(luks.unlock(b"two", None, limits).unwrap().slot, 1);
}

#[test]
fn the_passphrase_of_another_slot_does_not_open_the_one_that_is_named() {
    let (_, mut luks, key) = simple(1);
    let limits = KdfLimits::default();
    luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), limits).unwrap();
    assert!(luks.unlock(b"one", Some(1), limits).is_err());
    assert_eq!(luks.unlock(b"two", Some(1), limits).unwrap().slot, 1);
    assert!(luks.unlock(b"two", Some(77), limits).is_err());
}

/// A LUKS2 header whose JSON was changed, with good checksums.
fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Luks> {
    let (store, luks, _) = simple(2);
    let Header::V2(chosen) = luks.header else { panic!("made as LUKS2") };
    let mut header = chosen.header;
    let mut json = serde_json::Value::Object(header.metadata.json.clone());
    edit(&mut json);
    header.metadata.json = json.as_object().expect("still an object").clone();
    for (at, bytes) in header.copies()? {
        store.write_at(at, &bytes)?;
    }
    reread(&store)
}

#[track_caller]
fn refused(edit: impl FnOnce(&mut serde_json::Value), message: &str) {
    assert_eq!(edited(edit).unwrap_err().to_string(), message);
}

#[test]
fn each_broken_rule_of_the_json_is_named_with_its_path_and_value() {
    use serde_json::json;
    refused(
        |j| j["segments"]["0"]["offset"] = json!("512"),
        "JSON.segments.0.offset at 0x1000 is \"512\", expected a place behind the key slots",
    );
    refused(
        |j| j["segments"]["0"]["size"] = json!("18446744073709551615"),
        "JSON.segments.0.size at 0x1000 is \"18446744073709551615\", expected dynamic, or a multiple of 512",
    );
    refused(
        |j| j["keyslots"]["0"]["area"]["size"] = json!("18446744073709551615"),
        "JSON.keyslots.0.area.offset at 0x1000 is \"32768\", expected an area inside that of the key slots",
    );
    refused(
        |j| j["keyslots"]["0"]["area"]["size"] = json!("4096"),
        "JSON.keyslots.0.area.size at 0x1000 is \"4096\", expected room for all stripes of the key",
    );
    refused(
        |j| j["keyslots"]["0"]["af"]["stripes"] = json!(4_000_000_000_u64),
        "JSON.keyslots.0.af.stripes at 0x1000 is \"4000000000\", expected 1 to 4000",
    );
    refused(
        |j| j["keyslots"]["0"]["key_size"] = json!(-1),
        "JSON.keyslots.0.key_size at 0x1000 is \"-1\", expected a number, not negative",
    );
    refused(
        |j| j["digests"]["0"]["keyslots"] = json!(["5"]),
        "JSON.digests.0.keyslots at 0x1000 is \"an array\", expected key slots that exist",
    );
    refused(
        |j| j["digests"]["0"]["segments"] = json!([]),
        "JSON.segments.0 at 0x1000 is \"an object\", expected a segment that a digest names",
    );
    refused(
        |j| j["config"]["json_size"] = json!("1"),
        "JSON.config.json_size at 0x1000 is \"1\", expected hdr_size less 4096",
    );
    refused(
        |j| j["config"]["keyslots_size"] = json!("+4096"),
        "JSON.config.keyslots_size at 0x1000 is \"+4096\", expected a number of 64 bits in decimal digits",
    );
    refused(
        |j| j["keyslots"]["x"] = json!({}),
        "JSON.keyslots at 0x1000 is \"an object\", expected an object whose names are numbers",
    );
    refused(
        |j| {
            j["keyslots"]["1"] = j["keyslots"]["0"].clone();
        },
        "JSON.keyslots.1.area at 0x1000 is \"an object\", expected no overlap with the area of another key slot",
    );
}

#[test]
fn what_is_not_understood_is_kept_and_what_must_be_understood_is_refused() {
    use serde_json::json;
    let mut luks = edited(|j| {
        j["tokens"]["0"] = json!({ "type": "mine", "keyslots": ["0"], "more": [1, 2] });
        j["keyslots"]["9"] = json!({
            "type": "reencrypt", "key_size": 1, "area": { "offset": "1048576", "size": "4096" },
        });
    })
    .unwrap();
    let key = luks.unlock(b"one", None, KdfLimits::default()).unwrap().key;
    luks.add_slot(&key, &NewSlot::pbkdf2(b"two", 1000), KdfLimits::default()).unwrap();
    let Header::V2(chosen) = &luks.header else { panic!("made as LUKS2") };
    assert_eq!(chosen.header.metadata.json["tokens"]["0"]["more"], json!([1, 2]));

    let needs =
        |name| edited(move |j| j["config"]["requirements"] = json!({ "mandatory": [name] }));
    let luks = needs("online-reencrypt-v2").unwrap();
    let error = luks.unlock(b"one", None, KdfLimits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the requirement \"online-reencrypt-v2\" is not supported");
}

#[test]
fn several_segments_are_parts_of_their_own() {
    use serde_json::json;
    let luks = edited(|j| {
        let mut second = j["segments"]["0"].clone();
        j["segments"]["0"]["size"] = json!("4096");
        second["offset"] = json!((16 << 20 | 8192).to_string());
        second["iv_tweak"] = json!("8");
        j["segments"]["1"] = second;
        j["digests"]["0"]["segments"] = json!(["0", "1"]);
    })
    .unwrap();
    let key = luks.unlock(b"one", None, KdfLimits::default()).unwrap().key;
    let parts = luks.parts(&key, luks.store()).unwrap();
    let lens: Vec<_> = parts.iter().map(|part| part.store.len().unwrap()).collect();
    assert_eq!(lens, [4096, PAYLOAD - 8192]);
    assert_eq!(luks.payload_len((16 << 20) + PAYLOAD).unwrap(), PAYLOAD - 4096);
    assert!(luks.payload_len((16 << 20) + 4095).is_err());
}
