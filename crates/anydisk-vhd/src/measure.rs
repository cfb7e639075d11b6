//! How large a new image gets.

use anydisk_core::{Measure, MeasureRequest, Result};

use crate::create::Plan;
use crate::footer::FOOTER_LEN;

/// How large an image for the given data gets.
///
/// # Errors
/// Those of [`Plan::of`].
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let plan = Plan::of(request.options, request.size, None)?;
    let footer = FOOTER_LEN as u64;
    if plan.is_fixed() {
        let all = plan.size() + footer;
        return Ok(Measure { required: all, fully_allocated: all });
    }
    let size = |blocks: u64| match blocks {
        0 => plan.end() + footer,
        _ => plan.first() + blocks * plan.run() + footer,
    };
    let mut next = 0;
    let mut blocks = 0;
    for range in request.data.iter().filter(|range| !range.is_empty()) {
        let first = (range.start().get() / plan.block()).max(next);
        next = range.end().get().div_ceil(plan.block()).max(next);
        blocks += next - first.min(next);
    }
    let all = plan.size().div_ceil(plan.block());
    Ok(Measure { required: size(blocks), fully_allocated: size(all) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VHD;
    use anydisk_core::{GuestOffset, GuestRange, Options};

    #[test]
    fn a_block_that_two_ranges_touch_is_counted_once() {
        let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
        let data = [range(0, 1), range(5, 2 << 20), range((2 << 20) + 9, 2), range(9 << 20, 1)];
        let mut options = Options::of(&VHD);
        options.set("force_size", "on").expect("an option");
        let request = MeasureRequest { size: 10 << 20, options: &options, data: &data };
        let measured = measure(&request).expect("it can be measured");
        let run = (2 << 20) + 4096;
        let size = |blocks: u64| 4096 + blocks * run + 512;
        assert_eq!(measured, Measure { required: size(3), fully_allocated: size(5) });
    }
}
