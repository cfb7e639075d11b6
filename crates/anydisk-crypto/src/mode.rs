//! Block ciphers in the modes that disks use: whole units (sectors), each with its own IV.
//!
//! Processors encrypt many blocks at once much faster than one after the other, so every mode here
//! is written over batches of [`BATCH`] blocks, across the borders of units.

use std::fmt::{self, Debug};

use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    Block, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, ParBlocks,
};

/// As many blocks as the widest implementation takes at once, 1 KiB of AES.
const BATCH: usize = 64;

/// Bytes of an IV; ciphers with smaller blocks take the first of them.
pub(crate) type Iv = [u8; 16];

/// Largest block of a cipher.
const IV_LEN: usize = 16;

type Block16 = Array<u8, U16>;

/// A keyed block cipher.
pub(crate) trait Cipher:
    BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + Send + Sync + 'static
{
    /// A full batch costs less than the few blocks of a small unit one after the other.
    const WIDE: bool = false;
}

/// Encrypts and decrypts whole units in place. `data` holds as many units of `unit` bytes as there
/// are IVs; units are whole blocks.
pub(crate) trait Units: Send + Sync {
    fn encrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]);
    fn decrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]);
}

impl Debug for dyn Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Units(..)") // Holds a key.
    }
}

fn blocks_of<C: BlockSizeUser>(data: &mut [u8]) -> &mut [Block<C>] {
    Array::slice_as_chunks_mut(data).0
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (byte, other) in block.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// Every block by itself. The IVs are not used.
pub(crate) struct Ecb<C>(pub(crate) C);

impl<C: Cipher> Units for Ecb<C> {
    fn encrypt(&self, _: &[Iv], _: usize, data: &mut [u8]) {
        self.0.encrypt_blocks(blocks_of::<C>(data));
    }

    fn decrypt(&self, _: &[Iv], _: usize, data: &mut [u8]) {
        self.0.decrypt_blocks(blocks_of::<C>(data));
    }
}

/// A chain through each unit: every block is mixed with the encrypted one before it.
pub(crate) struct Cbc<C>(pub(crate) C);

/// So many units are encrypted beside each other, because one chain by itself is slow.
const LANES: usize = 16;

impl<C: Cipher> Units for Cbc<C> {
    fn encrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        for (ivs, units) in ivs.chunks(LANES).zip(data.chunks_mut(unit * LANES)) {
            self.encrypt_lanes(ivs, unit, units);
        }
    }

    fn decrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        for (iv, unit) in ivs.iter().zip(data.chunks_mut(unit)) {
            let mut before = first_block::<C>(iv);
            for batch in blocks_of::<C>(unit).chunks_mut(BATCH) {
                before = self.decrypt_batch(before, batch);
            }
        }
    }
}

impl<C: Cipher> Cbc<C> {
    fn encrypt_lanes(&self, ivs: &[Iv], unit: usize, units: &mut [u8]) {
        let per_unit = unit / C::block_size();
        let blocks = blocks_of::<C>(units);
        let mut lanes: [Block<C>; LANES] = std::array::from_fn(|_| Array::default());
        let lanes = &mut lanes[..ivs.len()];
        for (lane, iv) in lanes.iter_mut().zip(ivs) {
            *lane = first_block::<C>(iv);
        }
        for at in 0..per_unit {
            for (lane, block) in lanes.iter_mut().zip(blocks[at..].iter().step_by(per_unit)) {
                xor(lane, block);
            }
            self.0.encrypt_blocks(lanes);
            for (lane, block) in lanes.iter().zip(blocks[at..].iter_mut().step_by(per_unit)) {
                block.clone_from(lane);
            }
        }
    }

    /// Decrypts part of a chain and returns its last encrypted block.
    fn decrypt_batch(&self, mut before: Block<C>, batch: &mut [Block<C>]) -> Block<C> {
        let mut encrypted: [Block<C>; BATCH] = std::array::from_fn(|_| Array::default());
        let encrypted = &mut encrypted[..batch.len()];
        encrypted.clone_from_slice(batch);
        self.0.decrypt_blocks(batch);
        for (block, encrypted) in batch.iter_mut().zip(encrypted) {
            xor(block, &before);
            before.clone_from(encrypted);
        }
        before
    }
}

/// The IV, cut to the block of the cipher.
fn first_block<C: Cipher>(iv: &Iv) -> Block<C> {
    let mut block = Block::<C>::default();
    let len = C::block_size().min(IV_LEN);
    block[..len].copy_from_slice(&iv[..len]);
    block
}

/// A counter, encrypted and mixed in. The IV is the counter of the unit's first block, big-endian.
pub(crate) struct Ctr<C>(pub(crate) C);

impl<C: Cipher> Units for Ctr<C> {
    fn encrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        for (iv, unit) in ivs.iter().zip(data.chunks_mut(unit)) {
            let mut counter = first_block::<C>(iv);
            for batch in blocks_of::<C>(unit).chunks_mut(BATCH) {
                let mut stream: [Block<C>; BATCH] = std::array::from_fn(|_| Array::default());
                let stream = &mut stream[..batch.len()];
                for block in &mut *stream {
                    block.clone_from(&counter);
                    count_up(&mut counter);
                }
                self.0.encrypt_blocks(stream);
                for (block, stream) in batch.iter_mut().zip(stream) {
                    xor(block, stream);
                }
            }
        }
    }

    fn decrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        self.encrypt(ivs, unit, data);
    }
}

fn count_up(counter: &mut [u8]) {
    for byte in counter.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
}

