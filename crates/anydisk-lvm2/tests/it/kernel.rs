//! Volumes that a kernel wrote, with the hashes it gave: whole, and without a disk.

use crate::common::{Fixture, Outcome};

/// Every volume of the group reads as the kernel read it. Without each disk that the manifest
/// speaks of, it is the same or refused as the kernel did it; what the kernel refused may be the
/// same, never another.
fn judge(group: &str, expected: usize) {
    let Some(fixture) = Fixture::open(group) else { return };
    assert_eq!(fixture.rows().len(), expected, "volumes of {group}");
    let disks = fixture.disks();
    for row in fixture.rows() {
        assert_eq!(fixture.read(&disks, row), Outcome::Same, "{}", row.volume);
        for disk in &row.same_without {
            let outcome = fixture.read(&fixture.disks_without(disk), row);
            assert_eq!(outcome, Outcome::Same, "{} without {disk}", row.volume);
        }
        for disk in &row.refused_without {
            let outcome = fixture.read(&fixture.disks_without(disk), row);
            assert_ne!(outcome, Outcome::Other, "{} without {disk}", row.volume);
        }
    }
}

#[test]
fn linear_volumes_read_as_the_kernel_read_them() {
    judge("linear", 6);
}

#[test]
fn striped_and_mixed_volumes_read_as_the_kernel_read_them() {
    judge("stripe", 4);
}

#[test]
fn a_group_with_all_kinds_of_labels_and_metadata_areas_reads_as_the_kernel_read_it() {
    judge("meta", 5);
}

#[test]
fn without_a_disk_that_a_volume_needs_it_is_refused_and_the_disk_is_named() {
    let Some(fixture) = Fixture::open("stripe") else { return };
    let disks = fixture.disks_without("pv1");
    let Outcome::Refused(error) = fixture.read(&disks, fixture.row("vgstripe/s3k4")) else {
        panic!("it reads without pv1");
    };
    assert!(error.contains("physical volume \"pv1 "), "{error}");
}

#[test]
fn arrays_read_as_the_kernel_read_them_whole_and_rebuilt_from_parity() {
    judge("raid", 11);
}

#[test]
fn mirrors_read_as_the_kernel_read_them_whole_and_without_a_leg() {
    judge("mirror", 4);
}

#[test]
fn legs_that_fell_behind_are_not_read() {
    judge("stale", 2);
}

#[test]
fn classic_snapshots_and_their_origins_read_as_the_kernel_read_them() {
    judge("snap", 6);
}

#[test]
fn an_origin_whose_merge_is_pending_reads_as_the_merge_will_leave_it() {
    judge("merge", 1);
}

#[test]
fn a_snapshot_that_ran_full_is_refused() {
    let Some(fixture) = Fixture::open("snap") else { return };
    let error =
        crate::common::open_volume(&fixture.disks(), "vgsnap/tiny").unwrap_err().to_string();
    assert!(error.contains("its store ran full or failed"), "{error}");
}

#[test]
fn thin_volumes_and_their_snapshots_read_as_the_kernel_read_them() {
    judge("thin", 8);
}

#[test]
fn cached_volumes_read_as_the_kernel_read_them_dirty_or_not() {
    judge("cache", 4);
}
