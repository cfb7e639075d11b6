//! Encrypting sectors: ours beside the crate `xts-mode`, and an encrypted store.

use std::hint::black_box;
use std::sync::Arc;

use aes::Aes256;
use aes::cipher::KeyInit;
use anydisk_crypto::{CipherSpec, EncryptedStorage, PastEnd, SectorCipher};
use anydisk_storage::{HostOffset, MemoryStorage, Storage, StorageExt};
use criterion::{Criterion, Throughput};
use xts_mode::Xts128;

const KEY: [u8; 64] = [7; 64];

fn cipher(text: &str, key: &[u8], sector: usize) -> SectorCipher {
    let spec = CipherSpec::parse(text).expect("a known encryption");
    SectorCipher::new(spec, key, sector).expect("a key that fits")
}

/// Sector by sector, as a program without a loop of its own would do it.
fn by_xts_mode(xts: &Xts128<Aes256>, data: &mut [u8]) {
    for (sector, number) in data.chunks_mut(512).zip(0_u128..) {
        xts.decrypt_sector(sector, number.to_le_bytes().into());
    }
}

fn sectors(criterion: &mut Criterion) {
    let half = |half: &[u8]| Aes256::new_from_slice(half).expect("32 bytes");
    let xts = Xts128::new(half(&KEY[..32]), half(&KEY[32..]));
    for (what, len) in [("4 KiB", 4096), ("64 KiB", 64 << 10)] {
        let mut group = criterion.benchmark_group(format!("AES-256-XTS, {what}"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut data = vec![0; len];
        let small = cipher("aes-xts-plain64", &KEY, 512);
        group.bench_function("decrypt", |b| b.iter(|| small.decrypt(0, black_box(&mut data))));
        group.bench_function("encrypt", |b| b.iter(|| small.encrypt(0, black_box(&mut data))));
        let large = cipher("aes-xts-plain64", &KEY, 4096);
        group.bench_function("decrypt, sectors of 4 KiB", |b| {
            b.iter(|| large.decrypt(0, black_box(&mut data)));
        });
        group.bench_function("decrypt, xts-mode", |b| {
            b.iter(|| by_xts_mode(&xts, black_box(&mut data)));
        });
        let cbc = cipher("aes-cbc-essiv:sha256", &KEY[..16], 512);
        group.bench_function("decrypt, AES-128-CBC-ESSIV", |b| {
            b.iter(|| cbc.decrypt(0, black_box(&mut data)));
        });
        group.finish();
    }
}

fn stores(criterion: &mut Criterion) {
    const LEN: usize = 1 << 20;
    let memory = Arc::new(MemoryStorage::new(vec![1; 4 * LEN]));
    let cipher = cipher("aes-xts-plain64", &KEY, 512);
    let store = EncryptedStorage::new(memory, cipher, 0, PastEnd::Nothing);
    let mut group = criterion.benchmark_group("an encrypted store in memory, 1 MiB");
    group.throughput(Throughput::Bytes(LEN as u64));
    let mut data = vec![0; LEN];
    for (what, at) in [("whole sectors", LEN as u64), ("any bytes", 777)] {
        group.bench_function(format!("read, {what}"), |b| {
            b.iter(|| store.read_exact_at(HostOffset(at), &mut data).expect("in the store"));
        });
        group.bench_function(format!("write, {what}"), |b| {
            b.iter(|| store.write_at(HostOffset(at), &data).expect("in the store"));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    sectors(&mut criterion);
    stores(&mut criterion);
    criterion.final_summary();
}
