//! How large a new image gets.

use anydisk_core::{Measure, MeasureRequest, Result};

use crate::create::Plan;

/// How large an image for the given data gets.
///
/// # Errors
/// Those of [`Plan::of`].
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let plan = Plan::of(request.options, request.size)?;
    let size = |blocks: u64| plan.first().get() + blocks * plan.block();
    let fully_allocated = size(plan.blocks());
    if plan.is_fixed() {
        return Ok(Measure { required: fully_allocated, fully_allocated });
    }
    let mut next = 0;
    let mut blocks = 0;
    for range in request.data.iter().filter(|range| !range.is_empty()) {
        let first = (range.start().get() / plan.block()).max(next);
        next = range.end().get().div_ceil(plan.block()).max(next);
        blocks += next - first.min(next);
    }
    Ok(Measure { required: size(blocks), fully_allocated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VDI;
    use anydisk_core::{GuestOffset, GuestRange, Options};

    #[test]
    fn a_block_that_two_ranges_touch_is_counted_once() {
        let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
        let data = [range(0, 1), range(5, 1 << 20), range((1 << 20) + 9, 2), range(9 << 20, 1)];
        let (options, size) = (Options::of(&VDI), 10 << 20);
        let request = MeasureRequest { size, options: &options, data: &data };
        let measured = measure(&request).expect("it can be measured");
        assert_eq!(measured, Measure { required: 5 << 20, fully_allocated: 12 << 20 });
    }
}
