//! Finite state entropy: tables from frequencies, and symbols from tables.

use super::bits::Bits;

/// One state: what it stands for, and where it leads.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The smallest value.
    base: u32,
    /// Bits of the stream that are added to it.
    extra: u8,
    /// Bits of the stream that are added to `next`.
    bits: u8,
    /// The smallest state that follows.
    next: u16,
}

/// A table of states, a power of two of them.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<State>);

/// What a symbol stands for.
pub(super) type Symbol = (u32, u8);

impl Table {
    /// Fills the table, of `count` states, by how often each of the symbols comes. `None` if these
    /// are more than the states.
    pub(super) fn fill(
        &mut self,
        count: u16,
        frequencies: &[u16],
        symbol: impl Fn(usize) -> Option<Symbol>,
    ) -> Option<()> {
        self.0.clear();
        for (number, frequency) in frequencies.iter().copied().enumerate() {
            if frequency > 0 {
                let (base, extra) = symbol(number)?;
                self.push(count, frequency, base, extra)?;
            }
        }
        Some(())
    }

    /// The states of one symbol: those that take one bit more come first.
    fn push(&mut self, count: u16, frequency: u16, base: u32, extra: u8) -> Option<()> {
        let room = usize::from(count).checked_sub(self.0.len())?;
        if usize::from(frequency) > room {
            return None;
        }
        let (count, frequency) = (u32::from(count), u32::from(frequency));
        let bits = frequency.leading_zeros().checked_sub(count.leading_zeros())?;
        let longer = (count.checked_mul(2)? >> bits).checked_sub(frequency)?;
        for index in 0..frequency {
            let (bits, next) = match index.checked_sub(longer) {
                None => (bits, (frequency.checked_add(index)? << bits).checked_sub(count)?),
                Some(index) => (bits.checked_sub(1)?, index << bits.checked_sub(1)?),
            };
            let (bits, next) = (u8::try_from(bits).ok()?, u16::try_from(next).ok()?);
            self.0.push(State { base, extra, bits, next });
        }
        Some(())
    }

    /// The value of the state, which moves on; `None` for a state that there is not, and where
    /// bits are missing.
    #[inline]
    pub(super) fn value(&self, state: &mut u16, bits: &mut Bits<'_>) -> Option<u32> {
        let entry = self.0.get(usize::from(*state))?;
        let taken = bits.take(u32::from(entry.bits).saturating_add(entry.extra.into()))?;
        let step = taken.checked_shr(entry.extra.into())?;
        *state = entry.next.checked_add(u16::try_from(step).ok()?)?;
        let mask = !u32::MAX.checked_shl(entry.extra.into())?;
        entry.base.checked_add(taken & mask)
    }
}
