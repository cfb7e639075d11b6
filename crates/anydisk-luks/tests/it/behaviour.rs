//! Containers do what every format must do, once they have been zeroed.

use std::sync::Arc;

use anydisk_core::{Access, Below, Image, Result, Storage};
use anydisk_testkit::suite::Fixture;

/// Containers with an encryption.
#[derive(Debug)]
struct Containers(&'static [(&'static str, &'static str)]);

impl Fixture for Containers {
    fn create(&self, store: Arc<dyn Storage>, size: u64, _: Below) -> Result<Arc<dyn Image>> {
        let image = crate::common::create(store, size, &crate::common::options(self.0))?;
        let disk = anydisk_core::Disk::new(Arc::clone(&image));
        // A new container holds noise; the suite wants zeroes.
        let len = usize::try_from(size).expect("a small disk");
        disk.write(anydisk_core::GuestOffset(0), &vec![0; len])?;
        Ok(image)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        crate::common::open(store, access, crate::common::PASSPHRASE)
    }

    fn unit(&self) -> u64 {
        4096
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn maps_zeroes(&self) -> bool {
        false
    }
}

mod xts {
    use super::*;
    anydisk_testkit::behaviour_suite!(Containers(&[("cipher-alg", "aes-128")]));
}

/// Not all of the suite: where a medium fails in the middle of a sector, a chain through it breaks,
/// and no program can help that.
mod cbc_with_essiv {
    use super::*;

    const CBC: Containers =
        Containers(&[("cipher-alg", "aes-128"), ("cipher-mode", "cbc"), ("ivgen-alg", "essiv")]);

    anydisk_testkit::behaviour_tests! { CBC;
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        contents::map_and_read_agree,
        contents::what_was_flushed_is_there_when_the_image_is_opened_again,
        refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing,
        history::random_histories_equal_a_byte_vector,
        crash::after_any_crash_of_a_small_history_what_was_flushed_is_there,
        threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
        threads::readers_see_sectors_of_before_or_after_a_write,
        threads::writers_of_the_same_range_leave_sectors_whole,
    }
}
