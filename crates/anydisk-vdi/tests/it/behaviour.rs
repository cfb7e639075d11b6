//! What every format that writes must do.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, CreateRequest, Format, HostOffset, Id, Image, Limits, Location, OpenRequest,
    Options, Reference, Result, Role, Storage,
};
use anydisk_testkit::suite::Fixture;
use anydisk_vdi::VDI;

use crate::common::{ByHand, PARENT, PARENT_MODIFY, damage};

/// Images as this crate makes them.
#[derive(Debug)]
struct Created {
    fixed: bool,
}

/// Images with small blocks, which make the suite fast.
#[derive(Debug)]
struct Small(ByHand);

fn here() -> Location {
    Location::Other("image".to_owned())
}

fn open(store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
    let (here, limits) = (here(), Limits::default());
    let mut request = OpenRequest::new(store, &here, &limits);
    request.access = access;
    Ok(VDI.open(request)?.image)
}

impl Fixture for Created {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let mut options = Options::of(&VDI);
        options.set("block_size", "128k")?;
        options.set("static", if self.fixed { "on" } else { "off" })?;
        let mut reference = Reference::new(Role::Backing, "below.vdi");
        (reference.id, reference.content_id) =
            (Some(Id::Uuid(PARENT)), Some(Id::Uuid(PARENT_MODIFY)));
        let (here, limits) = (here(), Limits::default());
        let mut request = CreateRequest::new(store, &here, size, &options, &limits);
        request.backing = Some(&reference).filter(|_| below == Below::Image);
        VDI.create(request)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, access)
    }

    fn unit(&self) -> u64 {
        128 << 10
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn has_backing(&self) -> bool {
        !self.fixed
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        damage(&*store)
    }
}

impl Fixture for Small {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let image = ByHand { size, has_parent: below == Below::Image, ..self.0 };
        store.write_at(HostOffset::ZERO, &image.bytes())?;
        store.flush()?;
        open(store, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, access)
    }

    fn unit(&self) -> u64 {
        self.0.block.into()
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn has_backing(&self) -> bool {
        !self.0.is_old
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        if self.0.is_old { Ok(()) } else { damage(&*store) }
    }
}

mod small_blocks {
    anydisk_testkit::behaviour_suite!(super::Small(super::ByHand::SMALL));
}

mod small_blocks_with_extra_data {
    use super::{ByHand, Small};

    anydisk_testkit::behaviour_tests! {
        Small(ByHand { extra: 512, ..ByHand::SMALL });
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        contents::map_and_read_agree,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        history::random_histories_over_another_image_equal_a_byte_vector,
        crash::after_any_crash_with_torn_writes_what_was_flushed_is_there,
    }
}

mod header_of_version_0 {
    use super::{ByHand, Small};

    anydisk_testkit::behaviour_tests! {
        Small(ByHand { is_old: true, ..ByHand::SMALL });
        contents::disks_of_all_sizes_hold_their_last_byte,
        history::random_histories_equal_a_byte_vector,
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
        refusals::an_image_opened_for_reading_refuses_to_change_and_writes_nothing,
    }
}

/// The suite's tests that do not multiply 128 KiB by thousands of states.
mod created {
    anydisk_testkit::behaviour_tests! {
        super::Created { fixed: false };
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
        history::random_histories_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod created_fixed {
    anydisk_testkit::behaviour_tests! {
        super::Created { fixed: true };
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        contents::a_discard_never_shows_old_bytes_of_the_host,
        history::random_histories_equal_a_byte_vector,
    }
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::Small(super::ByHand::SMALL);
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}
