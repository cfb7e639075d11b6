//! What every format that writes must do, for images of several files: flat, split, redo logs of ESX.
//! Each file is a medium of its own, which keeps and loses its changes by itself.

use std::sync::Arc;

use anydisk_core::{
    Access, Below, CreateRequest, Format, HostOffset, Image, Limits, Location, OpenRequest,
    Options, Reference, Result, Role, Storage, StorageExt,
};
use anydisk_testkit::suite::Fixture;
use anydisk_vmdk::VMDK;

use anydisk_testkit::drawers::{Drawer, Drawers};

/// The content ID of what lies below, where something does.
const BELOW: u32 = 0x1234_5678;

fn open(store: Arc<dyn Storage>, room: u64, access: Access) -> Result<Arc<dyn Image>> {
    let (location, limits) = (Location::Other("x".to_owned()), Limits::default());
    let request = OpenRequest::new(Drawer::open(&store, room, 0), &location, &limits);
    let resolver = Drawers { store, room };
    Ok(VMDK.open(OpenRequest { access, resolver: &resolver, ..request })?.image)
}

/// Images as this crate makes them.
#[derive(Debug)]
struct Created {
    subformat: &'static str,
    split: &'static str,
    unit: u64,
    /// Bytes that a file may have.
    room: u64,
}

impl Fixture for Created {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let mut options = Options::of(&VMDK);
        options.set("subformat", self.subformat)?;
        if !self.split.is_empty() {
            options.set("split_size", self.split)?;
        }
        let mut reference = Reference::new(Role::Backing, "below.vmdk");
        reference.content_id = Some(BELOW.into());
        let (location, limits) = (Location::Path("x".into()), Limits::default());
        let main = Drawer::open(&store, self.room, 0);
        let request = CreateRequest::new(main, &location, size, &options, &limits);
        let backing = Some(&reference).filter(|_| below == Below::Image);
        let companions = Drawers { store, room: self.room };
        VMDK.create(CreateRequest { backing, companions: &companions, ..request })
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, self.room, access)
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn granularity(&self) -> u64 {
        512
    }

    fn has_backing(&self) -> bool {
        !self.subformat.contains("Flat")
    }

    fn medium(&self) -> Option<u64> {
        Some(self.room)
    }
}

/// Bytes that a redo log may have.
const COWD_ROOM: u64 = 4 << 20;

/// A redo log with grains of two sectors and no table.
#[derive(Debug)]
struct Cowd;

impl Fixture for Cowd {
    fn create(&self, store: Arc<dyn Storage>, size: u64, below: Below) -> Result<Arc<dyn Image>> {
        let sectors = u32::try_from(size / 512).expect("small");
        let (grain, tables) = (2_u32, sectors.div_ceil(2 * 4096));
        let mut header = b"COWD".to_vec();
        header.extend([1, 3, sectors, grain, 4, tables, 5].map(u32::to_le_bytes).concat());
        header.resize(5 * 512, 0);
        let hint = match below {
            Below::Image => format!("parentCID={BELOW:08x}\nparentFileNameHint=\"below.vmdk\""),
            Below::Nothing => "parentCID=ffffffff".to_owned(),
        };
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=0badcafe\n{hint}\ncreateType=\"vmfsSparse\"\n\
             RW {sectors} VMFSSPARSE \"x-delta-1\"\n"
        );
        Drawer::open(&store, COWD_ROOM, 0).write_at(HostOffset::ZERO, text.as_bytes())?;
        Drawer::open(&store, COWD_ROOM, 1).write_at(HostOffset::ZERO, &header)?;
        store.flush()?;
        open(store, COWD_ROOM, Access::ReadWrite)
    }

    fn open(&self, store: Arc<dyn Storage>, access: Access) -> Result<Arc<dyn Image>> {
        open(store, COWD_ROOM, access)
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

    fn medium(&self) -> Option<u64> {
        Some(COWD_ROOM)
    }

    /// With a reader of its own: tables and grains in the file, apart, before the next free sector.
    fn check(&self, store: Arc<dyn Storage>) -> Result<(), String> {
        let file = Drawer::open(&store, COWD_ROOM, 1);
        let number = |at: u64| {
            let mut bytes = [0; 4];
            file.read_padded_at(HostOffset(at), &mut bytes).map_err(|e| e.to_string())?;
            Ok::<u64, String>(u32::from_le_bytes(bytes).into())
        };
        let free = number(28)?;
        let mut used: Vec<(u64, u64)> = vec![(0, 5)];
        for table in 0..number(24)? {
            let table = number(4 * 512 + table * 4)?;
            if table == 0 {
                continue;
            }
            used.push((table, 32));
            for entry in 0..4096 {
                match number(table * 512 + entry * 4)? {
                    0 => {}
                    sector => used.push((sector, 2)),
                }
            }
        }
        used.sort_unstable();
        for pair in used.windows(2) {
            let ((at, len), (next, next_len)) = (pair[0], pair[1]);
            if at + len > next || next + next_len > free {
                return Err(format!("{next_len} sectors at {next}, {len} at {at}, free {free}"));
            }
        }
        Ok(())
    }
}

mod cowd {
    anydisk_testkit::behaviour_suite!(super::Cowd);
}

/// The suite's tests that do not depend on space that comes and goes.
mod split_flat {
    anydisk_testkit::behaviour_tests! {
        super::Created { subformat: "twoGbMaxExtentFlat", split: "1536", unit: 1024, room: 64 << 10 };
        contents::what_was_written_is_read_and_the_bytes_beside_it_are_kept,
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        contents::extents_cover_the_disk_exactly,
        contents::what_was_flushed_is_there_when_the_image_is_opened_again,
        history::random_histories_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        crash::after_any_crash_of_a_small_history_what_was_flushed_is_there,
        crash::after_any_crash_of_a_random_history_what_was_flushed_is_there,
        threads::threads_in_parts_of_their_own_do_not_disturb_each_other,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}

mod flat {
    anydisk_testkit::behaviour_tests! {
        super::Created { subformat: "monolithicFlat", split: "", unit: 1024, room: 64 << 10 };
        crash::after_any_crash_with_torn_writes_what_was_flushed_is_there,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
        contents::a_zeroed_range_reads_zero_and_nothing_else_does,
        history::random_histories_equal_a_byte_vector,
    }
}

/// As ESX makes them.
mod vmfs {
    anydisk_testkit::behaviour_tests! {
        super::Created { subformat: "vmfs", split: "", unit: 1024, room: 64 << 10 };
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        history::random_histories_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
    }
}

mod vmfs_sparse {
    anydisk_testkit::behaviour_tests! {
        super::Created { subformat: "vmfsSparse", split: "", unit: 512, room: 1 << 20 };
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        contents::a_grown_disk_reads_zero_behind_its_old_end,
        chain::what_is_absent_shows_the_layer_below_and_zero_hides_it,
        history::random_histories_over_another_image_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        crash::after_any_crash_of_a_resize_the_disk_has_the_old_size_or_the_new_one,
    }
}

mod split_sparse {
    anydisk_testkit::behaviour_tests! {
        super::Created { subformat: "twoGbMaxExtentSparse", split: "128k", unit: 65536, room: 16 << 20 };
        contents::disks_of_all_sizes_hold_their_last_byte,
        contents::map_and_read_agree,
        chain::a_write_of_a_part_keeps_the_rest_from_below,
        history::random_histories_equal_a_byte_vector,
        history::random_histories_of_a_chain_equal_a_byte_vector,
        crash::an_image_whose_creation_was_flushed_opens_after_any_crash,
        faults::an_error_of_any_call_surfaces_and_leaves_the_image_usable,
    }
}
