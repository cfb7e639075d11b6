//! The encrypted view against a byte vector, on many threads, and at its ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anydisk_storage::MemoryStorage;
use proptest::prelude::*;

use super::*;
use crate::CipherSpec;

fn cipher(text: &str, sector: usize) -> SectorCipher {
    SectorCipher::new(CipherSpec::parse(text).unwrap(), &[7; 32], sector).unwrap()
}

/// A view of `len` encrypted bytes that are zero when decrypted.
fn zeroed(text: &str, sector: usize, len: u64) -> EncryptedStorage {
    let memory = Arc::new(MemoryStorage::default());
    let view = EncryptedStorage::new(memory, cipher(text, sector), 11, PastEnd::Nothing);
    view.set_len(len).unwrap();
    view
}

fn read(store: &dyn Storage, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    let count = store.read_at(HostOffset(at), &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

#[test]
fn what_lies_in_the_store_is_the_sectors_encrypted_by_their_numbers() {
    let view = zeroed("aes-xts-plain64", 512, 8192);
    view.write_at(HostOffset(1000), b"hello").unwrap();
    let mut plain = vec![0; 8192];
    plain[1000..1005].copy_from_slice(b"hello");
    view.cipher().encrypt(11, &mut plain);
    assert_eq!(read(&**view.encrypted(), 0, 8192), plain);
}

#[test]
fn a_new_length_reads_as_zero_and_must_be_whole_sectors() {
    let view = zeroed("aes-cbc-essiv:sha256", 4096, 8192);
    view.write_at(HostOffset(4096), &[9; 4096]).unwrap();
    view.set_len(4096).unwrap();
    view.set_len(1 << 20).unwrap();
    assert_eq!(read(&view, 4096, 1 << 20), vec![0; (1 << 20) - 4096]);
    assert!(matches!(view.set_len(5000), Err(Error::Unsupported { .. })));
    assert_eq!(view.len().unwrap(), 1 << 20);
}

#[test]
fn a_volume_ends_with_its_last_whole_sector() {
    let view = zeroed("aes-xts-plain64", 512, 1024);
    view.encrypted().set_len(1500).unwrap();
    assert_eq!(view.len().unwrap(), 1024);
    assert_eq!(read(&view, 1000, 100), vec![0; 24]);
    assert!(read(&view, 1024, 100).is_empty());
    assert!(read(&view, u64::MAX - 10, 100).is_empty());
    for (at, len) in [(1024, 1), (1000, 100), (u64::MAX, 2)] {
        let error = view.write_at(HostOffset(at), &vec![1; len]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { end: 1024, .. }), "{error}");
    }
    assert_eq!(read(&view, 0, 1024), vec![0; 1024]);
}

#[test]
fn past_the_end_of_a_qcow2_file_there_are_encrypted_zeroes() {
    let memory = Arc::new(MemoryStorage::new(vec![0; 600]));
    let cipher = cipher("aes-xts-plain64", 512);
    let view = EncryptedStorage::new(memory, cipher, 0, PastEnd::Ciphertext);
    let mut noise = vec![0; 2048];
    view.cipher().decrypt(0, &mut noise);
    assert_eq!(read(&view, 0, 2048), noise);
    // A write into a sector behind the end keeps the bytes beside it.
    view.write_at(HostOffset(1500), b"here").unwrap();
    noise[1500..1504].copy_from_slice(b"here");
    assert_eq!(read(&view, 0, 2048), noise);
    assert_eq!(view.len().unwrap(), 1536);
    view.set_len(4096).unwrap();
    assert_eq!((view.len().unwrap(), read(&view, 0, 2048)), (4096, noise));
    assert!(view.write_at(HostOffset(u64::MAX - 4), &[1; 2]).is_err());
}

#[test]
fn nothing_leads_around_the_encryption() {
    let view = zeroed("aes-xts-plain64", 512, 1024);
    assert!(view.fd().is_none() && view.holes().is_none());
    assert!(view.space().is_none() && view.copier().is_none());
    assert_eq!(view.identity(), view.encrypted().identity());
    assert_eq!(view.alignment(), 512);
}

#[test]
fn writers_of_parts_of_one_sector_do_not_lose_each_others_bytes() {
    let view = zeroed("aes-cbc-plain64", 4096, 8192);
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let view = &view;
            scope.spawn(move || {
                for round in 0..200_u8 {
                    for at in 0..16 {
                        let place = HostOffset(u64::from(number) + 8 * at * 61);
                        view.write_at(place, &[round ^ number]).unwrap();
                    }
                }
            });
        }
    });
    for number in 0..8_u8 {
        for at in 0..16 {
            let place = u64::from(number) + 8 * at * 61;
            assert_eq!(read(&view, place, 1), [199 ^ number], "byte {place}");
        }
    }
}

#[test]
fn bytes_beside_a_write_are_never_read_as_others() {
    let view = zeroed("aes-cbc-plain64", 4096, 4096);
    view.write_at(HostOffset(0), &[5; 4096]).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Relaxed) {
                assert_eq!(read(&view, 100, 3996), vec![5; 3996]);
            }
        });
        for round in 0..2000_u32 {
            let byte = round.to_le_bytes()[0];
            view.write_at(HostOffset(0), &[byte; 100]).unwrap();
        }
        stop.store(true, Relaxed);
        reader.join().unwrap();
    });
}

/// Bytes of the disk in the property below: a region and a half.
const LEN: usize = 384 << 10;

fn place() -> impl Strategy<Value = (usize, usize)> {
    let border = 256_usize << 10;
    let near = prop_oneof![0..2000_usize, border - 3000..border + 3000, LEN - 5000..LEN];
    (near, 0..9000_usize).prop_map(|(at, len)| (at, len.min(LEN - at)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn writes_and_reads_of_any_bytes_equal_a_byte_vector(
        text in prop::sample::select(vec!["aes-xts-plain64", "aes-cbc-essiv:sha256"]),
        sector in prop::sample::select(vec![512_usize, 4096]),
        steps in prop::collection::vec((place(), any::<u8>(), any::<bool>()), 1..30),
    ) {
        let view = zeroed(text, sector, LEN as u64);
        let mut model = vec![0; LEN];
        for ((at, len), byte, cut) in steps {
            let data: Vec<u8> = (0..len).map(|n| byte.wrapping_add(n.to_le_bytes()[0])).collect();
            let place = HostOffset(at as u64);
            if cut {
                let (a, b) = data.split_at(len / 3);
                view.write_vectored_at(place, &[IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)]).unwrap();
            } else {
                view.write_at(place, &data).unwrap();
            }
            model[at..at + len].copy_from_slice(&data);
            let from = at.saturating_sub(700);
            prop_assert!(read(&view, from as u64, len + 1400) == model[from..LEN.min(from + len + 1400)]);
        }
        prop_assert!(read(&view, 0, LEN + 10) == model);
    }
}