/// IEEE 1619: every block between two mixings with a tweak, which begins as the encrypted IV of the
/// unit and is doubled from block to block.
pub(crate) struct Xts<C> {
    pub(crate) data: C,
    pub(crate) tweak: C,
}

impl<C: Cipher + BlockSizeUser<BlockSize = U16>> Units for Xts<C> {
    fn encrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        self.apply(ivs, unit, data, |run| self.data.encrypt_with_backend(run));
    }

    fn decrypt(&self, ivs: &[Iv], unit: usize, data: &mut [u8]) {
        self.apply(ivs, unit, data, |run| self.data.decrypt_with_backend(run));
    }
}

/// So many units have their tweaks encrypted at once.
const GROUP: usize = 64;

impl<C: Cipher + BlockSizeUser<BlockSize = U16>> Xts<C> {
    fn apply(&self, ivs: &[Iv], unit: usize, data: &mut [u8], work: impl Fn(XtsRun<'_>)) {
        let mut firsts = [Block16::default(); GROUP];
        for (ivs, units) in ivs.chunks(GROUP).zip(data.chunks_mut(unit * GROUP)) {
            for (first, iv) in firsts.iter_mut().zip(ivs) {
                first.copy_from_slice(iv);
            }
            // The widest implementations take a full group in less time than a few blocks.
            let count = if C::WIDE && ivs.len() > 4 { GROUP } else { ivs.len() };
            self.tweak.encrypt_blocks(&mut firsts[..count]);
            let tweaks = Tweaks::new(&firsts[..ivs.len()], unit);
            work(XtsRun { tweaks, blocks: blocks_of::<C>(units) });
        }
    }
}

/// Some units, given to the cipher as a closure: so the mixing is compiled for the same processor
/// as the cipher itself, which picks one when it runs.
struct XtsRun<'a> {
    tweaks: Tweaks<'a>,
    blocks: &'a mut [Block16],
}

impl BlockSizeUser for XtsRun<'_> {
    type BlockSize = U16;
}

macro_rules! xts_direction {
    ($Closure:ident, $Backend:ident, $par_blocks:ident, $block:ident) => {
        impl $Closure for XtsRun<'_> {
            #[inline(always)]
            fn call<B: $Backend<BlockSize = U16>>(mut self, backend: &B) {
                let mut masks = Array::<u128, B::ParBlocksSize>::default();
                let mut mixed = ParBlocks::<B>::default();
                for batch in self.blocks.chunks_mut(mixed.len()) {
                    self.tweaks.fill(&mut masks[..batch.len()]);
                    mix(&mut mixed, batch, &masks);
                    // A full batch costs less than a few blocks one after the other.
                    if batch.len() * 8 >= mixed.len() {
                        backend.$par_blocks((&mut mixed).into());
                    } else {
                        mixed[..batch.len()].iter_mut().for_each(|b| backend.$block(b.into()));
                    }
                    mix(batch, &mixed, &masks);
                }
            }
        }
    };
}

xts_direction!(BlockCipherEncClosure, BlockCipherEncBackend, encrypt_par_blocks, encrypt_block);
xts_direction!(BlockCipherDecClosure, BlockCipherDecBackend, decrypt_par_blocks, decrypt_block);

#[inline(always)]
fn mix(to: &mut [Block16], from: &[Block16], masks: &[u128]) {
    for ((to, from), mask) in to.iter_mut().zip(from).zip(masks) {
        to.0 = (u128::from_le_bytes(from.0) ^ mask).to_le_bytes();
    }
}

/// The tweaks of all blocks of some units, in order.
struct Tweaks<'a> {
    firsts: std::slice::Iter<'a, Block16>,
    per_unit: usize,
    /// Blocks of the unit that are still to come.
    left: usize,
    next: u128,
}

impl<'a> Tweaks<'a> {
    fn new(firsts: &'a [Block16], unit: usize) -> Self {
        Self { firsts: firsts.iter(), per_unit: unit / IV_LEN, left: 0, next: 0 }
    }

    #[inline(always)]
    fn fill(&mut self, mut masks: &mut [u128]) {
        while !masks.is_empty() {
            if self.left == 0 {
                self.left = self.per_unit;
                self.next = self.firsts.next().map_or(0, |first| u128::from_le_bytes(first.0));
            }
            let (now, rest) = masks.split_at_mut(self.left.min(masks.len()));
            self.next = fill_from(self.next, now);
            self.left -= now.len();
            masks = rest;
        }
    }
}

/// Chains of doubling beside each other, because one by itself is slow.
const CHAINS: usize = 8;

/// Fills `masks` with `first` and what it doubles to, and returns the one after them.
#[inline(always)]
fn fill_from(first: u128, masks: &mut [u128]) -> u128 {
    let mut next = first;
    let (head, rest) = masks.split_at_mut(CHAINS.min(masks.len()));
    for mask in &mut *head {
        *mask = next;
        next = times(next, 1);
    }
    let mut chains = [0; CHAINS];
    chains[..head.len()].copy_from_slice(head);
    for masks in rest.chunks_mut(CHAINS) {
        for (mask, chain) in masks.iter_mut().zip(&mut chains) {
            *chain = times(*chain, 8);
            *mask = *chain;
        }
        next = times(masks.last().copied().unwrap_or_default(), 1);
    }
    next
}

/// The tweak times 2 to the power of `bits`, at most 8, in the field of 2^128 elements: what is
/// shifted out at the top comes back as so many times x^7 + x^2 + x + 1.
#[inline(always)]
const fn times(tweak: u128, bits: u32) -> u128 {
    let out = tweak >> (128 - bits);
    (tweak << bits) ^ out ^ (out << 1) ^ (out << 2) ^ (out << 7)
}
