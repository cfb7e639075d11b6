//! Finding of repeats in the window behind a position.

/// The longest length a stream can say (RFC 1951, 3.2.5).
pub(super) const LONGEST: u32 = 258;

/// The shortest.
pub(super) const SHORTEST: u32 = 3;

/// A match of three bytes from further back costs more than the three literals.
const NEAR: u32 = 4096;

/// Bytes at the end of a unit where no match starts, so that words can be read without a check.
pub(super) const TAIL: u32 = 8;

/// A repeat: `len` bytes that are the same `distance` bytes before. Length 0: none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Match {
    pub(super) len: u32,
    pub(super) distance: u32,
}

/// How hard to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Places to look at.
    pub(super) depth: u32,
    /// A length that ends the search.
    pub(super) enough: u32,
}

/// Chains of the places in the window that begin with the same four bytes, and the newest place
/// of each three.
///
/// Places are counted on from unit to unit, with a window between: what is left from the unit
/// before is too far away to be used, and nothing needs clearing.
pub(super) struct Finder {
    window: u32,
    shift3: u32,
    shift4: u32,
    newest3: Box<[u32]>,
    newest4: Box<[u32]>,
    /// By place, modulo the window: the place before it in its chain.
    before: Box<[u32]>,
    base: u32,
    end: u32,
}

impl Finder {
    /// A finder whose distances stay below 2^`window_bits`.
    pub(super) fn new(window_bits: u8) -> Self {
        let window = u32::from(window_bits).clamp(11, 14);
        let (bits3, bits4) = (window + 1, window + 3);
        let table = |bits: u32| vec![0; 1 << bits].into_boxed_slice();
        Self {
            window: 1 << window_bits,
            shift3: 32 - bits3,
            shift4: 32 - bits4,
            newest3: table(bits3),
            newest4: table(bits4),
            before: table(u32::from(window_bits)),
            base: 0,
            end: 0,
        }
    }

    /// Begins a unit of `len` bytes, below 2^31.
    pub(super) fn begin(&mut self, len: u32) {
        let base = self.end.checked_add(self.window + 1);
        match base.and_then(|base| Some((base, base.checked_add(len)?))) {
            Some((base, end)) => (self.base, self.end) = (base, end),
            None => {
                self.newest3.fill(0);
                self.newest4.fill(0);
                (self.base, self.end) = (self.window + 1, self.window + 1 + len);
            }
        }
    }

    /// Notes the place `at`; returns the newest earlier ones with the same three and four bytes.
    #[inline]
    fn note(&mut self, word: u32, at: u32) -> (u32, u32) {
        let place = self.base + at;
        let newest3 = &mut self.newest3[hash(word << 8, self.shift3)];
        let with3 = std::mem::replace(newest3, place);
        let newest4 = &mut self.newest4[hash(word, self.shift4)];
        let with4 = std::mem::replace(newest4, place);
        self.before[(place & (self.window - 1)) as usize] = with4;
        (with3, with4)
    }

    /// Notes the places from `at` up to `end` without looking for matches.
    #[inline]
    pub(super) fn skip(&mut self, unit: &[u8], at: u32, end: u32) {
        for at in at..end {
            self.note(word(unit, at), at);
        }
    }

    /// Notes the place `at`, and returns the longest match there if it is longer than `than`.
    #[inline]
    pub(super) fn longest(&mut self, unit: &[u8], at: u32, effort: Effort, than: u32) -> Match {
        let here = word(unit, at);
        let (with3, mut place) = self.note(here, at);
        let now = self.base + at;
        let oldest = now - (self.window - 1);
        let max = LONGEST.min(self.end - now);
        let mut best = Match { len: than, distance: 0 };
        if than < SHORTEST {
            // One branch that is seldom taken, instead of one on whether the place is too old:
            // with noise that is a toss of a coin.
            let near = with3 >= oldest.max(now.saturating_sub(NEAR));
            let there = if near { with3 - self.base } else { at };
            if near & ((word(unit, there) ^ here) << 8 == 0) {
                best = Match { len: SHORTEST, distance: now - with3 };
            }
        }
        // The last four bytes that make a match longer than the best so far, and where they begin.
        let mut last = best.len.max(SHORTEST) - SHORTEST;
        let mut wanted = if best.len < max { word(unit, at + last) } else { 0 };
        let mut left = if best.len < max { effort.depth } else { 0 };
        while left > 0 && place >= oldest {
            let there = place - self.base;
            if word(unit, there + last) == wanted && word(unit, there) == here {
                let len = common(unit, there, at, max);
                if len > best.len {
                    best = Match { len, distance: now - place };
                    if len >= effort.enough.min(max) {
                        break;
                    }
                    last = len - SHORTEST;
                    wanted = word(unit, at + last);
                }
            }
            place = self.before[(place & (self.window - 1)) as usize];
            left -= 1;
        }
        if best.distance == 0 { Match::default() } else { best }
    }
}

#[inline]
fn hash(word: u32, shift: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b1) >> shift) as usize
}

/// The four bytes at `at`, first lowest.
#[inline]
fn word(unit: &[u8], at: u32) -> u32 {
    let bytes = &unit[at as usize..at as usize + 4];
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

/// How many of the bytes at `there` and `at` are the same, up to `max`; four are known to be.
#[inline]
fn common(unit: &[u8], there: u32, at: u32, max: u32) -> u32 {
    let (there, at) = (&unit[there as usize..], &unit[at as usize..][..max as usize]);
    let there = &there[..at.len()];
    let words = there.chunks_exact(8).zip(at.chunks_exact(8));
    let mut len = 0;
    for (a, b) in words {
        let differ = long(a) ^ long(b);
        if differ != 0 {
            return len + differ.trailing_zeros() / 8;
        }
        len += 8;
    }
    let rest = there.iter().zip(at).skip(len as usize);
    (len..).zip(rest).find(|(_, (a, b))| a != b).map_or(max, |(len, _)| len)
}

#[inline]
fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a chunk of eight"))
}
