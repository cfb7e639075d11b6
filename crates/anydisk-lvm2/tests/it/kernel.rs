//! Volumes that a kernel wrote, with the hashes it gave: whole, and without a disk.

use crate::common::open_volume;
use anydisk_testkit::volumes::{Fixture, GROUPS, Outcome};

/// Every volume of the group reads as the kernel read it, whole and without each disk that the
/// manifest speaks of.
fn judge(group: &str) {
    let Some(fixture) = Fixture::open(group) else { return };
    let expected = GROUPS.iter().find(|(name, _)| *name == group).map(|(_, count)| *count);
    assert_eq!(Some(fixture.rows.len()), expected, "volumes of {group}");
    for row in &fixture.rows {
        row.assert_as_the_kernel(|without| {
            open_volume(&fixture.disks_without(without), &row.volume)
        });
    }
}

#[test]
fn linear_volumes_read_as_the_kernel_read_them() {
    judge("linear");
}

#[test]
fn striped_and_mixed_volumes_read_as_the_kernel_read_them() {
    judge("stripe");
}

#[test]
fn a_group_with_all_kinds_of_labels_and_metadata_areas_reads_as_the_kernel_read_it() {
    judge("meta");
}

#[test]
fn without_a_disk_that_a_volume_needs_it_is_refused_and_the_disk_is_named() {
    let Some(fixture) = Fixture::open("stripe") else { return };
    let disks = fixture.disks_without(Some("pv1"));
    let Outcome::Refused(error) =
        fixture.row("vgstripe/s3k4").judge(open_volume(&disks, "vgstripe/s3k4"))
    else {
        panic!("it reads without pv1");
    };
    assert!(error.contains("physical volume \"pv1 "), "{error}");
}

#[test]
fn arrays_read_as_the_kernel_read_them_whole_and_rebuilt_from_parity() {
    judge("raid");
}

#[test]
fn mirrors_read_as_the_kernel_read_them_whole_and_without_a_leg() {
    judge("mirror");
}

#[test]
fn legs_that_fell_behind_are_not_read() {
    judge("stale");
}

#[test]
fn classic_snapshots_and_their_origins_read_as_the_kernel_read_them() {
    judge("snap");
}

#[test]
fn an_origin_whose_merge_is_pending_reads_as_the_merge_will_leave_it() {
    judge("merge");
}

#[test]
fn a_snapshot_that_ran_full_is_refused() {
    let Some(fixture) = Fixture::open("snap") else { return };
    let error = open_volume(&fixture.disks(), "vgsnap/tiny").unwrap_err().to_string();
    assert!(error.contains("its store ran full or failed"), "{error}");
}

#[test]
fn thin_volumes_and_their_snapshots_read_as_the_kernel_read_them() {
    judge("thin");
}

#[test]
fn cached_volumes_read_as_the_kernel_read_them_dirty_or_not() {
    judge("cache");
}
