//! The behaviour suite, tried on a format that does everything right and on one that makes
//! mistakes: each must be found by the test that is meant to find it.

mod toy;

use std::panic::catch_unwind;

use anydisk_testkit::suite::{
    Fixture, chain, contents, crash, faults, history, refusals, space, threads,
};
use toy::{Mistake, Toy};

mod a_format_that_does_everything_right {
    use super::toy::{Mistake, Toy};

    anydisk_testkit::behaviour_suite!(Toy { mistake: Mistake::None });
}

type Test = fn(&dyn Fixture);

/// Fails unless the test does. `tries`: what depends on how threads meet may need several.
fn is_found(mistake: Mistake, test: Test, tries: usize) {
    let found = (0..tries).any(|_| catch_unwind(|| test(&Toy { mistake })).is_err());
    assert!(found, "nobody noticed: {mistake:?}");
}

macro_rules! found {
    ($($name:ident: $mistake:ident is found by $module:ident::$test:ident;)*) => {$(
        #[test]
        fn $name() {
            is_found(Mistake::$mistake, |fixture| $module::$test(fixture), 5);
        }
    )*};
}

found! {
    a_table_written_before_its_data: TableBeforeData is found by
        crash::after_any_crash_of_a_small_history_what_was_flushed_is_there;
    a_table_written_before_its_data_at_random: TableBeforeData is found by
        crash::after_any_crash_over_another_image_what_was_flushed_is_there;
    a_table_that_is_not_flushed_at_random: TableNotFlushed is found by
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there;
    a_table_that_is_not_flushed: TableNotFlushed is found by
        crash::after_any_crash_of_a_small_history_what_was_flushed_is_there;
    a_flush_that_does_nothing: FlushDoesNothing is found by
        contents::what_was_flushed_is_there_when_the_image_is_opened_again;
    a_creation_that_is_not_flushed: FlushDoesNothing is found by
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash;
    space_used_before_its_freeing_is_durable: FreedSpaceIsUsedAtOnce is found by
        crash::after_any_crash_of_a_small_history_what_was_flushed_is_there;
    space_used_before_its_freeing_is_durable_at_random: FreedSpaceIsUsedAtOnce is found by
        crash::after_any_crash_with_torn_writes_what_was_flushed_is_there;
    space_used_under_a_lease: FreedSpaceIsUsedAtOnce is found by
        space::a_lease_keeps_its_place_from_other_data;
    a_lease_that_holds_nothing: LeaseHoldsNothing is found by
        space::a_lease_keeps_its_place_from_other_data;
    space_taken_by_a_commit: CommitsTakeSpace is found by
        space::where_things_lie_does_not_depend_on_the_order_of_commits;
    space_that_is_lost: SpaceIsNeverUsedAgain is found by
        space::space_that_was_given_back_is_used_again;
    a_discard_that_shows_the_layer_below: DiscardShowsTheLayerBelow is found by
        chain::a_discard_never_shows_the_layer_below;
    a_discard_that_shows_it_at_random: DiscardShowsTheLayerBelow is found by
        history::random_histories_over_another_image_equal_a_byte_vector;
    a_discard_that_frees_what_is_in_use: DiscardKeepsTheEntryButFreesTheSpace is found by
        history::random_histories_equal_a_byte_vector;
    a_zero_that_shows_the_layer_below: ZeroForgetsTheLayerBelow is found by
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it;
    a_zero_over_another_image_lost_in_a_crash: ZeroForgetsTheLayerBelow is found by
        crash::after_any_crash_over_another_image_what_was_flushed_is_there;
    a_zero_of_too_much: ZeroTakesTheWholeUnit is found by
        contents::a_zeroed_range_reads_zero_and_nothing_else_does;
    a_growth_that_shows_the_layer_below: GrowingShowsTheLayerBelow is found by
        chain::a_grown_image_hides_a_longer_layer_below;
    an_error_nobody_is_told_of: ErrorsOfTheTableAreIgnored is found by
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable;
    a_fill_with_what_was_there: NewSpaceCallsItselfZero is found by
        contents::a_discard_never_shows_old_bytes_of_the_host;
    a_change_of_an_image_opened_for_reading: HeaderIsWrittenWhenReading is found by
        refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing;
    a_writer_of_an_image_opened_for_reading: WritesWhenReading is found by
        refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing;
    an_extent_that_is_too_long: ExtentsAreLongerThanAskedFor is found by
        contents::extents_cover_the_disk_exactly;
    a_last_unit_that_is_forgotten: LastUnitIsForgotten is found by
        contents::disks_of_all_sizes_hold_their_last_byte;
    a_smaller_disk_that_keeps_its_bytes: ShrinkingKeepsWhatLiesBehind is found by
        contents::a_grown_disk_reads_zero_behind_its_old_end;
    two_who_reserve_the_same_unit: NobodyClaims is found by
        threads::threads_in_parts_of_their_own_do_not_disturb_each_other;
    two_who_reserve_the_same_unit_beside_readers: NobodyClaims is found by
        threads::readers_see_sectors_of_before_or_after_a_write;
}
