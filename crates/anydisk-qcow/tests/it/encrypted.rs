//! Encrypted images do what every format must do, say nothing without their passphrase, and leave no
//! plain byte in the file.

use std::sync::Arc;

use anydisk_core::{
    Below, CreateRequest, Disk, Error, Format, GuestOffset, Limits, Location, OpenRequest, Options,
};
use anydisk_qcow::QCOW;
use anydisk_storage::MemoryStorage;
use anydisk_testkit::suite::{Fixture, FormatFixture};

const CLUSTER: u64 = 4096;

fn encrypted() -> FormatFixture {
    FormatFixture::new(&QCOW, CLUSTER)
        .option("encrypt.format", "aes")
        .option("cluster_size", "4096")
        .granularity(512)
        .over("raw")
        .passphrase("hunter2")
}

// Not all of the suite: where a medium fails in the middle of a sector, a chain through it breaks,
// and no program can help that.
anydisk_testkit::behaviour_tests! { encrypted();
    contents::a_new_image_reads_as_zero_and_says_so,
    contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
    contents::disks_of_all_sizes_hold_their_last_byte,
    contents::map_and_read_agree,
    contents::extents_cover_the_disk_exactly,
    contents::a_zeroed_range_reads_zero_and_nothing_else_does,
    contents::a_discard_never_shows_old_bytes_of_the_host,
    contents::what_was_flushed_is_there_when_the_image_is_opened_again,
    refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing,
    chain::a_write_of_a_part_keeps_the_rest_from_below,
    chain::a_shorter_layer_below_reads_zero_behind_its_end,
    history::random_histories_equal_a_byte_vector,
    history::random_histories_over_another_image_equal_a_byte_vector,
    crash::after_any_crash_of_a_small_history_what_was_flushed_is_there,
    crash::after_any_crash_over_another_image_what_was_flushed_is_there,
    threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
    threads::readers_see_sectors_of_before_or_after_a_write,
    threads::writers_of_the_same_range_leave_sectors_whole,
    space::space_that_was_given_back_is_used_again,
    faults::a_full_store_refuses_writes_and_keeps_what_is_there,
}

#[test]
fn no_plain_byte_gets_into_the_file() {
    let store = Arc::new(MemoryStorage::default());
    let disk = Disk::new(encrypted().create(store.clone(), 1 << 20, Below::Nothing).expect("made"));
    let text = b"a secret that is longer than a block of the cipher";
    disk.write(GuestOffset(1000), text).expect("a write");
    disk.flush().expect("a flush");
    let file = store.to_vec();
    assert!(!file.windows(16).any(|window| text.windows(16).any(|part| part == window)));
    // The zeroes around it are encrypted too: no sector of the cluster is zero.
    let data = file.len() / 4096 * 4096 - 4096;
    let clusters = [&file[0x1000..0x2000], &file[data..]];
    assert!(
        clusters.iter().any(|bytes| bytes.chunks(512).all(|sector| sector.iter().any(|b| *b != 0)))
    );
    assert!(disk.top().writer().expect("open for writing").packing().is_none());
}

#[test]
fn without_the_passphrase_an_image_is_told_about_and_not_read() {
    let store = Arc::new(MemoryStorage::default());
    let disk = Disk::new(encrypted().create(store.clone(), 1 << 20, Below::Nothing).expect("made"));
    disk.write(GuestOffset(0), &[7; 512]).expect("a write");
    disk.flush().expect("a flush");
    drop(disk);
    let (location, limits) = (Location::Other("image".to_owned()), Limits::default());
    let request = OpenRequest::new(store, &location, &limits);
    let disk = Disk::new(QCOW.open(request).expect("it opens").image);
    assert!(disk.top().info().encrypted);
    let error = disk.read(GuestOffset(0), &mut [0; 512]).unwrap_err();
    assert!(matches!(error, Error::Secret { option: "encrypt.key-secret", .. }), "{error}");
    let mut options = Options::of(&QCOW);
    options.set("encryption", "on").expect("an option");
    let store = Arc::new(MemoryStorage::default());
    let request = CreateRequest::new(store, &location, 1 << 20, &options, &limits);
    assert!(matches!(QCOW.create(request), Err(Error::Secret { .. })));
}
