//! The behaviour suite: what every format that writes must do, once for all of them.

pub mod chain;
pub mod contents;
pub mod crash;
pub mod empty;
pub mod faults;
mod fixture;
pub mod history;
pub mod refusals;
pub mod resize;
mod rig;
pub mod space;
pub mod threads;

pub use fixture::{Check, Fixture, FormatFixture};

/// The behaviour suite for a format: one test for each promise.
///
/// ```ignore
/// mod clusters_of_512_bytes {
///     anydisk_testkit::behaviour_suite!(
///         FormatFixture::new(&QCOW2, 512).option("cluster_size", "512").over("raw")
///     );
/// }
/// ```
///
/// The expression makes a [`Fixture`](crate::suite::Fixture). A test of something that the format
/// does not have says aloud that it is skipped.
#[macro_export]
macro_rules! behaviour_suite {
    ($fixture:expr) => {
        $crate::behaviour_tests! { $fixture;
            contents::a_new_image_reads_as_zero_and_says_so,
            contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
            contents::disks_of_all_sizes_hold_their_last_byte,
            contents::map_and_read_agree,
            contents::extents_cover_the_disk_exactly,
            contents::metadata_read_by_the_caller_gives_the_same_map,
            contents::a_zeroed_range_reads_zero_and_nothing_else_does,
            contents::a_discard_never_shows_old_bytes_of_the_host,
            contents::what_was_flushed_is_there_when_the_image_is_opened_again,
            contents::a_grown_disk_reads_zero_behind_its_old_end,
            refusals::a_range_that_is_not_on_the_disk_is_refused_and_nothing_changes,
            refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing,
            refusals::nothing_at_all_may_be_read_and_written_everywhere,
            chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
            chain::a_discard_never_shows_the_layer_below,
            chain::a_write_of_a_part_keeps_the_rest_from_below,
            chain::a_shorter_layer_below_reads_zero_behind_its_end,
            chain::a_longer_layer_below_is_cut,
            chain::a_grown_image_hides_a_longer_layer_below,
            chain::three_layers_show_the_topmost_that_has_something,
            empty::an_emptied_image_shows_the_image_below_everywhere,
            empty::a_lease_keeps_what_was_read_when_an_image_is_emptied,
            empty::after_any_crash_while_it_is_emptied_an_image_shows_what_it_held_or_what_lies_below,
            history::random_histories_equal_a_byte_vector,
            history::random_histories_over_another_image_equal_a_byte_vector,
            history::random_histories_of_a_chain_equal_a_byte_vector,
            crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
            crash::after_any_crash_of_a_small_history_what_was_flushed_is_there,
            crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
            crash::after_any_crash_with_torn_writes_what_was_flushed_is_there,
            crash::after_any_crash_over_another_image_what_was_flushed_is_there,
            crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
            threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
            threads::readers_see_sectors_of_before_or_after_a_write,
            threads::writers_of_the_same_range_leave_sectors_whole,
            space::a_lease_keeps_its_place_from_other_data,
            space::where_things_lie_does_not_depend_on_the_order_of_commits,
            space::space_that_was_given_back_is_used_again,
            faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
            faults::a_full_store_refuses_writes_and_keeps_what_is_there,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! behaviour_tests {
    ($fixture:expr; $($module:ident :: $name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            $crate::suite::$module::$name(&$fixture);
        }
    )*};
}
