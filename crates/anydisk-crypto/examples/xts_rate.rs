//! How fast AES-256-XTS is, with sectors of 512 bytes and of 4096, by the time that each thread had a
//! processor (Linux; elsewhere by the clock). Beside it, measured so as well: `openssl speed -evp aes-256-xts -bytes 16384` (with `-multi 2` for two threads),
//! which makes one unit of all 16 KiB.
//!
//!     cargo run --release -p anydisk-crypto --example xts_rate

use std::hint::black_box;
use std::time::{Duration, Instant};

use anydisk_crypto::{CipherSpec, Result, SectorCipher};

/// Bytes at a time.
const LEN: usize = 16 << 10;
/// How long each figure takes, and how often it is taken: the best counts.
const TIME: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let spec = CipherSpec::parse("aes-xts-plain64")?;
    for sector in [512, 4096] {
        let cipher = SectorCipher::new(spec, &[7; 64], sector)?;
        for threads in [1, 2] {
            let [decrypt, encrypt] = [false, true].map(|way| best(&cipher, threads, way));
            println!(
                "sectors of {sector}, {threads} threads: {decrypt:.0} MB/s decrypted, \
                 {encrypt:.0} MB/s encrypted"
            );
        }
    }
    Ok(())
}

/// Megabytes a second of so many threads together.
fn best(cipher: &SectorCipher, threads: usize, encrypts: bool) -> f64 {
    let rate = |_| -> f64 {
        std::thread::scope(|scope| {
            let work = || scope.spawn(|| one(cipher, encrypts));
            let all: Vec<_> = (0..threads).map(|_| work()).collect();
            all.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
        })
    };
    (0..ROUNDS).map(rate).fold(0.0, f64::max)
}

fn one(cipher: &SectorCipher, encrypts: bool) -> f64 {
    let mut data = vec![0; LEN];
    let (clock, begin, mut done) = (Instant::now(), on_processor(), 0.0);
    while clock.elapsed() < TIME {
        for _ in 0..64 {
            let data = black_box(data.as_mut_slice());
            if encrypts {
                cipher.encrypt(0, data)
            } else {
                cipher.decrypt(0, data)
            }
            done += 16_384.0;
        }
    }
    let spent = match (begin, on_processor()) {
        (Some(begin), Some(end)) => end.saturating_sub(begin),
        _ => clock.elapsed(),
    };
    done / spent.as_secs_f64() / 1e6
}

/// How long this thread had a processor.
fn on_processor() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
