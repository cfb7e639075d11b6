//! Modes and IVs against another implementation, published vectors, and plain arithmetic.

use cipher::{BlockCipherEncrypt, KeyInit};
use proptest::prelude::*;
use xts_mode::Xts128;

use super::*;
use crate::Key;

fn spec(text: &str) -> CipherSpec {
    CipherSpec::parse(text).unwrap()
}

fn sectors(text: &str, key: &[u8], sector: usize) -> SectorCipher {
    SectorCipher::new(spec(text), key, sector).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn counted(len: usize) -> Vec<u8> {
    (0_u8..=255).cycle().take(len).collect()
}

#[test]
fn aes_xts_gives_vector_4_of_ieee_1619() {
    let key = unhex("2718281828459045235360287471352631415926535897932384626433832795");
    let mut data = counted(512);
    sectors("aes-xts-plain64", &key, 512).encrypt(0, &mut data);
    assert_eq!(data[..16], unhex("27a7479befa1d476489f308cd4cfa6e2"));
}

#[test]
fn every_encryption_is_undone_by_decrypting_and_depends_on_the_number() {
    for text in [
        "aes-xts-plain64",
        "aes-xts-plain",
        "aes-cbc-plain",
        "aes-cbc-essiv:sha256",
        "aes-cbc-plain64be",
        "aes-ctr-plain64",
        "serpent-xts-plain64",
        "serpent-cbc-essiv:md5",
        "twofish-xts-plain64",
        "twofish-cbc-plain64",
        "cast5-cbc-plain64",
        "cast5-cbc-plain64be",
        "cast5-cbc-essiv:md5",
    ] {
        let key_len = if text.starts_with("cast5") { 16 } else { 32 };
        for sector in [512, 4096] {
            let sectors = sectors(text, &counted(key_len), sector);
            // Twofish is slow, and 65 sectors are more than one group.
            let many = if text.starts_with("twofish") { 5 } else { 65 };
            for count in [1, 3, many] {
                let plain = counted(sector * count);
                let mut data = plain.clone();
                sectors.encrypt(9, &mut data);
                let mut other = plain.clone();
                sectors.encrypt(10, &mut other);
                assert_ne!(data, other, "{text}");
                sectors.decrypt(9, &mut data);
                assert!(data == plain, "{text}, {count} sectors of {sector}");
            }
        }
    }
}

#[test]
fn a_32_bit_number_begins_again_and_a_64_bit_one_does_not() {
    let key = counted(16);
    let encrypted = |text: &str, number| {
        let mut data = vec![0; 512];
        sectors(text, &key, 512).encrypt(number, &mut data);
        data
    };
    assert_eq!(encrypted("aes-cbc-plain", 1 << 32 | 5), encrypted("aes-cbc-plain", 5));
    assert_ne!(encrypted("aes-cbc-plain64", 1 << 32 | 5), encrypted("aes-cbc-plain64", 5));
}

#[test]
fn the_legacy_key_is_the_passphrase_padded_and_cut() {
    let encrypted = |cipher: &SectorCipher| {
        let mut data = vec![0; 512];
        cipher.encrypt(3, &mut data);
        data
    };
    let same = encrypted(&sectors("aes-cbc-plain64", b"hunter2\0\0\0\0\0\0\0\0\0", 512));
    assert_eq!(encrypted(&SectorCipher::legacy(b"hunter2")), same);
    let same = encrypted(&sectors("aes-cbc-plain64", b"0123456789abcdef", 512));
    assert_eq!(encrypted(&SectorCipher::legacy(b"0123456789abcdefgh")), same);
}

#[test]
fn other_sector_sizes_are_refused() {
    for sector in [0, 16, 256, 513, 8192] {
        let error = SectorCipher::new(CipherSpec::aes_xts(), &counted(64), sector).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    }
}

#[test]
fn essiv_encrypts_the_number_with_the_hash_of_the_key() {
    let key = counted(16);
    let ivs = aes::Aes256::new_from_slice(&crate::Hash::Sha256.digest(&[&key])).unwrap();
    let mut iv = cipher::array::Array([0; 16]);
    iv[..8].copy_from_slice(&77_u64.to_le_bytes());
    ivs.encrypt_block(&mut iv);
    let mut expected = vec![0; 512];
    let data = aes::Aes128::new_from_slice(&key).unwrap();
    let mut before = iv;
    for block in expected.chunks_exact_mut(16) {
        data.encrypt_block(&mut before); // The plain block is zero.
        block.copy_from_slice(&before);
    }
    let mut found = vec![0; 512];
    sectors("aes-cbc-essiv:sha256", &key, 512).encrypt(77, &mut found);
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn aes_xts_is_that_of_the_crate_xts_mode(
        number in 0..u64::MAX - 1000,
        count in 1_usize..40,
        sector in prop::sample::select(vec![512_usize, 1024, 2048, 4096]),
        key_len in prop::sample::select(vec![32_usize, 64]),
        seed in any::<u8>(),
    ) {
        let key: Vec<u8> = counted(key_len).iter().map(|byte| byte.wrapping_mul(31) ^ seed).collect();
        let plain = counted(count * sector);
        let mut found = plain.clone();
        sectors("aes-xts-plain64", &key, sector).encrypt(number, &mut found);
        let mut expected = plain;
        by_xts_mode(&key, number, sector, &mut expected);
        prop_assert!(found == expected);
    }

    #[test]
    fn runs_of_sectors_are_encrypted_as_each_by_itself(
        text in prop::sample::select(vec![
            "aes-xts-plain64", "aes-cbc-plain64", "aes-cbc-essiv:sha256", "aes-ctr-plain64",
            "serpent-xts-plain64", "cast5-cbc-plain64",
        ]),
        count in 1_usize..80,
        sector in prop::sample::select(vec![512_usize, 4096]),
    ) {
        let key = counted(if text.starts_with("cast5") { 16 } else { 32 });
        let sectors = sectors(text, &key, sector);
        let mut run = counted(count * sector);
        let mut single = run.clone();
        sectors.encrypt(1000, &mut run);
        for (part, at) in single.chunks_mut(sector).zip(0_u64..) {
            sectors.encrypt(1000 + at * (sector as u64 / 512), part);
        }
        prop_assert!(run == single);
        sectors.decrypt(1000, &mut run);
        for (part, at) in single.chunks_mut(sector).zip(0_u64..) {
            sectors.decrypt(1000 + at * (sector as u64 / 512), part);
        }
        prop_assert!(run == single && run == counted(count * sector));
    }
}

fn by_xts_mode(key: &[u8], number: u64, sector: usize, data: &mut [u8]) {
    let iv = |at: u64| {
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&at.to_le_bytes());
        iv
    };
    let (data_key, tweak_key) = key.split_at(key.len() / 2);
    for (part, at) in data.chunks_mut(sector).zip(0_u64..) {
        let iv = iv(number + at * (sector as u64 / 512));
        if key.len() == 32 {
            let cipher = |key| aes::Aes128::new_from_slice(key).unwrap();
            Xts128::new(cipher(data_key), cipher(tweak_key)).encrypt_sector(part, iv.into());
        } else {
            let cipher = |key| aes::Aes256::new_from_slice(key).unwrap();
            Xts128::new(cipher(data_key), cipher(tweak_key)).encrypt_sector(part, iv.into());
        }
    }
}

#[test]
fn a_dropped_key_is_wiped() {
    // What can be seen without looking at freed memory: the type that wipes is in place.
    fn wipes<T: zeroize::ZeroizeOnDrop>() {}
    wipes::<aes::Aes256>();
    wipes::<serpent::Serpent>();
    wipes::<twofish::Twofish>();
    wipes::<cast5::Cast5>();
    drop(Key::zeroed(1));
}
