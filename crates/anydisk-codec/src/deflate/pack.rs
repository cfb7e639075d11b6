//! Packing of one unit: parse into literals and matches, cut into blocks, write.

use super::bits::BitWriter;
use super::block::{Block, Counts, Token};
use super::matches::{Effort, Finder, Match, SHORTEST, TAIL};
use super::split;

/// Tokens after which it is decided whether a new block begins.
const STRIDE: usize = 1024;

/// Literals without a match after which places are left out.
const PATIENCE: u32 = 256;

/// Places left out at most between two looks.
const HURRY: u32 = 8;

/// The state of an encoder: memory that is used again for the next unit.
pub(super) struct Packer {
    finder: Finder,
    effort: Effort,
    tokens: Vec<Token>,
}

impl Packer {
    pub(super) fn new(level: u32, window_bits: u8) -> Self {
        Self { finder: Finder::new(window_bits), effort: effort(level), tokens: Vec::new() }
    }

    /// Writes the stream of `unit`, below 2^31 bytes.
    pub(super) fn pack(&mut self, unit: &[u8], out: &mut BitWriter<'_>) {
        let len = u32::try_from(unit.len()).expect("the caller knows its length");
        self.finder.begin(len);
        self.tokens.clear();
        let mut parse =
            Parse { unit, at: 0, found: None, end: len.saturating_sub(TAIL), misses: 0 };
        let mut open = Open { start: 0, end: 0, tokens: 0, counts: Counts::NONE };
        while (parse.at as usize) < unit.len() {
            let first = self.tokens.len();
            let counts = parse.stride(&mut self.finder, self.effort, &mut self.tokens);
            if first > open.tokens && split::pays(&open.counts, &counts) {
                open.write(&self.tokens[open.tokens..first], unit, false, out);
                open = Open { start: open.end, end: 0, tokens: first, counts };
            } else {
                open.counts.add(&counts);
            }
            open.end = parse.at as usize;
        }
        open.write(&self.tokens[open.tokens..], unit, true, out);
        out.align();
    }
}

/// The block that may still grow.
struct Open {
    /// Its first byte and the one behind its last.
    start: usize,
    end: usize,
    /// Its first token.
    tokens: usize,
    counts: Counts,
}

impl Open {
    fn write(&self, tokens: &[Token], unit: &[u8], last: bool, out: &mut BitWriter<'_>) {
        let plain = &unit[self.start..self.end];
        Block { tokens, counts: &self.counts, plain, last }.write(out);
    }
}

/// Where the parse of a unit is.
struct Parse<'a> {
    unit: &'a [u8],
    at: u32,
    /// The match at `at`, if it was looked for already.
    found: Option<Match>,
    /// No match starts from here on.
    end: u32,
    /// Literals since the last match.
    misses: u32,
}

impl Parse<'_> {
    /// Appends the next tokens, about `STRIDE`, and counts them.
    fn stride(&mut self, finder: &mut Finder, effort: Effort, tokens: &mut Vec<Token>) -> Counts {
        let mut counts = Counts::NONE;
        let full = tokens.len() + STRIDE;
        while tokens.len() < full && self.at < self.end {
            let found = self.found.take();
            let found = found.unwrap_or_else(|| finder.longest(self.unit, self.at, effort, 0));
            let next = self.after(found, finder, effort);
            if found.len < SHORTEST || next.is_some() {
                self.found = next;
                self.literal(tokens, &mut counts);
                self.hurry(tokens, &mut counts);
            } else {
                self.misses = 0;
                tokens.push(Token::repeat(found));
                counts.repeat(found);
                let from = self.at + if self.looks_ahead(found, effort) { 2 } else { 1 };
                self.at += found.len;
                finder.skip(self.unit, from, self.at.min(self.end));
            }
        }
        while self.at >= self.end && tokens.len() < full && (self.at as usize) < self.unit.len() {
            self.literal(tokens, &mut counts);
        }
        counts
    }

    fn literal(&mut self, tokens: &mut Vec<Token>, counts: &mut Counts) {
        let byte = self.unit[self.at as usize];
        tokens.push(Token::literal(byte));
        counts.literal(byte);
        self.at += 1;
    }

    /// Leaves out more and more places where nothing was found for long: that is packed already.
    fn hurry(&mut self, tokens: &mut Vec<Token>, counts: &mut Counts) {
        self.misses += 1;
        if self.misses < PATIENCE || self.found.is_some() {
            return;
        }
        let until = self.at + (self.misses / PATIENCE).min(HURRY);
        while self.at < until.min(self.end) {
            self.literal(tokens, counts);
        }
    }

    fn looks_ahead(&self, found: Match, effort: Effort) -> bool {
        found.len >= SHORTEST && found.len < effort.enough && self.at + 1 < self.end
    }

    /// The match one byte later, if it is worth a literal before it.
    fn after(&self, found: Match, finder: &mut Finder, effort: Effort) -> Option<Match> {
        if !self.looks_ahead(found, effort) {
            return None;
        }
        let effort = Effort { depth: effort.depth / 2, ..effort };
        let next = finder.longest(self.unit, self.at + 1, effort, found.len);
        // A byte longer saves more than it costs, unless the distance is much farther.
        let pays = next.len > found.len
            && 4 * (next.len - found.len) + found.distance.ilog2() > 2 + next.distance.ilog2();
        pays.then_some(next)
    }
}

/// How hard to look at each level.
fn effort(level: u32) -> Effort {
    let (depth, enough) = match level {
        0 | 1 => (2, 16),
        2 => (4, 24),
        3 => (8, 32),
        4 => (12, 48),
        5 => (16, 64),
        6 => (32, 96),
        7 => (64, 130),
        8 => (128, 258),
        _ => (1024, 258),
    };
    Effort { depth, enough }
}
