//! What every format that writes must do: the tests that do not multiply 1 MiB by thousands of
//! states.

use anydisk_testkit::suite::FormatFixture;
use anydisk_vhdx::VHDX;

use crate::common::damage;

fn created() -> FormatFixture {
    let small = FormatFixture::new(&VHDX, 1 << 20).option("block_size", "1M");
    small.granularity(512).checked_by(damage)
}

mod dynamic {
    anydisk_testkit::behaviour_tests! {
        super::created();
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        history::random_histories_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod dynamic_without_zero_states {
    anydisk_testkit::behaviour_tests! {
        super::created().option("block_state_zero", "off");
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        history::random_histories_equal_a_byte_vector,
    }
}

mod fixed {
    anydisk_testkit::behaviour_tests! {
        super::created().option("subformat", "fixed");
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        history::random_histories_equal_a_byte_vector,
    }
}
