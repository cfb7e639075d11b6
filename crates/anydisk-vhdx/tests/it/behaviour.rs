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

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::created();
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
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
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        history::random_histories_equal_a_byte_vector,
    }
}

/// Children whose histories lie in one block: sectors, and what a power failure leaves of them.
mod sectors_of_a_child {
    anydisk_testkit::behaviour_tests! {
        super::created().over("vhdx").unit(8 << 10);
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        contents::map_and_read_agree,
        contents::metadata_read_by_the_caller_gives_the_same_map,
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
        chain::a_discard_never_shows_the_layer_below,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        chain::a_shorter_layer_below_reads_zero_behind_its_end,
        chain::a_longer_layer_below_is_cut,
        chain::three_layers_show_the_topmost_that_has_something,
        empty::after_any_crash_while_it_is_emptied_an_image_shows_what_it_held_or_what_lies_below,
        history::random_histories_over_another_image_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        crash::after_any_crash_over_another_image_what_was_flushed_is_there,
        threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
        threads::readers_see_sectors_of_before_or_after_a_write,
        threads::writers_of_the_same_range_leave_sectors_whole,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod blocks_of_a_child {
    anydisk_testkit::behaviour_tests! {
        super::created().over("vhdx");
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        empty::an_emptied_image_shows_the_image_below_everywhere,
        empty::a_lease_keeps_what_was_read_when_an_image_is_emptied,
        history::random_histories_over_another_image_equal_a_byte_vector,
        space::a_lease_keeps_its_place_from_other_data,
        space::where_things_lie_does_not_depend_on_the_order_of_commits,
        space::space_that_was_given_back_is_used_again,
    }
}

mod sectors_of_4096_bytes {
    anydisk_testkit::behaviour_tests! {
        super::created().option("logical_sector_size", "4096").over("vhdx").unit(16 << 10)
            .granularity(4096);
        contents::disks_of_all_sizes_hold_their_last_byte,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        history::random_histories_over_another_image_equal_a_byte_vector,
    }
}
