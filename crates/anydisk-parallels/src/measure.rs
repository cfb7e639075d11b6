//! How large a new image gets.

use anydisk_core::{Measure, MeasureRequest, Result};

use crate::create::Plan;

/// How large an image for the given data gets.
///
/// # Errors
/// Those of [`Plan::of`].
pub(crate) fn measure(request: &MeasureRequest<'_>) -> Result<Measure> {
    let plan = Plan::of(request.options, request.size)?;
    let size = |clusters: u64| plan.first().get() + clusters * plan.cluster();
    let (mut next, mut clusters) = (0, 0);
    for range in request.data.iter().filter(|range| !range.is_empty()) {
        let first = (range.start().get() / plan.cluster()).max(next);
        next = range.end().get().div_ceil(plan.cluster()).max(next);
        clusters += next - first.min(next);
    }
    Ok(Measure { required: size(clusters), fully_allocated: size(plan.clusters()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PARALLELS;
    use anydisk_core::{GuestOffset, GuestRange, Options};

    #[test]
    fn a_cluster_that_two_ranges_touch_is_counted_once() {
        let range = |start, len| GuestRange::new(GuestOffset(start), len).expect("small");
        let data = [range(0, 1), range(5, 1 << 20), range((1 << 20) + 9, 2), range(9 << 20, 1)];
        let (options, size) = (Options::of(&PARALLELS), 10 << 20);
        let request = MeasureRequest { size, options: &options, data: &data };
        let measured = measure(&request).expect("it can be measured");
        assert_eq!(measured, Measure { required: 4 << 20, fully_allocated: 11 << 20 });
    }
}
