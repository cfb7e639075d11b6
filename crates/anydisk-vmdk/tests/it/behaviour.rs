//! What every format that writes must do, for sparse images.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, CreateRequest, Format, HostOffset, Image, Limits, Location, NoReferences,
    NoSecrets, OpenRequest, Options, Reference, Result, Role, Storage, StorageExt,
};
use anydisk_testkit::suite::Fixture;
use anydisk_testkit::vmdk::ByHand;
use anydisk_vmdk::VMDK;

/// The content ID of what lies below, where something does.
const BELOW: u32 = 0x1234_5678;

/// Images as this crate makes them.
#[derive(Debug)]
struct Created {
    zeroed_grain: bool,
}

/// Images with grains of two sectors, which make the suite fast.
#[derive(Debug)]
struct SmallGrains {
    zeroed_grain: bool,
}

fn here() -> Location {
    Location::Other("image".to_owned())
}

fn open(store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
    let request = OpenRequest {
        store,
        location: &here(),
        access,
        resolver: &NoReferences,
        limits: &Limits::default(),
        secrets: &NoSecrets,
    };
    Ok(VMDK.open(request)?.image)
}

impl Fixture for Created {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let mut options = Options::of(&VMDK);
        options.set("zeroed_grain", if self.zeroed_grain { "on" } else { "off" })?;
        let mut reference = Reference::new(Role::Backing, "below.vmdk");
        reference.content_id = Some(BELOW.into());
        let (location, limits) = (here(), Limits::default());
        let request = CreateRequest::new(store, &location, size, &options, &limits);
        let backing = Some(&reference).filter(|_| below == Below::Image);
        VMDK.create(CreateRequest { backing, ..request })
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, access)
    }

    fn unit(&self) -> u64 {
        65536
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn has_backing(&self) -> bool {
        true
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        check_sparse(&*store, self.zeroed_grain)
    }
}

impl Fixture for SmallGrains {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let image = ByHand {
            sectors: size / 512,
            grain: 2,
            zeroed_grain: self.zeroed_grain,
            parent: (below == Below::Image).then_some(BELOW),
        };
        store.write_at(HostOffset::ZERO, &image.bytes())?;
        store.flush()?;
        open(store, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, access)
    }

    fn unit(&self) -> u64 {
        1024
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn has_backing(&self) -> bool {
        true
    }

    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        check_sparse(&*store, self.zeroed_grain)
    }
}

/// Looks for damage in a sparse image, with a reader of its own: every grain whole in the file,
/// behind the metadata, on a boundary of its size, and named once.
fn check_sparse(store: &dyn Storage, zeroed_grain: bool) -> Result<(), String> {
    let number = |at: u64, len: usize| {
        let mut bytes = [0; 8];
        store.read_exact_at(HostOffset(at), &mut bytes[..len]).map_err(|e| e.to_string())?;
        Ok::<u64, String>(u64::from_le_bytes(bytes))
    };
    let (capacity, size, overhead) = (number(12, 8)?, number(20, 8)?, number(64, 8)?);
    let len = store.len().map_err(|e| e.to_string())?;
    let mut seen = std::collections::HashSet::new();
    for grain in 0..capacity.div_ceil(size) {
        let directory = number(56, 8)? * 512;
        let table = number(directory + grain / 512 * 4, 4)? * 512;
        let entry = number(table + grain % 512 * 4, 4)?;
        let is_fine = match entry {
            0 => true,
            1 => zeroed_grain,
            sector => {
                let whole = (sector + size) * 512 <= len;
                sector >= overhead && sector % size == 0 && whole && seen.insert(sector)
            }
        };
        if !is_fine {
            return Err(format!("grain {grain} is at sector {entry:#x} of {len:#x} bytes"));
        }
    }
    Ok(())
}

mod small_grains {
    anydisk_testkit::behaviour_suite!(super::SmallGrains { zeroed_grain: false });
}

mod resized {
    anydisk_testkit::behaviour_tests! {
        super::SmallGrains { zeroed_grain: false };
        resize::what_is_flushed_after_a_resize_that_failed_is_there,
    }
}

mod small_zeroed_grains {
    anydisk_testkit::behaviour_suite!(super::SmallGrains { zeroed_grain: true });
}

/// The suite's tests that do not multiply 64 KiB by thousands of states.
mod created {
    anydisk_testkit::behaviour_tests! {
        super::Created { zeroed_grain: false };
        contents::a_new_image_reads_as_zero_and_says_so,
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        history::random_histories_equal_a_byte_vector,
        history::random_histories_over_another_image_equal_a_byte_vector,
        history::random_histories_of_a_chain_equal_a_byte_vector,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        chain::a_grown_image_hides_a_longer_layer_below,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod created_with_zeroed_grains {
    anydisk_testkit::behaviour_tests! {
        super::Created { zeroed_grain: true };
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
        history::random_histories_over_another_image_equal_a_byte_vector,
        history::random_histories_of_a_chain_equal_a_byte_vector,
    }
}
