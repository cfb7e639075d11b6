//! What every format that writes must do.

use anydisk_testkit::suite::FormatFixture;
use anydisk_vhd::VHD;

/// Images with small blocks, which make the suite fast.
fn small() -> FormatFixture {
    FormatFixture::new(&VHD, 4096)
        .option("block_size", "4k")
        .option("force_size", "on")
        .granularity(512)
}

mod dynamic {
    anydisk_testkit::behaviour_suite!(super::small());
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::small();
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}

mod differencing {
    anydisk_testkit::behaviour_suite!(super::small().over("vpc"));
}

mod fixed {
    anydisk_testkit::behaviour_tests! {
        super::small().option("subformat", "fixed");
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
        history::random_histories_equal_a_byte_vector,
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
    }
}
