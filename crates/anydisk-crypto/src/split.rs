//! The anti-forensic splitter: a key spread over so many stripes that losing any byte of them
//! loses the key (LUKS1, "AF-Splitter").

use crate::{Hash, Key, Result};

/// The key that `stripes`, a whole number of pieces of `len` bytes, hold together.
///
/// # Panics
/// If `len` is 0.
#[must_use]
pub fn af_merge(hash: Hash, stripes: &[u8], len: usize) -> Key {
    let mut key = folded(hash, stripes, len);
    let last = stripes.chunks_exact(len).next_back().unwrap_or_default();
    xor(&mut key, last);
    key
}

/// `count` stripes, all but the last of them random, that hold `key` together.
///
/// # Errors
/// [`Error::Random`](crate::Error::Random).
///
/// # Panics
/// If `key` is empty, or `count` is 0.
pub fn af_split(hash: Hash, key: &[u8], count: usize) -> Result<Key> {
    let mut stripes = Key::random(key.len() * count)?;
    let mut last = folded(hash, &stripes, key.len());
    xor(&mut last, key);
    let start = stripes.len() - key.len();
    stripes[start..].copy_from_slice(&last);
    Ok(stripes)
}

/// What all stripes but the last come to.
fn folded(hash: Hash, stripes: &[u8], len: usize) -> Key {
    let mut sum = Key::zeroed(len);
    let mut pieces = stripes.chunks_exact(len);
    pieces.next_back();
    for piece in pieces {
        xor(&mut sum, piece);
        diffuse(hash, &mut sum);
    }
    sum
}

/// Replaces each piece as long as a digest by the digest of its number and itself.
fn diffuse(hash: Hash, block: &mut [u8]) {
    for (piece, number) in block.chunks_mut(hash.digest_len()).zip(0_u32..) {
        let digest = hash.digest(&[&number.to_be_bytes(), piece]);
        piece.copy_from_slice(&digest[..piece.len()]);
    }
}

fn xor(sum: &mut [u8], other: &[u8]) {
    for (byte, other) in sum.iter_mut().zip(other) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_split_comes_together_again_and_one_changed_byte_changes_it() {
        for (hash, len) in [(Hash::Sha1, 16), (Hash::Sha256, 64), (Hash::Sha512, 24)] {
            let key = Key::random(len).unwrap();
            let mut stripes = af_split(hash, &key, 40).unwrap();
            assert_eq!(*af_merge(hash, &stripes, len), *key);
            stripes[3] ^= 1;
            assert_ne!(*af_merge(hash, &stripes, len), *key);
        }
    }

    #[test]
    fn one_stripe_is_the_key_itself() {
        assert_eq!(*af_merge(Hash::Sha256, b"0123456789abcdef", 16), *b"0123456789abcdef");
    }
}
